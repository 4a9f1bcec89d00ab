"""What analytics contributes to the graph: an account's operations, their statistics, and its live feeds."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from typing import Annotated, Protocol
from uuid import UUID

import strawberry

from kit.rpc import channel
from subgraphs.analytics import client
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from wallet import cursor, inputs, paging
from wallet.errors import InvalidInput
from wallet.graph import PAGED, AccountRef, Money, PageInfo, cost_directive, list_size_directive


class Context(Protocol):
    """What the resolvers need of a request."""

    @property
    def analytics(self) -> AnalyticsClient: ...

    @property
    def bank(self) -> BankClient: ...


Info = strawberry.Info[Context, None]


@strawberry.enum
class OperationType(Enum):
    TRANSFER = "TRANSFER"
    TOP_UP = "TOP_UP"


@strawberry.enum(description="Which way the money went, as this account sees it.")
class Direction(Enum):
    IN = "IN"
    OUT = "OUT"


@strawberry.type(description="One operation from one account's side.")
class Operation:
    id: strawberry.ID = strawberry.field(description="The transfer's id.")
    type: OperationType
    direction: Direction
    amount: Money = strawberry.field(description="Always positive.")
    balance_after: Money
    counterparty: AccountRef
    occurred_at: datetime
    cursor: str = strawberry.field(description="Opaque; the place of this operation in the account's history.")

    @classmethod
    def of(cls, operation: client.Operation) -> "Operation":
        """The same operation for the graph."""
        return cls(
            id=strawberry.ID(str(operation.id)),
            type=OperationType(operation.type),
            direction=Direction(operation.direction),
            amount=Money.from_money(operation.amount),
            balance_after=Money.from_money(operation.balance_after),
            counterparty=AccountRef(id=strawberry.ID(str(operation.counterparty_id))),
            occurred_at=operation.occurred_at,
            cursor=cursor.encode_version(operation.account_version),
        )


@strawberry.type
class OperationEdge:
    cursor: str
    node: Operation


@strawberry.type(description="A page of operations, newest first.")
class OperationConnection:
    edges: list[OperationEdge]
    page_info: PageInfo

    @classmethod
    def of(cls, page: client.OperationPage) -> "OperationConnection":
        """The same page for the graph."""
        nodes = [Operation.of(operation) for operation in page.operations]
        return cls(
            edges=[OperationEdge(cursor=node.cursor, node=node) for node in nodes],
            page_info=PageInfo.from_cursors(
                [node.cursor for node in nodes],
                has_older=page.has_older,
                has_newer=page.has_newer,
            ),
        )


@strawberry.input(description="Every condition that is given must hold.")
class OperationFilter:
    types: list[OperationType] | None = strawberry.field(default=None, description="Any of these.")
    direction: Direction | None = None
    counterparty_id: strawberry.ID | None = None
    min_amount: str | None = strawberry.field(default=None, description="Inclusive; a decimal number.")
    max_amount: str | None = strawberry.field(default=None, description="Inclusive; a decimal number.")
    from_: datetime | None = strawberry.field(default=None, name="from", description="Inclusive.")
    to: datetime | None = strawberry.field(default=None, description="Exclusive.")

    def to_client(self) -> client.OperationFilter:
        """The same filter for the service, which judges its values."""
        with inputs.FieldParser() as fields:
            counterparty = self.counterparty_id and fields.parse(
                "counterpartyId", inputs.parse_uuid, self.counterparty_id
            )
        return client.OperationFilter(
            types=tuple(kind.value for kind in self.types or ()),
            direction=self.direction.value if self.direction else None,
            counterparty_id=counterparty or None,
            min_amount=self.min_amount,
            max_amount=self.max_amount,
            from_=self.from_ and _aware("from", self.from_),
            to=self.to and _aware("to", self.to),
        )


@strawberry.enum(description="The length of a bucket, by the calendar in UTC; a week begins on Monday.")
class Granularity(Enum):
    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


@strawberry.type(description="How many operations, and the sum of their amounts.")
class Turnover:
    count: int
    amount: Money

    @classmethod
    def of(cls, turnover: client.Turnover) -> "Turnover":
        """The same turnover for the graph."""
        return cls(count=turnover.count, amount=Money.from_money(turnover.amount))


@strawberry.type(description="The turnovers of one type of operation.")
class TypeTurnover:
    type: OperationType
    incoming: Turnover
    outgoing: Turnover


@strawberry.type(
    description="A part of the range by the calendar in UTC; the first begins, and the last ends, with the range.",
)
class StatisticsBucket:
    start: datetime = strawberry.field(description="Inclusive.")
    end: datetime = strawberry.field(description="Exclusive.")
    count: int = strawberry.field(description="Operations in both directions.")
    incoming: Turnover
    outgoing: Turnover
    net: Money = strawberry.field(description="Incoming less outgoing.")
    opening: Money = strawberry.field(description="The balance before: the previous bucket's closing one.")
    closing: Money = strawberry.field(description="The balance after.")
    by_type: list[TypeTurnover] = strawberry.field(
        description="The same by type, for each type that occurs.",
        directives=[list_size_directive(len(OperationType))],
    )

    @classmethod
    def of(cls, bucket: client.StatisticsBucket) -> "StatisticsBucket":
        """The same bucket for the graph."""
        return cls(
            start=bucket.start,
            end=bucket.end,
            count=bucket.count,
            incoming=Turnover.of(bucket.incoming),
            outgoing=Turnover.of(bucket.outgoing),
            net=Money.from_money(bucket.net),
            opening=Money.from_money(bucket.opening),
            closing=Money.from_money(bucket.closing),
            by_type=[
                TypeTurnover(
                    type=OperationType(each.type),
                    incoming=Turnover.of(each.incoming),
                    outgoing=Turnover.of(each.outgoing),
                )
                for each in bucket.by_type
            ],
        )


@strawberry.type(description="What went in and out of an account over time, exactly as the ledger has it.")
class AccountStatistics:
    buckets: list[StatisticsBucket] = strawberry.field(
        description="All of the range, oldest first, those in which nothing happened too.",
        directives=[list_size_directive(100)],
    )
    cursor: str = strawberry.field(
        description="The place in the account's history up to which operations are counted.",
    )
    is_complete: bool = strawberry.field(
        description="Whether every operation up to there is counted. False for the moment that one is still on its way "
        "while a later one has arrived.",
    )

    @classmethod
    def of(cls, statistics: client.Statistics) -> "AccountStatistics":
        """The same statistics for the graph."""
        return cls(
            buckets=[StatisticsBucket.of(bucket) for bucket in statistics.buckets],
            cursor=cursor.encode_version(statistics.as_of_version),
            is_complete=statistics.is_complete,
        )


@strawberry.type(description="A balance, as it is or as an operation left it.")
class BalanceUpdate:
    balance: Money
    cursor: str = strawberry.field(description="The place in the account's history that the balance belongs to.")


@strawberry.federation.type(keys=["id"])
class Account:
    id: strawberry.ID

    @strawberry.field(
        description="The account's operations, newest first. `first` and `after` go towards older ones, `last` and "
        "`before` towards newer ones.",
        directives=[cost_directive(5), PAGED],
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
        asked = paging.parse_relay_arguments(cursor.decode_version, first=first, after=after, last=last, before=before)
        page = await info.context.analytics.operations(
            UUID(self.id),
            limit=asked.limit,
            older_than=asked.older_than,
            newer_than=asked.newer_than,
            filter=filter.to_client() if filter else client.OperationFilter(),
        )
        return OperationConnection.of(page)

    @strawberry.field(
        description="What went in and out of the account from one time (inclusive) to another (exclusive), in at most "
        "1,000 buckets.",
        directives=[cost_directive(20)],
    )
    async def statistics(
        self,
        info: Info,
        from_: Annotated[datetime, strawberry.argument(name="from")],
        to: datetime,
        granularity: Granularity,
    ) -> AccountStatistics | None:
        statistics = await info.context.analytics.statistics(
            UUID(self.id),
            from_=_aware("from", from_),
            to=_aware("to", to),
            granularity=granularity.value,
        )
        return AccountStatistics.of(statistics)


def _aware(field: str, time: datetime) -> datetime:
    """The time, once it says what it is measured from."""
    if time.tzinfo is None:
        raise InvalidInput.for_field(field, "must have an offset from UTC, such as Z")
    return time


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="The account's operations after a cursor, then the live ones, in order: no gap, no repeat. Without "
        "a cursor, from now on.",
    )
    async def operation_added(
        self,
        info: Info,
        account_id: strawberry.ID,
        after: str | None = None,
    ) -> AsyncGenerator[Operation, None]:
        with inputs.FieldParser() as fields:
            account = fields.parse("accountId", inputs.parse_uuid, account_id)
            version = None if after is None else fields.parse("after", cursor.decode_version, after)
        if version is None:
            version = (await info.context.bank.get_balance(account)).version
        async with aclosing(_watch(info.context.analytics, account, version)) as operations:
            async for operation in operations:
                yield Operation.of(operation)

    @strawberry.subscription(description="The account's balance now, then after each operation.")
    async def balance_changed(self, info: Info, account_id: strawberry.ID) -> AsyncGenerator[BalanceUpdate, None]:
        with inputs.FieldParser() as fields:
            account = fields.parse("accountId", inputs.parse_uuid, account_id)
        now = await info.context.bank.get_balance(account)
        yield BalanceUpdate(balance=Money.from_money(now.amount), cursor=cursor.encode_version(now.version))
        async with aclosing(_watch(info.context.analytics, account, now.version)) as operations:
            async for operation in operations:
                yield BalanceUpdate(
                    balance=Money.from_money(operation.balance_after),
                    cursor=cursor.encode_version(operation.account_version),
                )


async def _watch(analytics: AnalyticsClient, account_id: UUID, after: int) -> AsyncGenerator[client.Operation, None]:
    """The operations after a version, on from the last one seen when analytics goes away for a while."""
    async with aclosing(channel.reconnecting_stream(lambda: analytics.watch(account_id, after))) as operations:
        async for operation in operations:
            after = operation.account_version
            yield operation
