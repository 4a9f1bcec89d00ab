"""Converts between the client's values and `analytics.proto` messages."""

from typing import Final, Literal

from kit.rpc.converters import money_from_proto, time_from_proto, time_to_proto
from kit.runtime.pauses import convert_all
from protos.wallet.analytics.v1 import analytics_pb2
from subgraphs.analytics.client.operation import DIRECTIONS, OPERATION_TYPES, Operation
from subgraphs.analytics.client.types import (
    OperationFilter,
    OperationPage,
    OperationPageRequest,
    Statistics,
    StatisticsBucket,
    Turnover,
    TypeTurnover,
)

_GRANULARITIES: Final[dict[str, analytics_pb2.Granularity.ValueType]] = {
    "HOUR": analytics_pb2.GRANULARITY_HOUR,
    "DAY": analytics_pb2.GRANULARITY_DAY,
    "WEEK": analytics_pb2.GRANULARITY_WEEK,
    "MONTH": analytics_pb2.GRANULARITY_MONTH,
}
_TYPE_NUMBERS: Final[dict[str, int]] = {name: number for number, name in OPERATION_TYPES.items()}
_DIRECTION_NUMBERS: Final[dict[str, int]] = {name: number for number, name in DIRECTIONS.items()}


def operation_filter_to_proto(value: OperationFilter) -> analytics_pb2.OperationFilter:
    """Convert a filter."""
    message = analytics_pb2.OperationFilter(
        types=[analytics_pb2.OperationType.ValueType(_TYPE_NUMBERS[kind]) for kind in sorted(set(value.types or ()))],
        matches_no_type=value.types == (),
        counterparty_id=str(value.counterparty_id or ""),
        min_amount=value.min_amount or "",
        max_amount=value.max_amount or "",
        reference=value.reference or "",
        text=value.text or "",
        metadata=value.metadata,
    )
    if value.direction is not None:
        message.direction = analytics_pb2.Direction.ValueType(_DIRECTION_NUMBERS[value.direction])
    if value.from_ is not None:
        getattr(message, "from").CopyFrom(time_to_proto(value.from_))
    if value.to is not None:
        message.to.CopyFrom(time_to_proto(value.to))
    return message


def operation_page_request_to_proto(request: OperationPageRequest) -> analytics_pb2.GetOperationsRequest:
    """Convert the request of a page."""
    return analytics_pb2.GetOperationsRequest(
        account_id=str(request.account_id),
        page_size=request.limit,
        older_than=request.older_than,
        newer_than=request.newer_than,
        epoch=request.epoch,
        filter=operation_filter_to_proto(request.filter),
    )


def operation_page_from_proto(message: analytics_pb2.GetOperationsResponse) -> OperationPage:
    """Convert a page. Its operations convert their attributes when they are read."""
    operations = tuple(map(Operation, message.operations))
    return OperationPage(operations, message.has_older, message.has_newer, message.is_complete)


def granularity_to_proto(value: Literal["HOUR", "DAY", "WEEK", "MONTH"]) -> analytics_pb2.Granularity.ValueType:
    """Convert a granularity."""
    return _GRANULARITIES[value]


async def statistics_from_proto(message: analytics_pb2.GetStatisticsResponse) -> Statistics:
    """Convert a statistics response, with pauses, because it may have many buckets."""
    buckets = tuple(await convert_all(bucket_from_proto, message.buckets))
    return Statistics(buckets, message.as_of_version, message.is_complete, message.epoch)


def bucket_from_proto(message: analytics_pb2.StatisticsBucket) -> StatisticsBucket:
    """Convert a bucket."""
    return StatisticsBucket(
        time_from_proto(message.start),
        time_from_proto(message.end),
        message.count,
        turnover_from_proto(message.incoming),
        turnover_from_proto(message.outgoing),
        money_from_proto(message.net),
        money_from_proto(message.opening_balance),
        money_from_proto(message.closing_balance),
        tuple(
            TypeTurnover(
                OPERATION_TYPES[each.type], turnover_from_proto(each.incoming), turnover_from_proto(each.outgoing)
            )
            for each in message.by_type
        ),
    )


def turnover_from_proto(message: analytics_pb2.Turnover) -> Turnover:
    """Convert a turnover."""
    return Turnover(message.count, money_from_proto(message.amount))
