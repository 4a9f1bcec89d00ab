"""Transfers of concurrent callers, sent to the bank together (ADR 44).

While calls with transfers are on their way to the bank, further transfers collect, and the next call takes them. No
timer delays a transfer that finds no call on its way: it waits only as long as each turn of the event loop brings
further transfers. If it stays alone, it is sent by `TransferMoney`.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import Context
from types import TracebackType
from typing import Final

import grpc
import structlog
from prometheus_client import Histogram

from kit.rpc.channel import CallAttempt
from kit.rpc.status import error_from_status
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from wallet.errors import DeadlineExceeded, ResourceExhausted, Unavailable

log = structlog.get_logger(__name__)

TRANSFERS_PER_CALL: Final = Histogram(
    "wallet_transfers_per_call",
    "Transfers that the gateway sent to the bank with one call.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250),
)

_MAX_ITEMS: Final = 250
"""Maximum number of transfers in a call. With tokens of the maximum length, the message has 2.4 of its 4 MiB."""
_MAX_ITEMS_PER_CALLER: Final = _MAX_ITEMS // 2
"""Maximum number of transfers of one caller in a call, so that one caller does not fill it."""
_CALLS_PER_PROCESS: Final = 2
"""Calls on their way to each process of the bank, which reads the second one while it commits the first."""
_COLLECT_SECONDS: Final = 0.02
"""Time for which a call keeps a second call waiting until that is as large as the first."""
_MAX_TURNS: Final = 8
"""Maximum number of turns of the event loop in which transfers collect before they are sent."""
_LATE_SECONDS: Final = 0.1
"""Time after which a call no longer keeps other transfers waiting, because its process of the bank may be frozen."""
_PROCESS_KNOWN_SECONDS: Final = 30.0
"""Time for which a process of the bank is counted after its last response."""
_PAUSE_SECONDS: Final = 10.0
"""Time for which all transfers are sent singly after a process of the bank has refused to take several."""
_REFUSED: Final = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
"""Statuses of a process of the bank that does not take transfers from this gateway, and has executed none: its release
is older, or it does not have this gateway's key.
"""

_Response = bank_pb2.TransferMoneyResponse


class _Item:
    """One transfer that waits until it is sent, or for its result.

    Attributes:
        request: request of the transfer.
        attempt: call of the transfer's caller.
        expires_at: end of the caller's time-out on the monotonic clock.
        result: response of the bank, or an error; None if the caller must send the transfer alone; cancelled if the
            caller no longer waits.
        batch: the transfers that were sent with this one; None until then.
    """

    __slots__ = ("attempt", "batch", "expires_at", "request", "result")

    def __init__(self, request: bank_pb2.TransferMoneyRequest, attempt: CallAttempt) -> None:
        self.request = request
        self.attempt = attempt
        self.expires_at = time.monotonic() + attempt.timeout_seconds
        self.result: asyncio.Future[_Response | Exception | None] = asyncio.get_running_loop().create_future()
        self.batch: _Batch | None = None

    @property
    def remaining_seconds(self) -> float:
        """Time for which the caller still waits; at least a millisecond, because gRPC sometimes sends a call whose
        time-out is 0.
        """
        return max(0.001, self.expires_at - time.monotonic())

    def finish(self, result: _Response | Exception | None) -> None:
        if not self.result.done():
            self.result.set_result(result)


class _Batch:
    """Transfers that are sent together.

    Attributes:
        items: the transfers.
        task: sends them.
    """

    def __init__(self, items: Sequence[_Item]) -> None:
        self.items = items
        self.task: asyncio.Task[None] | None = None
        for item in items:
            item.batch = self

    def leave(self) -> None:
        """Cancel the call if no caller waits for it any more."""
        if self.task is not None and all(item.result.done() for item in self.items):
            self.task.cancel()


class _SentCall:
    """Place of one call among the calls on their way: until the call ends, or until it is late."""

    def __init__(self, forwarder: "TransferForwarder", size: int) -> None:
        self._forwarder: TransferForwarder | None = forwarder
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_COLLECT_SECONDS, self._stop_collecting)
        forwarder.calls += 1
        forwarder.expected += size

    def _stop_collecting(self) -> None:
        assert self._forwarder is not None  # noqa: S101  for the type checker: `leave` cancels the timer
        self._timer = self._loop.call_later(_LATE_SECONDS - _COLLECT_SECONDS, self.leave)
        self._forwarder.expected -= self._size
        self._size = 0
        self._forwarder.send_waiting()

    def leave(self) -> None:
        if self._forwarder is not None:
            forwarder, self._forwarder = self._forwarder, None
            self._timer.cancel()
            forwarder.calls -= 1
            forwarder.expected -= self._size
            forwarder.send_waiting()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.leave()


class TransferForwarder:
    """Sends transfers to the bank, those of concurrent callers together.

    Attributes:
        calls: number of calls on their way that are not late.
        expected: number of transfers in these calls, without calls older than `_COLLECT_SECONDS`.
    """

    def __init__(
        self, stub: "bank_pb2_grpc.BankServiceAsyncStub", gateway_token: Callable[[], str], dependency: str
    ) -> None:
        """Args:
        stub: stub of the bank.
        gateway_token: returns a token of the gateway, which a call with several transfers carries. Each transfer in it
            has its own caller's token.
        dependency: name of the bank in error messages.
        """
        self.calls = 0
        self.expected = 0
        self._turns = 0
        """Turns of the event loop for which transfers have been collecting; 0 if none are collecting."""
        self._stub = stub
        self._gateway_token = gateway_token
        self._dependency = dependency
        self._waiting: deque[_Item] = deque()
        self._processes: dict[str, float] = {}
        """Time of the last response of each process of the bank."""
        self._pause_ends_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, request: bank_pb2.TransferMoneyRequest, attempt: CallAttempt) -> _Response:
        """Send a transfer, alone or with others. If the caller stops waiting before it is sent, it is dropped.

        Raises:
            WalletError: the bank refused the transfer, or its outcome is unknown; see `BankClient`.
            grpc.aio.AioRpcError: the transfer was sent alone, and its call failed.
        """
        if attempt.context.token is None or time.monotonic() < self._pause_ends_at:
            return await self._send_alone(request, attempt, attempt.timeout_seconds)
        item = _Item(request, attempt)
        self._waiting.append(item)
        if not self._turns:
            self._collect()
        try:
            async with asyncio.timeout(attempt.timeout_seconds):
                result = await item.result
        except TimeoutError:
            raise DeadlineExceeded(self._dependency) from None
        finally:
            if item.result.cancelled() and item.batch is not None:
                item.batch.leave()
        if result is None:
            return await self._send_alone(request, attempt, item.remaining_seconds)
        if isinstance(result, Exception):
            raise result
        return result

    def _collect(self) -> None:
        """Let transfers collect until a turn of the event loop brings no further one, then send them."""
        self._turns += 1
        asyncio.get_running_loop().call_soon(self._end_turn, len(self._waiting))

    def _end_turn(self, waiting_before: int) -> None:
        if len(self._waiting) > waiting_before and self._turns < _MAX_TURNS:
            self._collect()
        else:
            self._turns = 0
            self.send_waiting()

    @property
    def _may_send(self) -> bool:
        """Whether the bank takes another call now.

        The second call to a process of the bank must be as large as the calls on their way on average. Otherwise the
        first callers that return after a call would have a call of their own each.
        """
        processes = max(1, len(self._processes))
        if self.calls < processes:
            return True
        return self.calls < _CALLS_PER_PROCESS * processes and self.calls * len(self._waiting) >= self.expected

    def send_waiting(self) -> None:
        """Send the waiting transfers, unless the bank has enough calls."""
        while self._waiting and self._may_send:
            if items := self._take():
                batch, sent = _Batch(items), _SentCall(self, len(items))
                # The context is empty: the task works for several callers, and logs the request of none of them.
                batch.task = asyncio.create_task(self._send_batch(items, sent), context=Context())
                self._tasks.add(batch.task)
                batch.task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[_Item]:
        """Take the transfers of the next call, the oldest first. Transfers whose caller no longer waits are dropped."""
        items: list[_Item] = []
        kept: list[_Item] = []
        by_caller: Counter[str | None] = Counter()
        while self._waiting and len(items) < _MAX_ITEMS:
            item = self._waiting.popleft()
            if item.result.done():
                continue
            caller = item.attempt.caller
            if by_caller[caller] < _MAX_ITEMS_PER_CALLER:
                by_caller[caller] += 1
                items.append(item)
            else:
                kept.append(item)
        self._waiting.extendleft(reversed(kept))
        return items

    async def _send_batch(self, items: Sequence[_Item], sent: _SentCall) -> None:
        with sent:
            try:
                TRANSFERS_PER_CALL.observe(len(items))
                if len(items) > 1:
                    await self._send_together(items)
                else:
                    await self._send_item(items[0])
            except Exception as error:
                log.error("unexpected error", exc_info=error)
            finally:  # also when the channel is closed
                for item in items:
                    item.finish(Unavailable(self._dependency))

    async def _send_item(self, item: _Item) -> None:
        """Send a transfer that has waited alone."""
        try:
            item.finish(await self._send_alone(item.request, item.attempt, item.remaining_seconds))
        except grpc.aio.AioRpcError as error:
            item.finish(error)

    async def _send_alone(
        self, request: bank_pb2.TransferMoneyRequest, attempt: CallAttempt, timeout_seconds: float
    ) -> _Response:
        return await self._stub.TransferMoney(request, timeout=timeout_seconds, metadata=attempt.metadata)

    async def _send_together(self, items: Sequence[_Item]) -> None:
        now = time.monotonic()
        call = self._stub.ForwardTransfers(
            bank_pb2.ForwardTransfersRequest(items=[_item_to_proto(item, now) for item in items]),
            timeout=max(item.expires_at for item in items) - now,
            metadata=(("authorization", f"Bearer {self._gateway_token()}"),),
        )
        missing = set(range(len(items)))
        code = grpc.StatusCode.OK
        try:
            async for response in call:
                self._count_process(response.process_id)
                for result in response.results:
                    self._finish(items, missing, result)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        except _WrongResult as error:
            log.error("wrong result of a forwarded transfer", error=str(error))
            call.cancel()
        if len(missing) == len(items):
            if code in _REFUSED:
                self._pause(items, code)
            elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                for item in items:
                    item.finish(ResourceExhausted())
        is_late = code is grpc.StatusCode.DEADLINE_EXCEEDED
        for index in missing:
            items[index].finish((DeadlineExceeded if is_late else Unavailable)(self._dependency))

    def _pause(self, items: Sequence[_Item], code: grpc.StatusCode) -> None:
        """Send these transfers, those that wait, and further ones singly for a while."""
        now = time.monotonic()
        if now >= self._pause_ends_at:  # several calls may be refused at once
            log.warning("the bank takes transfers only singly for now", code=code.name)
        self._pause_ends_at = now + _PAUSE_SECONDS
        for item in (*items, *self._waiting):
            item.finish(None)

    def _finish(
        self, items: Sequence[_Item], missing: set[int], result: bank_pb2.ForwardTransfersResponse.Result
    ) -> None:
        """Give a result to its transfer.

        Raises:
            _WrongResult: the result belongs to none of the transfers without a result.
        """
        if result.index not in missing:
            raise _WrongResult("there is no such transfer, or it has a result")
        item = items[result.index]
        if result.HasField("value"):
            sent, made = item.request, result.value.transfer
            if (made.sender_id, made.recipient_id, made.amount) != (sent.sender_id, sent.recipient_id, sent.amount):
                raise _WrongResult("it has other accounts or another amount")
            item.finish(result.value)
        elif result.HasField("error"):
            item.finish(error_from_status(result.error))
        else:
            raise _WrongResult("it is empty")
        missing.discard(result.index)

    def _count_process(self, process_id: str) -> None:
        now = time.monotonic()
        self._processes[process_id] = now
        if min(self._processes.values()) < now - _PROCESS_KNOWN_SECONDS:
            self._processes = {each: at for each, at in self._processes.items() if at >= now - _PROCESS_KNOWN_SECONDS}


class _WrongResult(Exception):
    """The bank's response does not fit the transfers that were sent."""


def _item_to_proto(item: _Item, now: float) -> bank_pb2.ForwardTransfersRequest.Item:
    attempt = item.attempt
    trace = attempt.span.trace
    return bank_pb2.ForwardTransfersRequest.Item(
        transfer=item.request,
        token=attempt.context.token or "",
        timeout_ms=max(1, int(1000 * (item.expires_at - now))),
        request_id=attempt.context.request_id,
        traceparent=trace.traceparent,
        tracestate=trace.tracestate,
    )
