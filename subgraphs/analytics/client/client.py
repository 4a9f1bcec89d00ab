"""Analytics as its callers see it: typed values in and out, typed errors."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from kit.rpc import converters
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.tls import TLS
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from wallet.money import Money

SERVICE: Final = analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

_WHAT: Final = "the operation history"
_TYPES: Final[dict[int, Literal["TRANSFER", "TOP_UP"]]] = {
    analytics_pb2.OPERATION_TYPE_TRANSFER: "TRANSFER",
    analytics_pb2.OPERATION_TYPE_TOP_UP: "TOP_UP",
}
_DIRECTIONS: Final[dict[int, Literal["IN", "OUT"]]] = {
    analytics_pb2.DIRECTION_IN: "IN",
    analytics_pb2.DIRECTION_OUT: "OUT",
}
_GRANULARITIES: Final[dict[str, analytics_pb2.Granularity.ValueType]] = {
    "HOUR": analytics_pb2.GRANULARITY_HOUR,
    "DAY": analytics_pb2.GRANULARITY_DAY,
    "WEEK": analytics_pb2.GRANULARITY_WEEK,
    "MONTH": analytics_pb2.GRANULARITY_MONTH,
}
_TYPE_NUMBERS: Final[dict[str, int]] = {name: number for number, name in _TYPES.items()}
_DIRECTION_NUMBERS: Final[dict[str, int]] = {name: number for number, name in _DIRECTIONS.items()}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation from one account's side: `amount` is positive, `direction` says which way it went."""

    id: UUID
    account_id: UUID
    account_version: int
    type: Literal["TRANSFER", "TOP_UP"]
    direction: Literal["IN", "OUT"]
    amount: Money
    balance_after: Money
    counterparty_id: UUID
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Operations, newest first, and whether there are more on either side."""

    operations: tuple[Operation, ...]
    has_older: bool
    has_newer: bool


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Conditions that must all hold. Amounts are decimal strings, inclusive; `from_` is inclusive, `to` exclusive."""

    types: tuple[str, ...] = ()
    direction: str | None = None
    counterparty_id: UUID | None = None
    min_amount: str | None = None
    max_amount: str | None = None
    from_: datetime | None = None
    to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Turnover:
    """How many operations, and the sum of their amounts."""

    count: int
    amount: Money


@dataclass(frozen=True, slots=True)
class TypeTurnover:
    """The turnovers of one type of operation."""

    type: Literal["TRANSFER", "TOP_UP"]
    incoming: Turnover
    outgoing: Turnover


@dataclass(frozen=True, slots=True)
class StatisticsBucket:
    """What went in and out from `start` (inclusive) to `end` (exclusive), and the balances before and after."""

    start: datetime
    end: datetime
    count: int
    incoming: Turnover
    outgoing: Turnover
    net: Money
    opening: Money
    closing: Money
    by_type: tuple[TypeTurnover, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Buckets, oldest first. What the ledger did after version `as_of_version` is not in them; `is_complete` says that
    all before it is.
    """

    buckets: tuple[StatisticsBucket, ...]
    as_of_version: int
    is_complete: bool


class AnalyticsClient:
    """Calls analytics in the name of the current call's caller (`request_context.current`). Every method only reads.

    Every method raises the `WalletError` that analytics refused it with, Unavailable when analytics does not answer and
    DeadlineExceeded when it does not in time.
    """

    def __init__(
        self, stub: "analytics_pb2_grpc.AnalyticsServiceAsyncStub", limits: ClientLimits = ClientLimits()
    ) -> None:
        self._stub = stub
        self._calls = RpcClient(_WHAT, limits)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, limits: ClientLimits = ClientLimits(), tls: TLS | None = None
    ) -> AsyncIterator["AnalyticsClient"]:
        """A client of analytics at a gRPC target; connects when first called."""
        async with open_channel(target, SERVICE, ["GetOperations", "GetStatistics"], tls, name="analytics") as opened:
            yield cls(analytics_pb2_grpc.AnalyticsServiceStub(opened), limits)

    async def operations(
        self,
        account_id: UUID,
        *,
        limit: int,
        older_than: int | None = None,
        newer_than: int | None = None,
        filter: OperationFilter = OperationFilter(),  # noqa: A002
    ) -> OperationPage:
        """A page of the account's operations before one version, or after one."""
        request = analytics_pb2.GetOperationsRequest(
            account_id=str(account_id),
            page_size=limit,
            older_than=older_than,
            newer_than=newer_than,
            filter=_filter(filter),
        )
        response = await self._calls.unary(self._stub.GetOperations, request)
        operations = tuple(_operation(operation) for operation in response.operations)
        return OperationPage(operations, response.has_older, response.has_newer)

    async def statistics(
        self,
        account_id: UUID,
        *,
        from_: datetime,
        to: datetime,
        granularity: Literal["HOUR", "DAY", "WEEK", "MONTH"],
    ) -> Statistics:
        """What went in and out of the account from one time (inclusive) to another (exclusive), by UTC's calendar."""
        request = analytics_pb2.GetStatisticsRequest(
            account_id=str(account_id),
            to=converters.time_to_proto(to),
            granularity=_GRANULARITIES[granularity],
            **{"from": converters.time_to_proto(from_)},
        )
        response = await self._calls.unary(self._stub.GetStatistics, request)
        return Statistics(tuple(map(_bucket, response.buckets)), response.as_of_version, response.is_complete)

    async def watch(self, account_id: UUID, after_version: int | None) -> AsyncGenerator[Operation, None]:
        """The account's operations after a version (None: from now on), then the live ones, in version order."""
        request = analytics_pb2.WatchOperationsRequest(account_id=str(account_id), after_version=after_version)
        async with aclosing(self._calls.stream(self._stub.WatchOperations, request)) as responses:
            async for response in responses:
                yield _operation(response.operation)


def _filter(value: OperationFilter) -> analytics_pb2.OperationFilter:
    message = analytics_pb2.OperationFilter(
        types=[analytics_pb2.OperationType.ValueType(_TYPE_NUMBERS[kind]) for kind in value.types],
        counterparty_id=str(value.counterparty_id or ""),
        min_amount=value.min_amount or "",
        max_amount=value.max_amount or "",
    )
    if value.direction is not None:
        message.direction = analytics_pb2.Direction.ValueType(_DIRECTION_NUMBERS[value.direction])
    if value.from_ is not None:
        getattr(message, "from").CopyFrom(converters.time_to_proto(value.from_))
    if value.to is not None:
        message.to.CopyFrom(converters.time_to_proto(value.to))
    return message


def _operation(message: analytics_pb2.Operation) -> Operation:
    return Operation(
        UUID(message.id),
        UUID(message.account_id),
        message.account_version,
        _TYPES[message.type],
        _DIRECTIONS[message.direction],
        converters.money_from_proto(message.amount),
        converters.money_from_proto(message.balance_after),
        UUID(message.counterparty_id),
        converters.time_from_proto(message.occurred_at),
    )


def _bucket(message: analytics_pb2.StatisticsBucket) -> StatisticsBucket:
    return StatisticsBucket(
        converters.time_from_proto(message.start),
        converters.time_from_proto(message.end),
        message.count,
        _turnover(message.incoming),
        _turnover(message.outgoing),
        converters.money_from_proto(message.net),
        converters.money_from_proto(message.opening_balance),
        converters.money_from_proto(message.closing_balance),
        tuple(
            TypeTurnover(_TYPES[each.type], _turnover(each.incoming), _turnover(each.outgoing))
            for each in message.by_type
        ),
    )


def _turnover(message: analytics_pb2.Turnover) -> Turnover:
    return Turnover(message.count, converters.money_from_proto(message.amount))
