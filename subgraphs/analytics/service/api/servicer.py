"""Proto to domain and back, nothing else."""

# ruff: noqa: D102, N802  the methods are analytics.proto's, which names and documents them
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage

from kit.rpc import converters, request_context
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from subgraphs.analytics.service.application.service import Analytics
from subgraphs.analytics.service.domain.model import (
    Direction,
    OperationFilter,
    OperationType,
    Row,
    StreamStart,
    parse_amount,
)
from subgraphs.analytics.service.domain.statistics import Bucket, Frame, Granularity, Turnover
from wallet import inputs
from wallet.errors import InvalidInput
from wallet.money import Money

SERVICE: Final = analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

_TYPES: Final = {
    OperationType.TRANSFER: analytics_pb2.OPERATION_TYPE_TRANSFER,
    OperationType.TOP_UP: analytics_pb2.OPERATION_TYPE_TOP_UP,
}
_DIRECTIONS: Final = {
    Direction.IN: analytics_pb2.DIRECTION_IN,
    Direction.OUT: analytics_pb2.DIRECTION_OUT,
}
_GRANULARITIES: Final = {
    Granularity.HOUR: analytics_pb2.GRANULARITY_HOUR,
    Granularity.DAY: analytics_pb2.GRANULARITY_DAY,
    Granularity.WEEK: analytics_pb2.GRANULARITY_WEEK,
    Granularity.MONTH: analytics_pb2.GRANULARITY_MONTH,
}
Known = TypeVar("Known", OperationType, Direction, Granularity)


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServiceServicer):
    """`analytics.proto`, served. Errors are raised as they are; `kit.rpc.server` makes statuses of them."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server(self, server)

    async def GetOperations(
        self,
        request: analytics_pb2.GetOperationsRequest,
        context: Any,  # noqa: ARG002
    ) -> analytics_pb2.GetOperationsResponse:
        page = await self._analytics.operations(
            request_context.current_principal(),
            _account(request.account_id),
            limit=request.page_size,
            older_than=request.older_than if request.HasField("older_than") else None,
            newer_than=request.newer_than if request.HasField("newer_than") else None,
            conditions=_filter(request.filter),
        )
        return analytics_pb2.GetOperationsResponse(
            operations=map(_operation, page.rows),
            has_older=page.has_older,
            has_newer=page.has_newer,
        )

    async def GetStatistics(
        self,
        request: analytics_pb2.GetStatisticsRequest,
        context: Any,  # noqa: ARG002
    ) -> analytics_pb2.GetStatisticsResponse:
        account_id = _account(request.account_id)
        for name in ("from", "to"):
            if not request.HasField(name):
                raise InvalidInput.for_field(name, "is required")
        frame = Frame(
            _time("from", getattr(request, "from")),
            _time("to", request.to),
            _known("granularity", _GRANULARITIES, request.granularity),
        )
        statistics = await self._analytics.statistics(request_context.current_principal(), account_id, frame)
        return analytics_pb2.GetStatisticsResponse(
            buckets=[_bucket(bucket, statistics.currency) for bucket in statistics.buckets],
            as_of_version=statistics.as_of_version,
            is_complete=statistics.is_complete,
        )

    async def WatchOperations(
        self,
        request: analytics_pb2.WatchOperationsRequest,
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[analytics_pb2.WatchOperationsResponse]:
        after = request.after_version if request.HasField("after_version") else None
        async with aclosing(self._analytics.watch(_account(request.account_id), after)) as rows:
            async for row in rows:
                if isinstance(row, StreamStart):
                    yield analytics_pb2.WatchOperationsResponse(start_version=row.version)
                else:
                    yield analytics_pb2.WatchOperationsResponse(operation=_operation(row))


def _account(text: str) -> UUID:
    with inputs.FieldParser() as fields:
        return fields.parse("accountId", inputs.parse_uuid, text)


def _filter(message: analytics_pb2.OperationFilter) -> OperationFilter:
    with inputs.FieldParser() as fields:
        return OperationFilter(
            types=frozenset(_known("type", _TYPES, number) for number in message.types),
            direction=_known("direction", _DIRECTIONS, message.direction) if message.direction else None,
            counterparty_id=fields.parse("counterpartyId", inputs.parse_uuid, message.counterparty_id)
            if message.counterparty_id
            else None,
            min_amount=fields.parse("minAmount", parse_amount, message.min_amount) if message.min_amount else None,
            max_amount=fields.parse("maxAmount", parse_amount, message.max_amount) if message.max_amount else None,
            since=_time("from", getattr(message, "from")) if message.HasField("from") else None,
            until=_time("to", message.to) if message.HasField("to") else None,
        )


def _known(field: str, numbers: dict[Known, Any], number: int) -> Known:
    for value, known in numbers.items():
        if known == number:
            return value
    raise InvalidInput.for_field(field, "is not one that is known")


def _time(field: str, message: Timestamp) -> datetime:
    try:
        return converters.time_from_proto(message)
    except (ValueError, OverflowError):
        raise InvalidInput.for_field(field, "is out of range") from None


def _operation(row: Row) -> analytics_pb2.Operation:
    return analytics_pb2.Operation(
        id=str(row.operation_id),
        account_id=str(row.account_id),
        account_version=row.account_version,
        type=_TYPES[row.type],
        direction=_DIRECTIONS[row.direction],
        amount=converters.money_to_proto(Money(row.amount, row.currency)),
        balance_after=converters.money_to_proto(Money(row.balance_after, row.currency)),
        counterparty_id=str(row.counterparty_id),
        occurred_at=converters.time_to_proto(row.occurred_at),
    )


def _bucket(bucket: Bucket, currency: str) -> analytics_pb2.StatisticsBucket:
    def money(amount: Decimal) -> MoneyMessage:
        return converters.money_to_proto(Money(amount, currency))

    def turnover(value: Turnover) -> analytics_pb2.Turnover:
        return analytics_pb2.Turnover(count=value.count, amount=money(value.amount))

    incoming, outgoing = bucket.turnover(Direction.IN), bucket.turnover(Direction.OUT)
    return analytics_pb2.StatisticsBucket(
        start=converters.time_to_proto(bucket.start),
        end=converters.time_to_proto(bucket.end),
        count=incoming.count + outgoing.count,
        incoming=turnover(incoming),
        outgoing=turnover(outgoing),
        net=money(incoming.amount - outgoing.amount),
        opening_balance=money(bucket.opening),
        closing_balance=money(bucket.closing),
        by_type=[
            analytics_pb2.TypeTurnover(
                type=_TYPES[kind],
                incoming=turnover(bucket.turnover(Direction.IN, [kind])),
                outgoing=turnover(bucket.turnover(Direction.OUT, [kind])),
            )
            for kind in bucket.types
        ],
    )
