"""Types of the graph: an account's operations and statistics."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from subgraphs.analytics import client
from subgraphs.analytics.graph.context import Info
from subgraphs.analytics.graph.loaders import StatisticsRequest
from wallet import cursor, inputs, paging
from wallet.graph import (
    ARGUMENT_SIZE,
    DESCRIPTION_COST,
    METADATA_COST,
    PAGE_COST,
    PAGED,
    AccountRef,
    ArgumentSize,
    Metadata,
    Money,
    PageInfo,
    cost_directive,
    list_size_directive,
)
from wallet.inputs import require_offset

MAX_BUCKETS: Final = 1_000
"""Maximum number of buckets that analytics returns."""

STATISTICS_COST: Final = 2 * PAGE_COST
"""`@cost` of statistics without their buckets: 11 ms of processor time, summed over all services."""


@strawberry.enum
class OperationType(Enum):
    TRANSFER = "TRANSFER"
    TOP_UP = "TOP_UP"


@strawberry.enum(description="Direction of the money: into the account or out of it.")
class Direction(Enum):
    IN = "IN"
    OUT = "OUT"


@strawberry.type(description="An operation in the history of one account.")
class Operation:
    source: strawberry.Private[client.Operation]

    @strawberry.field(description="Id of the transfer.")
    def id(self) -> strawberry.ID:
        return strawberry.ID(self.source.id_text)

    @strawberry.field
    def type(self) -> OperationType:
        return OperationType[self.source.type]

    @strawberry.field
    def direction(self) -> Direction:
        return Direction[self.source.direction]

    @strawberry.field(description="Always positive.")
    def amount(self) -> Money:
        return Money(amount=self.source.amount_text, currency=self.source.currency)

    @strawberry.field
    def balance_after(self) -> Money:
        return Money(amount=self.source.balance_after_text, currency=self.source.currency)

    @strawberry.field
    def counterparty(self) -> AccountRef:
        return AccountRef(id=strawberry.ID(self.source.counterparty_id_text))

    @strawberry.field(graphql_type=datetime)
    def occurred_at(self) -> str:
        return self.source.occurred_at_text

    @strawberry.field(description="Opaque position of this operation in the account's history.")
    def cursor(self) -> str:
        return _cursor(self.source)

    @strawberry.field(
        description="Text for both sides; null if there is none.", directives=[cost_directive(DESCRIPTION_COST)]
    )
    def description(self) -> str | None:
        return self.source.description or None

    @strawberry.field(description="The sender's own id of the transfer; only on the sender's operation.")
    def reference(self) -> str | None:
        return self.source.reference or None

    @strawberry.field(
        description="Data of the caller who made the transfer; null if there is none, and for other callers.",
        directives=[cost_directive(METADATA_COST)],
    )
    def metadata(self) -> Metadata | None:
        return Metadata(self.source.metadata) or None


def _cursor(operation: client.Operation) -> str:
    return cursor.encode_version(operation.account_version, operation.epoch)


@strawberry.type
class OperationEdge:
    source: strawberry.Private[client.Operation]

    @strawberry.field
    def cursor(self) -> str:
        return _cursor(self.source)

    @strawberry.field
    def node(self) -> Operation:
        return Operation(source=self.source)


@strawberry.type(description="A page of operations, newest first.")
class OperationConnection:
    source: strawberry.Private[client.OperationPage]

    @strawberry.field
    def edges(self) -> list[OperationEdge]:
        return [OperationEdge(source=each) for each in self.source.operations]

    @strawberry.field
    def page_info(self) -> PageInfo:
        page = self.source
        return PageInfo.from_cursors(
            [_cursor(each) for each in (*page.operations[:1], *page.operations[-1:])],
            has_older=page.has_older,
            has_newer=page.has_newer,
        )

    @strawberry.field(
        description="True if the page has every operation of its range that the ledger had when the request arrived. "
        "False while an operation is on its way to the history, and while the ledger is unavailable. The query "
        "`account` also reads from the ledger, so it fails while the ledger is unavailable.",
    )
    def is_complete(self) -> bool:
        return self.source.is_complete


@strawberry.input(description="An operation must satisfy all conditions that are set.")
class OperationFilter:
    types: list[OperationType] | None = strawberry.field(
        default=None, description="Matches any of these types; an empty list matches no operation."
    )
    direction: Direction | None = None
    counterparty_id: strawberry.ID | None = None
    min_amount: str | None = strawberry.field(default=None, description="Lowest amount that matches; a decimal number.")
    max_amount: str | None = strawberry.field(
        default=None, description="Highest amount that matches; a decimal number."
    )
    from_: datetime | None = strawberry.field(
        default=None, name="from", description="Start of the time range, inclusive."
    )
    to: datetime | None = strawberry.field(default=None, description="End of the time range, exclusive.")
    reference: str | None = strawberry.field(
        default=None, description="Matches outgoing operations with exactly this reference."
    )
    metadata: Metadata | None = strawberry.field(
        default=None,
        description="Matches outgoing operations that the caller made with all of these entries in their metadata.",
    )
    text: str | None = strawberry.field(
        default=None,
        description="Matches operations whose description contains this text, without regard to case.",
    )

    def to_client(self) -> client.OperationFilter:
        """Convert to a `client.OperationFilter`. Analytics validates amounts and times.

        Raises:
            InvalidInput: the counterparty's id is malformed, an amount is empty, or a time has no offset from UTC.
        """
        with inputs.FieldParser() as fields:
            counterparty = (
                None
                if self.counterparty_id is None
                else fields.parse("counterpartyId", inputs.parse_uuid, self.counterparty_id)
            )
            for name, amount in (("minAmount", self.min_amount), ("maxAmount", self.max_amount)):
                if amount is not None:
                    fields.parse(name, _require_text, amount)
            for name, text in (("reference", self.reference), ("text", self.text)):
                if text is not None:
                    fields.parse(name, _require_condition, text)
        return client.OperationFilter(
            types=None if self.types is None else tuple(kind.value for kind in self.types),
            direction=self.direction.value if self.direction else None,
            counterparty_id=counterparty,
            min_amount=self.min_amount,
            max_amount=self.max_amount,
            from_=self.from_ and require_offset("from", self.from_),
            to=self.to and require_offset("to", self.to),
            reference=self.reference,
            metadata=self.metadata or {},
            text=self.text,
        )


@strawberry.enum(description="Length of a bucket, by the calendar in UTC. A week starts on Monday.")
class Granularity(Enum):
    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


_LENGTHS: Final = {
    "HOUR": (timedelta(hours=1), timedelta(hours=1)),
    "DAY": (timedelta(days=1), timedelta(days=1)),
    "WEEK": (timedelta(weeks=1), timedelta(weeks=1)),
    "MONTH": (timedelta(days=28), timedelta(days=31)),
}
"""Shortest and longest length of a bucket, by granularity."""


def max_buckets(arguments: Mapping[str, Any]) -> int:
    """Return the maximum number of buckets of `Account.statistics` with these arguments.

    For times that cannot be parsed, return `MAX_BUCKETS`. A range that analytics will refuse counts as one bucket, so
    that the caller gets the error of the range and not an error about the cost. Such a range is empty, lacks an offset
    or certainly has more than `MAX_BUCKETS` buckets.
    """
    try:
        since, until = (datetime.fromisoformat(arguments[name]) for name in ("from", "to"))
        if since.tzinfo is None or until.tzinfo is None:
            return 1
        shortest, longest = _LENGTHS[arguments["granularity"]]
        # The first and the last bucket may be parts of a period.
        least, most = (until - since) // longest, (until - since) // shortest + 2
    except (KeyError, TypeError, ValueError):
        return MAX_BUCKETS
    is_refused = least > MAX_BUCKETS or until <= since
    return 1 if is_refused else min(MAX_BUCKETS, most)


@strawberry.type(description="Number of operations and the sum of their amounts.")
class Turnover:
    count: int
    amount: Money

    @classmethod
    def from_client(cls, turnover: client.Turnover) -> "Turnover":
        """Convert a `client.Turnover`."""
        return cls(count=turnover.count, amount=Money.from_money(turnover.amount))


@strawberry.type(description="Turnover of one type of operation.")
class TypeTurnover:
    type: OperationType
    incoming: Turnover
    outgoing: Turnover


@strawberry.type(
    description="One hour, day, week or month of the range, by the calendar in UTC. The first bucket starts at the "
    "start of the range and the last one ends at the end of the range, so both may be shorter.",
)
class StatisticsBucket:
    start: datetime = strawberry.field(description="Start of the bucket, inclusive.")
    end: datetime = strawberry.field(description="End of the bucket, exclusive.")
    count: int = strawberry.field(description="Number of operations in both directions.")
    incoming: Turnover
    outgoing: Turnover
    net: Money = strawberry.field(description="Incoming minus outgoing.")
    opening: Money = strawberry.field(
        description="Balance before the first operation of the bucket: the closing balance of the previous bucket."
    )
    closing: Money = strawberry.field(description="Balance after the last operation of the bucket.")
    by_type: list[TypeTurnover] = strawberry.field(
        description="Turnover of each type of operation that occurs in the bucket.",
        directives=[list_size_directive(len(OperationType))],
    )

    @classmethod
    def from_client(cls, bucket: client.StatisticsBucket) -> "StatisticsBucket":
        """Convert a `client.StatisticsBucket`."""
        return cls(
            start=bucket.start,
            end=bucket.end,
            count=bucket.count,
            incoming=Turnover.from_client(bucket.incoming),
            outgoing=Turnover.from_client(bucket.outgoing),
            net=Money.from_money(bucket.net),
            opening=Money.from_money(bucket.opening),
            closing=Money.from_money(bucket.closing),
            by_type=[
                TypeTurnover(
                    type=OperationType(each.type),
                    incoming=Turnover.from_client(each.incoming),
                    outgoing=Turnover.from_client(each.outgoing),
                )
                for each in bucket.by_type
            ],
        )


@strawberry.type(
    description="Turnover of an account over time. If `isComplete` is true, the amounts are those of the ledger at "
    "the position `cursor`."
)
class AccountStatistics:
    buckets: list[StatisticsBucket] = strawberry.field(
        description="All buckets of the range, oldest first, including empty ones.",
        directives=[list_size_directive(MAX_BUCKETS)],
    )
    cursor: str = strawberry.field(
        description="Position in the account's history up to which operations are counted.",
    )
    is_complete: bool = strawberry.field(
        description="True if every operation of the range that the ledger had when the request arrived is counted. "
        "False while an operation is on its way to the history, and while the ledger is unavailable. The query "
        "`account` also reads from the ledger, so it fails while the ledger is unavailable.",
    )

    @classmethod
    def from_client(cls, statistics: client.Statistics) -> "AccountStatistics":
        """Convert a `client.Statistics`."""
        return cls(
            buckets=[StatisticsBucket.from_client(bucket) for bucket in statistics.buckets],
            cursor=cursor.encode_version(statistics.as_of_version, statistics.epoch),
            is_complete=statistics.is_complete,
        )


@strawberry.type(description="Current balance of an account, or its balance after an operation.")
class BalanceUpdate:
    balance: Money
    cursor: str = strawberry.field(
        description="Position in the account's history after which the account has this balance."
    )


@strawberry.federation.type(keys=["id"])
class Account:
    id: strawberry.ID

    @strawberry.field(
        description="The account's operations, newest first. `first` and `after` page towards older operations, `last` "
        "and `before` towards newer ones. `last` without `before` returns the end of the list, the oldest operations.",
        directives=[cost_directive(PAGE_COST), PAGED],
    )
    async def operations(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
        filter: OperationFilter | None = None,  # noqa: A002
    ) -> OperationConnection | None:
        request = paging.parse_relay_arguments(
            cursor.decode_position, start=cursor.HISTORY_START, first=first, after=after, last=last, before=before
        )
        edge = request.older_than or request.newer_than
        page = await info.context.operation_pages.load(
            client.OperationPageRequest(
                UUID(self.id),
                limit=request.limit,
                older_than=request.older_than and request.older_than.version,
                newer_than=request.newer_than and request.newer_than.version,
                epoch=edge.epoch if edge else "",
                filter=filter.to_client() if filter else client.OperationFilter(),
            )
        )
        return OperationConnection(source=page)

    @strawberry.field(
        description="Turnover of the account from one time (inclusive) to another (exclusive), in at most 1,000 "
        "buckets.",
        directives=[cost_directive(STATISTICS_COST)],
        metadata={ARGUMENT_SIZE: ArgumentSize(("buckets",), max_buckets)},
    )
    async def statistics(
        self,
        info: Info,
        from_: Annotated[datetime, strawberry.argument(name="from")],
        to: datetime,
        granularity: Granularity,
    ) -> AccountStatistics | None:
        statistics = await info.context.statistics.load(
            StatisticsRequest(
                UUID(self.id),
                from_=require_offset("from", from_),
                to=require_offset("to", to),
                granularity=granularity.value,
            )
        )
        return AccountStatistics.from_client(statistics)


def _require_condition(text: str) -> str:
    """Return the text, or raise ValueError if it is empty. In a message to analytics, empty text means no condition."""
    if not text:
        raise ValueError("must not be empty")
    return text


def _require_text(amount: str) -> str:
    """Return the amount, or raise ValueError if it is empty. In a message to analytics, empty text means no
    condition.
    """
    if not amount:
        raise ValueError("must be a decimal number such as 10.00")
    return amount
