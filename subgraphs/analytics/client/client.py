"""Typed gRPC client of analytics."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from kit.rpc.batches import call_in_batches
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.converters import time_to_proto
from kit.rpc.status import error_from_status
from kit.rpc.tls import TLS
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from subgraphs.analytics.client.converters import (
    granularity_to_proto,
    operation_page_from_proto,
    operation_page_request_to_proto,
    statistics_from_proto,
)
from subgraphs.analytics.client.operation import Operation
from subgraphs.analytics.client.types import (
    NO_CONDITIONS,
    OperationFilter,
    OperationPage,
    OperationPageRequest,
    Statistics,
    StreamStart,
)
from wallet import paging
from wallet.errors import WalletError

SERVICE: Final = analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

_READS: Final = ("GetOperations", "BatchGetOperations", "GetStatistics")
_DEPENDENCY: Final = "the operation history"  # in error messages


class AnalyticsClient:
    """Calls analytics with the identity of the current caller (`kit.rpc.request_context.current_request`).

    Every method raises the `WalletError` that analytics returns, Unavailable when analytics cannot be reached, and
    DeadlineExceeded when analytics does not respond in time. All methods only read, so a retry is safe.
    """

    def __init__(
        self, stub: "analytics_pb2_grpc.AnalyticsServiceAsyncStub", limits: ClientLimits = ClientLimits()
    ) -> None:
        self._stub = stub
        self._calls = RpcClient(_DEPENDENCY, limits)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, limits: ClientLimits = ClientLimits(), tls: TLS | None = None
    ) -> AsyncIterator["AnalyticsClient"]:
        """Yield a client of analytics at a gRPC target. The client connects at the first call."""
        async with open_channel(target, SERVICE, _READS, tls, name="analytics") as opened:
            yield cls(analytics_pb2_grpc.AnalyticsServiceStub(opened), limits)

    async def list_operations(
        self,
        account_id: UUID,
        *,
        limit: int,
        older_than: int | None = None,
        newer_than: int | None = None,
        epoch: str = "",
        filter: OperationFilter = NO_CONDITIONS,  # noqa: A002
    ) -> OperationPage:
        """Return a page of an account's operations, newest first; the arguments are those of `OperationPageRequest`."""
        return await self._list_operations(
            OperationPageRequest(account_id, limit, older_than, newer_than, epoch, filter)
        )

    async def _list_operations(self, request: OperationPageRequest) -> OperationPage:
        return operation_page_from_proto(
            await self._calls.unary(self._stub.GetOperations, operation_page_request_to_proto(request))
        )

    async def batch_list_operations(
        self, requests: Sequence[OperationPageRequest]
    ) -> dict[OperationPageRequest, OperationPage | WalletError]:
        """Return a page, or the error that `list_operations` would raise, for each request, with as few calls as
        possible.

        A call for several pages returns at most 100 pages with 5,000 operations. An analytics service of an older
        release gets a call for each page.
        """
        batches = paging.split_batch(requests, lambda request: request.limit)
        return await call_in_batches(self._list_operations, self._batch_list_operations, batches)

    async def _batch_list_operations(
        self, requests: Sequence[OperationPageRequest]
    ) -> Sequence[OperationPage | WalletError] | None:
        message = analytics_pb2.BatchGetOperationsRequest(requests=map(operation_page_request_to_proto, requests))
        response = await self._calls.unary_if_known(self._stub.BatchGetOperations, message)
        if response is None:
            return None
        return [
            operation_page_from_proto(result.value) if result.HasField("value") else error_from_status(result.error)
            for result in response.results
        ]

    async def get_statistics(
        self,
        account_id: UUID,
        *,
        from_: datetime,
        to: datetime,
        granularity: Literal["HOUR", "DAY", "WEEK", "MONTH"],
    ) -> Statistics:
        """Return an account's turnover for each bucket of a range of time. Buckets follow the calendar in UTC.

        Args:
            account_id: id of the account.
            from_: start of the range, inclusive, with a time zone.
            to: end of the range, exclusive, with a time zone.
            granularity: length of a bucket.
        """
        request = analytics_pb2.GetStatisticsRequest(
            account_id=str(account_id),
            to=time_to_proto(to),
            granularity=granularity_to_proto(granularity),
            **{"from": time_to_proto(from_)},
        )
        return await statistics_from_proto(await self._calls.unary(self._stub.GetStatistics, request))

    async def watch_operations(
        self, account_id: UUID, after_version: int, epoch: str = ""
    ) -> AsyncGenerator[Operation, None]:
        """Yield an account's operations with versions above `after_version`, then new ones, in version order.

        Args:
            account_id: id of the account.
            after_version: version of the account (`Operation.account_version`); 0: all operations.
            epoch: id of the ledger's epoch (`Operation.epoch`) to which `after_version` belongs.
        """
        request = analytics_pb2.WatchOperationsRequest(
            account_id=str(account_id), after_version=after_version, epoch=epoch, accepts_batches=True
        )
        async with aclosing(self._calls.stream(self._stub.WatchOperations, request)) as responses:
            async for response in responses:
                for operation in _operations(response):
                    yield Operation(operation)

    async def watch_new_operations(self, account_id: UUID) -> AsyncGenerator[Operation | StreamStart, None]:
        """Yield the version at which the stream starts (`StreamStart`), then the account's new operations in order."""
        request = analytics_pb2.WatchOperationsRequest(
            account_id=str(account_id), include_start_version=True, accepts_batches=True
        )
        async with aclosing(self._calls.stream(self._stub.WatchOperations, request)) as responses:
            async for response in responses:
                if response.HasField("start_version"):
                    yield StreamStart(response.start_version, response.start_epoch)
                else:
                    for operation in _operations(response):
                        yield Operation(operation)


def _operations(response: analytics_pb2.WatchOperationsResponse) -> Sequence[analytics_pb2.Operation]:
    """Return the operations of a response. Older servers send one in each response."""
    return [response.operation] if response.HasField("operation") else response.operations
