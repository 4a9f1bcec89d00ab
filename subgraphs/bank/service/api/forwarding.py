"""Transfers that the gateway forwards for several callers: each item is verified and executed as a call of its own."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import structlog
from google.rpc import code_pb2, status_pb2
from opentelemetry.trace import SpanKind

from kit.auth.access import AccessRule
from kit.auth.principal import Principal, TokenVerifier
from kit.rpc.request_context import RequestContext, choose_request_id, current_request
from kit.rpc.server import record_call
from kit.rpc.status import error_to_status, fit_to_call
from kit.telemetry import tracing
from kit.telemetry.tracing import TraceContext
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.service.api.converters import command_from_proto, receipt_to_proto
from subgraphs.bank.service.application.service import Bank
from subgraphs.bank.service.domain.model import Command, Outcome, Transfer
from wallet.errors import DeadlineExceeded, InternalError, Unauthenticated, WalletError

log = structlog.get_logger(__name__)

_DEPENDENCY: Final = "the ledger"  # in error messages
_NO_ERROR: Final = status_pb2.Status()
_CANCELLED: Final = status_pb2.Status(code=code_pb2.CANCELLED)


class Forwarding:
    """Executes forwarded transfers. The items of a call do not wait for each other."""

    def __init__(self, bank: Bank, verifier: TokenVerifier, rule: AccessRule, method: str) -> None:
        """Args:
        bank: executes the transfers.
        verifier: verifies the token of each item.
        rule: access rule that the caller of each item must satisfy.
        method: path of the method that an item stands for, in metrics, logs and traces.
        """
        self._bank = bank
        self._verifier = verifier
        self._rule = rule
        self._method = method

    async def execute(
        self, items: Sequence[bank_pb2.ForwardTransfersRequest.Item]
    ) -> AsyncGenerator[list[bank_pb2.ForwardTransfersResponse.Result], None]:
        """Execute the items, and yield their results as soon as they are known.

        If the generator is closed, items that no batch of the ledger has taken are dropped.
        """
        calls = _Calls(len(items))
        envelope = current_request.get()
        try:
            for index, item in enumerate(items):
                self._begin(_Call(calls, index, item, self._method))
            current_request.set(envelope)
            while calls.unanswered or calls.results:
                yield await calls.next_results()
        finally:
            calls.cancel()

    def _begin(self, call: "_Call") -> None:
        """Start one item. Only an item whose token needs keys that must be read first gets a task."""
        current_request.set(call.context)
        try:
            caller = self._verify_now(call.token)
            if caller is None:
                call.wait_for(asyncio.get_running_loop().create_task(self._verify_and_execute(call)))
            else:
                call.wait_for(self._start(call, caller))
        except Exception as error:  # noqa: BLE001  the error of this item only
            call.fail(error)

    def _verify_now(self, token: str) -> Principal | None:
        if not token:
            raise Unauthenticated
        return self._verifier.verify_now(token)

    async def _verify_and_execute(self, call: "_Call") -> list[Outcome]:
        async with asyncio.timeout(call.deadline - time.monotonic()):
            caller = await self._verifier.verify(call.token)
        return await self._start(call, caller)

    def _start(self, call: "_Call", caller: Principal) -> "asyncio.Future[list[Outcome]]":
        call.context = call.context.with_principal(caller, call.token)
        current_request.set(call.context)
        self._rule.check(caller)
        call.command = command_from_proto(caller, call.request)
        return self._bank.start_transfer(call.command, call.deadline)


class _Calls:
    """The items of one call of ForwardTransfers.

    Attributes:
        unanswered: number of items without a result.
        results: results that have not been yielded yet.
        running: what each started item waits for.
    """

    def __init__(self, size: int) -> None:
        self.unanswered = size
        self.results: list[bank_pb2.ForwardTransfersResponse.Result] = []
        self.running: set[asyncio.Future[list[Outcome]]] = set()
        self._changed = asyncio.Event()

    def add(self, result: bank_pb2.ForwardTransfersResponse.Result) -> None:
        self.unanswered -= 1
        self.results.append(result)
        self._changed.set()

    async def next_results(self) -> list[bank_pb2.ForwardTransfersResponse.Result]:
        """Wait until there are results, and take them."""
        await self._changed.wait()
        self._changed.clear()
        results, self.results = self.results, []
        return results

    def cancel(self) -> None:
        for future in self.running:
            future.cancel()


class _Call:
    """One item: the call of one caller.

    Attributes:
        token: the caller's token.
        request: the caller's request.
        context: request context of the item; it has the caller once the token is verified.
        deadline: end of the caller's time-out on the monotonic clock.
        command: command of the transfer, once the token is verified.
    """

    def __init__(self, calls: _Calls, index: int, item: bank_pb2.ForwardTransfersRequest.Item, method: str) -> None:
        self._calls = calls
        self._index = index
        self._method = method
        self._started = time.monotonic()
        parent = TraceContext.from_traceparent(item.traceparent, item.tracestate) or TraceContext.new()
        self._span = tracing.start_span(
            method[1:], parent, SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": method[1:]}
        )
        trace = self._span.trace
        self.token = item.token
        self.request = item.transfer
        self.deadline = self._started + item.timeout_ms / 1000
        self.context = RequestContext(choose_request_id(item.request_id, trace), deadline=self.deadline, trace=trace)
        self.command: Command | None = None

    def wait_for(self, outcome: "asyncio.Future[list[Outcome]]") -> None:
        """Add the result of the item when its outcome is known."""
        self._calls.running.add(outcome)
        outcome.add_done_callback(self._finish)

    def fail(self, error: BaseException) -> None:
        """Add the result of an item that has failed."""
        if isinstance(error, TimeoutError):
            error = DeadlineExceeded(_DEPENDENCY)
        elif not isinstance(error, WalletError):
            log.error("unexpected error", method=self._method, exc_info=error)
            error = InternalError()
        status = error_to_status(fit_to_call(error, self.request))
        self._record(status)
        self._calls.add(bank_pb2.ForwardTransfersResponse.Result(index=self._index, error=status))

    def _finish(self, outcome: "asyncio.Future[list[Outcome]]") -> None:
        current_request.set(self.context)
        self._calls.running.discard(outcome)
        if outcome.cancelled():  # the gateway no longer waits
            self._record(_CANCELLED)
            return
        result = outcome.exception() or outcome.result()[0]
        if not isinstance(result, Transfer):
            self.fail(result)
            return
        assert self.command is not None  # noqa: S101  for the type checker: an item with an outcome has a command
        self._record(_NO_ERROR)
        value = receipt_to_proto(result, is_replay=self.command.is_replay(result))
        self._calls.add(bank_pb2.ForwardTransfersResponse.Result(index=self._index, value=value))

    def _record(self, status: status_pb2.Status) -> None:
        record_call(self._method, status, time.monotonic() - self._started, self._span)
