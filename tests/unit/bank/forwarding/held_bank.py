"""Fake bank over real gRPC that answers each call as the test says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import grpc

from kit.rpc.status import error_to_status
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from wallet.errors import WalletError

Result = bank_pb2.ForwardTransfersResponse.Result

_TEST_TIMEOUT_SECONDS: Final = 10.0


def receipt(request: bank_pb2.TransferMoneyRequest, **changes: str) -> bank_pb2.TransferMoneyResponse:
    """Return the response to a transfer. The sender's version is the idempotency key.

    Args:
        request: request of the transfer.
        changes: `sender_id` or `recipient_id` in place of that of the request.
    """
    transfer = bank_pb2.Transfer(
        id=str(uuid4()),
        kind=bank_pb2.TRANSFER_KIND_TRANSFER,
        sender_id=changes.get("sender_id", request.sender_id),
        recipient_id=changes.get("recipient_id", request.recipient_id),
        amount=request.amount,
    )
    return bank_pb2.TransferMoneyResponse(
        transfer=transfer, sender_balance=request.amount, sender_version=int(request.idempotency_key)
    )


class HeldCall:
    """Received call, which waits for the test.

    Attributes:
        requests: the transfers, one or several.
        items: the items of ForwardTransfers; empty for TransferMoney.
        metadata: metadata of the call.
        remaining: time-out of the call in seconds.
        cancelled: set when the caller has cancelled the call.
    """

    def __init__(self, request: Any, context: Any) -> None:
        self.items: Sequence[bank_pb2.ForwardTransfersRequest.Item] = getattr(request, "items", ())
        self.requests = [each.transfer for each in self.items] or [request]
        self.metadata = dict(context.invocation_metadata())
        self.remaining: float = context.time_remaining()
        self.cancelled = asyncio.Event()
        self._steps: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def keys(self) -> list[int]:
        """The transfers by their idempotency keys, which the tests count from 1."""
        return [int(each.idempotency_key) for each in self.requests]

    def respond(self, *indexes: int, process_id: str = "one") -> None:
        """Send the receipts of transfers; those of all without an argument. A stream stays open."""
        chosen = indexes or range(len(self.requests))
        if self.items:
            results = [Result(index=each, value=receipt(self.requests[each])) for each in chosen]
            self.send(*results, process_id=process_id)
        else:
            self._steps.put_nowait(receipt(self.requests[0]))

    def refuse(self, index: int, error: WalletError) -> None:
        """Send the error of one transfer. A stream stays open."""
        self.send(Result(index=index, error=error_to_status(error)))

    def send(self, *results: Result, process_id: str = "one") -> None:
        """Send results as they are."""
        self._steps.put_nowait(bank_pb2.ForwardTransfersResponse(results=results, process_id=process_id))

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """End the call with a status."""
        self._steps.put_nowait(code)

    def complete(self, process_id: str = "one") -> None:
        """Send the receipts of all transfers, and end the call."""
        self.respond(process_id=process_id)
        self.end()

    async def steps(self, context: Any) -> AsyncIterator[Any]:
        """Yield the responses until the test ends the call."""
        try:
            while not isinstance(step := await self._steps.get(), grpc.StatusCode):
                yield step
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if step is not grpc.StatusCode.OK:
            await context.abort(step, "as the test says")


class HeldBank(bank_pb2_grpc.BankServiceServicer):
    """Bank whose calls wait for the test.

    Attributes:
        received: calls in the order of their arrival.
    """

    def __init__(self) -> None:
        self.received: asyncio.Queue[HeldCall] = asyncio.Queue()

    async def next_call(self) -> HeldCall:
        """Wait for the next call."""
        async with asyncio.timeout(_TEST_TIMEOUT_SECONDS):
            return await self.received.get()

    async def TransferMoney(self, request: Any, context: Any) -> bank_pb2.TransferMoneyResponse:  # noqa: N802
        call = HeldCall(request, context)
        self.received.put_nowait(call)
        async for response in call.steps(context):
            return response  # type: ignore[no-any-return]
        raise AssertionError("the test ended a call without a response")

    async def ForwardTransfers(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[bank_pb2.ForwardTransfersResponse]:
        call = HeldCall(request, context)
        self.received.put_nowait(call)
        async for response in call.steps(context):
            yield response


@asynccontextmanager
async def serve_held_bank() -> AsyncIterator[tuple[HeldBank, "bank_pb2_grpc.BankServiceAsyncStub", grpc.aio.Channel]]:
    """Serve the bank; yield it with a stub and the stub's channel."""
    bank, server = HeldBank(), grpc.aio.server()  # type: ignore[abstract]  # the tests do not call the other methods
    bank_pb2_grpc.add_BankServiceServicer_to_server(bank, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield bank, bank_pb2_grpc.BankServiceStub(channel), channel
    await server.stop(None)
