"""gRPC servicer of analytics: converts between `analytics.proto` and the domain."""

# ruff: noqa: D102, N802  analytics.proto names and documents the methods
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage

from kit.auth.principal import Principal
from kit.rpc import converters, request_context
from kit.rpc.status import error_to_status
from kit.runtime.pauses import convert_all
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from subgraphs.analytics.service.application.service import Analytics
from subgraphs.analytics.service.domain.model import (
    NO_WORDS,
    Direction,
    MetadataFilter,
    OperationFilter,
    OperationType,
    Page,
    PageRequest,
    Row,
    StreamStart,
    parse_amount,
)
from subgraphs.analytics.service.domain.statistics import Bucket, Granularity, StatisticsRange, Turnover
from wallet import inputs, paging
from wallet.errors import InvalidInput, WalletError
from wallet.money import Money

SERVICE: Final = analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

_MAX_TYPES: Final = 100
"""Maximum number of types in a filter, repetitions included."""

_MAX_REFERENCE: Final = 64
_MAX_DESCRIPTION: Final = 140
_MAX_ENTRIES: Final = 16

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
EnumValue = TypeVar("EnumValue", OperationType, Direction, Granularity)


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServiceServicer):
    """Implementation of `analytics.proto`. Raises `WalletError`s, which `kit.rpc.server` converts to statuses."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server(self, server)

    async def GetOperations(
        self,
        request: analytics_pb2.GetOperationsRequest,
        context: Any,  # noqa: ARG002
    ) -> analytics_pb2.GetOperationsResponse:
        caller = request_context.current_principal()
        page = await self._analytics.list_operations(caller, _page_request_from_proto(request, caller))
        return await _page_to_proto(page, caller)

    async def BatchGetOperations(
        self,
        request: analytics_pb2.BatchGetOperationsRequest,
        context: Any,  # noqa: ARG002
    ) -> analytics_pb2.BatchGetOperationsResponse:
        paging.check_batch([each.page_size for each in request.requests])
        caller = request_context.current_principal()
        pages = await self._analytics.list_pages(
            caller, [_try_page_request_from_proto(each, caller) for each in request.requests]
        )
        return analytics_pb2.BatchGetOperationsResponse(
            results=[await _result_to_proto(page, caller) for page in pages]
        )

    async def GetStatistics(
        self,
        request: analytics_pb2.GetStatisticsRequest,
        context: Any,  # noqa: ARG002
    ) -> analytics_pb2.GetStatisticsResponse:
        account_id = _account_id_from_proto(request.account_id)
        for name in ("from", "to"):
            if not request.HasField(name):
                raise InvalidInput.for_field(name, "is required")
        range_ = StatisticsRange(
            _time_from_proto("from", getattr(request, "from")),
            _time_from_proto("to", request.to),
            _enum_from_proto("granularity", _GRANULARITIES, request.granularity),
        )
        statistics = await self._analytics.get_statistics(request_context.current_principal(), account_id, range_)
        return analytics_pb2.GetStatisticsResponse(
            buckets=[_bucket_to_proto(bucket, statistics.currency) for bucket in statistics.buckets],
            as_of_version=statistics.as_of_version,
            is_complete=statistics.is_complete,
            epoch=statistics.epoch,
        )

    async def WatchOperations(
        self,
        request: analytics_pb2.WatchOperationsRequest,
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[analytics_pb2.WatchOperationsResponse]:
        caller = request_context.current_principal()
        after = request.after_version if request.HasField("after_version") else None
        epoch = ""
        async with aclosing(
            self._analytics.watch_operations(_account_id_from_proto(request.account_id), after, request.epoch)
        ) as batches:
            async for batch in batches:
                if isinstance(batch, StreamStart):
                    epoch = batch.epoch
                    if request.include_start_version and after is None:
                        yield analytics_pb2.WatchOperationsResponse(start_version=batch.version, start_epoch=epoch)
                    continue
                operations = [_operation_to_proto(row, epoch, caller) for row in batch]
                if request.accepts_batches:
                    yield analytics_pb2.WatchOperationsResponse(operations=operations)
                    continue
                for operation in operations:
                    yield analytics_pb2.WatchOperationsResponse(operation=operation)


def _page_request_from_proto(message: analytics_pb2.GetOperationsRequest, caller: Principal) -> PageRequest:
    return PageRequest(
        _account_id_from_proto(message.account_id),
        limit=message.page_size,
        older_than=message.older_than if message.HasField("older_than") else None,
        newer_than=message.newer_than if message.HasField("newer_than") else None,
        epoch=message.epoch,
        conditions=_filter_from_proto(message.filter, caller),
    )


def _try_page_request_from_proto(
    message: analytics_pb2.GetOperationsRequest, caller: Principal
) -> PageRequest | InvalidInput:
    try:
        return _page_request_from_proto(message, caller)
    except InvalidInput as error:
        return error


async def _page_to_proto(page: Page, caller: Principal) -> analytics_pb2.GetOperationsResponse:
    return analytics_pb2.GetOperationsResponse(
        operations=await convert_all(lambda row: _operation_to_proto(row, page.epoch, caller), page.rows),
        has_older=page.has_older,
        has_newer=page.has_newer,
        is_complete=page.is_complete,
    )


async def _result_to_proto(
    page: Page | WalletError, caller: Principal
) -> analytics_pb2.BatchGetOperationsResponse.Result:
    if isinstance(page, WalletError):
        return analytics_pb2.BatchGetOperationsResponse.Result(error=error_to_status(page))
    return analytics_pb2.BatchGetOperationsResponse.Result(value=await _page_to_proto(page, caller))


def _account_id_from_proto(text: str) -> UUID:
    with inputs.FieldParser() as fields:
        return fields.parse("accountId", inputs.parse_uuid, text)


def _filter_from_proto(message: analytics_pb2.OperationFilter, caller: Principal) -> OperationFilter:
    if len(message.metadata) > _MAX_ENTRIES:
        raise InvalidInput.for_field("metadata", f"must have at most {_MAX_ENTRIES} entries")
    if len(message.types) > _MAX_TYPES:
        raise InvalidInput.for_field("types", f"must have at most {_MAX_TYPES} items")
    with inputs.FieldParser() as fields:
        return OperationFilter(
            types=frozenset(_enum_from_proto("types", _TYPES, number) for number in message.types)
            if message.types or message.matches_no_type
            else None,
            direction=_enum_from_proto("direction", _DIRECTIONS, message.direction) if message.direction else None,
            counterparty_id=fields.parse("counterpartyId", inputs.parse_uuid, message.counterparty_id)
            if message.counterparty_id
            else None,
            min_amount=fields.parse("minAmount", parse_amount, message.min_amount) if message.min_amount else None,
            max_amount=fields.parse("maxAmount", parse_amount, message.max_amount) if message.max_amount else None,
            since=_time_from_proto("from", getattr(message, "from")) if message.HasField("from") else None,
            until=_time_from_proto("to", message.to) if message.HasField("to") else None,
            reference=fields.parse("reference", _search_text(_MAX_REFERENCE), message.reference)
            if message.reference
            else None,
            metadata=MetadataFilter(dict(message.metadata), caller.scope) if message.metadata else None,
            text=fields.parse("text", _search_text(_MAX_DESCRIPTION), message.text) if message.text else None,
        )


def _search_text(max_length: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if len(text) > max_length:
            raise ValueError(f"must have at most {max_length} characters")
        return text

    return parse


def _enum_from_proto(field: str, numbers: dict[EnumValue, Any], number: int) -> EnumValue:
    for value, proto_number in numbers.items():
        if proto_number == number:
            return value
    raise InvalidInput.for_field(field, f"must be one of {', '.join(each.value for each in numbers)}")


def _time_from_proto(field: str, message: Timestamp) -> datetime:
    try:
        return converters.time_from_proto(message)
    except (ValueError, OverflowError):
        raise InvalidInput.for_field(field, "must be in the years 1 to 9999") from None


def _operation_to_proto(row: Row, epoch: str, caller: Principal) -> analytics_pb2.Operation:
    message = analytics_pb2.Operation(
        id=str(row.operation_id),
        account_id=str(row.account_id),
        account_version=row.account_version,
        type=_TYPES[row.type],
        direction=_DIRECTIONS[row.direction],
        amount=converters.money_to_proto(Money(row.amount, row.currency)),
        balance_after=converters.money_to_proto(Money(row.balance_after, row.currency)),
        counterparty_id=str(row.counterparty_id),
        occurred_at=converters.time_to_proto(row.occurred_at),
        epoch=epoch,
    )
    if (words := row.words) is not NO_WORDS:
        message.description = words.description
        message.reference = words.reference
        if words.created_by == caller.scope:
            message.metadata.update(words.metadata)
    return message


def _bucket_to_proto(bucket: Bucket, currency: str) -> analytics_pb2.StatisticsBucket:
    def money_to_proto(amount: Decimal) -> MoneyMessage:
        return converters.money_to_proto(Money(amount, currency))

    def turnover_to_proto(value: Turnover) -> analytics_pb2.Turnover:
        return analytics_pb2.Turnover(count=value.count, amount=money_to_proto(value.amount))

    incoming, outgoing = bucket.turnover(Direction.IN), bucket.turnover(Direction.OUT)
    return analytics_pb2.StatisticsBucket(
        start=converters.time_to_proto(bucket.start),
        end=converters.time_to_proto(bucket.end),
        count=incoming.count + outgoing.count,
        incoming=turnover_to_proto(incoming),
        outgoing=turnover_to_proto(outgoing),
        net=money_to_proto(incoming.amount - outgoing.amount),
        opening_balance=money_to_proto(bucket.opening),
        closing_balance=money_to_proto(bucket.closing),
        by_type=[
            analytics_pb2.TypeTurnover(
                type=_TYPES[kind],
                incoming=turnover_to_proto(bucket.turnover(Direction.IN, [kind])),
                outgoing=turnover_to_proto(bucket.turnover(Direction.OUT, [kind])),
            )
            for kind in bucket.types
        ],
    )
