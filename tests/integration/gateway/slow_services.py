"""Fake services with calls that wait until the test or the caller ends them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from tests.integration.gateway.fake_services import FakeBank, top_up


class SlowServices(
    bank_pb2_grpc.BankServiceServicer,
    card_pb2_grpc.CardServiceServicer,
    analytics_pb2_grpc.AnalyticsServiceServicer,
):
    """Bank, card service and analytics in one servicer.

    Attributes:
        started: method and time-out in seconds of each call.
        cancelled: method of each call that the caller cancelled.
        proceed: when set, pending and later calls return.
        top_up: the response of `WatchTopUp`.
    """

    def __init__(self) -> None:
        self.started: asyncio.Queue[tuple[str, float | None]] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.proceed = asyncio.Event()
        self.top_up = top_up()

    async def _wait(self, method: str, context: Any) -> None:
        self.started.put_nowait((method, context.time_remaining()))
        try:
            await self.proceed.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(method)
            raise

    async def BatchGetAccounts(self, request: Any, context: Any) -> bank_pb2.BatchGetAccountsResponse:  # noqa: N802
        await self._wait("BatchGetAccounts", context)
        return await FakeBank().BatchGetAccounts(request, context)  # type: ignore[abstract]  # only this is called

    async def ListAccounts(self, request: Any, context: Any) -> bank_pb2.ListAccountsResponse:  # noqa: N802
        await self._wait("ListAccounts", context)
        return bank_pb2.ListAccountsResponse()

    async def TransferMoney(self, request: Any, context: Any) -> bank_pb2.TransferMoneyResponse:  # noqa: N802
        await self._wait("TransferMoney", context)
        return await FakeBank().TransferMoney(request, context)  # type: ignore[abstract]

    async def BatchTransferMoney(  # noqa: N802
        self, request: Any, context: Any
    ) -> bank_pb2.BatchTransferMoneyResponse:
        await self._wait("BatchTransferMoney", context)
        return await FakeBank().BatchTransferMoney(request, context)  # type: ignore[abstract]

    async def ForwardTransfers(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[bank_pb2.ForwardTransfersResponse]:
        await self._wait("ForwardTransfers", context)
        async for response in FakeBank().ForwardTransfers(request, context):  # type: ignore[abstract]
            yield response

    async def GetOperations(self, request: Any, context: Any) -> analytics_pb2.GetOperationsResponse:  # noqa: N802
        await self._wait("GetOperations", context)
        return analytics_pb2.GetOperationsResponse()

    async def WatchTopUp(self, request: Any, context: Any) -> AsyncIterator[card_pb2.WatchTopUpResponse]:  # noqa: N802
        await self._wait("WatchTopUp", context)
        yield card_pb2.WatchTopUpResponse(top_up=self.top_up)
