"""Typed gRPC client of analytics."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.converters import time_to_proto
from kit.rpc.tls import TLS
from kit.runtime.pauses import convert_all
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from subgraphs.analytics.client.converters import (
    granularity_to_proto,
    operation_filter_to_proto,
    operation_from_proto,
    statistics_from_proto,
)
from subgraphs.analytics.client.types import Operation, OperationFilter, OperationPage, Statistics, StreamStart

SERVICE: Final = analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

_READS: Final = ("GetOperations", "GetStatistics")
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
        filter: OperationFilter | None = None,  # noqa: A002
    ) -> OperationPage:
        """Return a page of an account's operations, newest first.

        Args:
            account_id: id of the account.
            limit: maximum number of operations; 0 for the server's default.
            older_than: returns the newest operations below this version of the account (`Operation.account_version`).
            newer_than: returns the oldest operations above this version; 0: the oldest of all. Not together with
                `older_than`.
            epoch: id of the ledger's epoch (`Operation.epoch`) to which the version in `older_than` or `newer_than`
                belongs.
            filter: conditions that each operation satisfies.
        """
        request = analytics_pb2.GetOperationsRequest(
            account_id=str(account_id),
            page_size=limit,
            older_than=older_than,
            newer_than=newer_than,
            epoch=epoch,
            filter=operation_filter_to_proto(filter or OperationFilter()),
        )
        response = await self._calls.unary(self._stub.GetOperations, request)
        operations = tuple(await convert_all(operation_from_proto, response.operations))
        return OperationPage(operations, response.has_older, response.has_newer, response.is_complete)

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
            account_id=str(account_id), after_version=after_version, epoch=epoch
        )
        async with aclosing(self._calls.stream(self._stub.WatchOperations, request)) as responses:
            async for response in responses:
                yield operation_from_proto(response.operation)

    async def watch_new_operations(self, account_id: UUID) -> AsyncGenerator[Operation | StreamStart, None]:
        """Yield the version at which the stream starts (`StreamStart`), then the account's new operations in order."""
        request = analytics_pb2.WatchOperationsRequest(account_id=str(account_id), include_start_version=True)
        async with aclosing(self._calls.stream(self._stub.WatchOperations, request)) as responses:
            async for response in responses:
                if response.HasField("start_version"):
                    yield StreamStart(response.start_version, response.start_epoch)
                else:
                    yield operation_from_proto(response.operation)
