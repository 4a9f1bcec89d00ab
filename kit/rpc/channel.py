"""Calling another service: a channel that reconnects fast, and calls that carry who asks and how long there is."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import grpc
import structlog
from opentelemetry.trace import SpanKind

from kit.rpc.circuit_breaker import STATES, CircuitBreaker, CircuitOpenError
from kit.rpc.request_context import RequestContext, current_request
from kit.rpc.rotation import rotating_channel
from kit.rpc.status import error_from_rpc
from kit.rpc.tls import TLS, CertificateBundle, require_loopback
from kit.runtime.backoff import Backoff
from kit.runtime.settings import CallSettings
from kit.telemetry import metrics, tracing
from wallet.errors import DeadlineExceeded, RateLimited, Unavailable, WalletError

log = structlog.get_logger(__name__)

_RECONNECT_MS: Final = 1_000
_RETRY_TOKENS: Final = 100
_RESUME_SECONDS: Final = 30.0
_RESUME_FIRST_PAUSE: Final = 0.1
_RESUME_LONGEST_PAUSE: Final = 1.0

Request = TypeVar("Request")
Response = TypeVar("Response")
Value = TypeVar("Value")


@asynccontextmanager
async def open_channel(
    target: str, service: str, reads: Iterable[str], tls: TLS | None = None, *, name: str = ""
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to every address behind the target, in turn, but for those whose health service says that they do not
    serve.

    Args:
        target: a gRPC target, such as `127.0.0.1:50051` or `dns:///bank:50051`.
        service: the full name of the service.
        reads: its methods that only read. They are retried by gRPC itself when the service is unavailable, within the
            call's deadline. Nothing else is: a mutation is retried by whoever holds its idempotency key.
        tls: what to show the service, and whom to believe. Without it, the target is on loopback.
        name: that the service's certificate must have, wherever it is.

    Raises:
        PlaintextError: there is no TLS, and the target is elsewhere.
    """
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": service},
        # The budget of retries: each failure costs a token, each success earns a tenth, and with less than half of them
        # nothing is retried. So where all fails, four times as many calls come of it for a moment only.
        "retryThrottling": {"maxTokens": _RETRY_TOKENS, "tokenRatio": 0.1},
        "methodConfig": [
            {
                "name": [{"service": service, "method": method} for method in reads],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
        ],
    }
    options = (
        ("grpc.service_config", json.dumps(config)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        # A replica that is frozen is left after ten seconds: until then its part of the calls waits in vain. It is the
        # ping's own time-out that ends the wait, whose default is a minute, and not the keepalive's alone.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        # Or a stream whose reader has stopped would pile up here what the connection can carry in a round trip,
        # 4 MiB and more, before the sender feels it. A message that is larger than a window still has its own.
        ("grpc.http2.bdp_probe", 0),
    )
    if tls is None:
        require_loopback(target)
        async with grpc.aio.insecure_channel(target, options) as channel:
            yield channel
        return

    def connect(material: CertificateBundle) -> grpc.aio.Channel:
        # The authority is the name that is checked: by default, the address, which says less and may be several.
        secure = (*options, ("grpc.default_authority", name))
        return grpc.aio.secure_channel(target, material.channel_credentials(), secure)

    async with rotating_channel(tls, connect) as channel:
        yield channel


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a service may take of this process before it is spared.

    Attributes:
        timeout_seconds: the longest that one call may take.
        calls: at once; what is more is refused.
        calls_of_one: at once of one caller, so that nobody takes all of them.
        failures: time-outs in a row of one method, which open its circuit: then it is not called,
        open_seconds: for so long.
    """

    timeout_seconds: float = 5.0
    max_calls: int = 1_000
    max_per_caller: int = 250
    circuit_failures: int = 5
    circuit_open_seconds: float = 2.0

    @classmethod
    def from_settings(cls, settings: CallSettings) -> Self:
        """As the settings have it."""
        return cls(
            settings.call_timeout_seconds,
            settings.call_limit,
            settings.call_max_per_caller,
            settings.call_circuit_failures,
            settings.call_circuit_seconds,
        )


class RpcClient:
    """Calls of one service, each in the name of the current caller. However slow the service is, no call outlasts its
    time, no more than so many wait for it, and a method that has not answered for a while is not called.

    A service that is gone needs no circuit: gRPC fails its calls at once, and looks for it again, later and later, with
    jitter. The circuit is for what is there and silent.
    """

    def __init__(self, what: str, limits: ClientLimits) -> None:
        """Args:
        what: names the service to people when it does not answer.
        limits: of what it may take.
        """
        self._what = what
        self._limits = limits
        self._under_way = 0
        self._of_one: Counter[str] = Counter()
        self._circuits: dict[object, CircuitBreaker] = {}

    async def unary(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """One call.

        Args:
            method: of a stub.
            request: its message.

        Raises:
            WalletError: what the service refused the call with; Unavailable or DeadlineExceeded when its outcome is not
                known, or when it was not made: too many are under way, or the last ones were not answered; RateLimited
                when too many of the caller's own are.
        """
        call = current_request.get()
        remaining = call.remaining(self._limits.timeout_seconds)
        if not remaining:
            raise DeadlineExceeded(self._what)  # gRPC would now and then still make the call
        if self._under_way >= self._limits.max_calls:
            raise self._refusal(method, "limit")
        who = "" if call.principal is None else call.principal.scope
        if who and self._of_one[who] >= self._limits.max_per_caller:
            metrics.CALLS_REFUSED.labels(_name(method), "caller").inc()
            raise RateLimited("calls at once", "1")
        circuit = self._circuits.get(method) or self._new_circuit(method)
        self._under_way += 1
        self._of_one[who] += 1
        try:
            with circuit.guard() as guarded, _span(method, call) as span:
                try:
                    return await method(request, timeout=remaining, metadata=_metadata(call, span))
                except grpc.aio.AioRpcError as error:
                    guarded.ignore_failure = remaining < self._limits.timeout_seconds / 2
                    raise _error_from_rpc(error, span, self._what) from None
        except CircuitOpenError:
            raise self._refusal(method, "circuit") from None
        finally:
            self._under_way -= 1
            self._of_one[who] -= 1
            if not self._of_one[who]:
                del self._of_one[who]

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncGenerator[Response, None]:
        """The responses of one streaming call; closing the iterator cancels the call. It lasts for as long as it is
        read, and counts for nothing.

        Raises:
            WalletError: as `unary`.
        """
        call = current_request.get()
        with _span(method, call) as span:
            responses = method(request, metadata=_metadata(call, span))
            try:
                async for response in responses:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise _error_from_rpc(error, span, self._what) from None
            finally:
                responses.cancel()

    def _refusal(self, method: object, reason: str) -> Unavailable:
        metrics.CALLS_REFUSED.labels(_name(method), reason).inc()
        return Unavailable(self._what)

    def _new_circuit(self, method: object) -> CircuitBreaker:
        name = _name(method)

        def report(state: str) -> None:
            log.warning("the circuit to a service has changed", method=name, state=state)
            metrics.CALL_CIRCUIT.labels(name).state(state)

        metrics.CALL_CIRCUIT.labels(name).state(STATES[0])
        limits = self._limits
        circuit = CircuitBreaker(
            failures=limits.circuit_failures,
            open_seconds=limits.circuit_open_seconds,
            on_change=report,
            failure_type=DeadlineExceeded,
        )
        self._circuits[method] = circuit
        return circuit


async def reconnecting_stream(open_stream: Callable[[], AsyncGenerator[Value, None]]) -> AsyncGenerator[Value, None]:
    """The values of a stream that is opened again when whoever serves it goes away: for half a minute without a value,
    before the reader is told. What a stream that is opened later begins with is the caller's to say.

    Raises:
        WalletError: as `RpcClient.stream`.
    """
    clock = asyncio.get_running_loop().time
    backoff = Backoff(_RESUME_FIRST_PAUSE, _RESUME_LONGEST_PAUSE)
    give_up: float | None = None
    while True:
        try:
            async with aclosing(open_stream()) as values:
                async for value in values:
                    give_up = None
                    yield value
        except Unavailable:
            if give_up is None:
                backoff.reset()
                give_up = clock() + _RESUME_SECONDS
            elif clock() >= give_up:
                raise
        else:
            return
        await asyncio.sleep(backoff.next_delay())


def _name(method: object) -> str:
    """As `wallet.bank.v1.BankService/GetBalance`: gRPC knows, and has no public name for it."""
    name: bytes = getattr(method, "_method", b"/")
    return name[1:].decode()


def _span(method: object, call: RequestContext) -> tracing.Span:
    name = _name(method) if call.trace.is_sampled else ""
    return tracing.start_span(name, call.trace, SpanKind.CLIENT, {"rpc.system": "grpc", "rpc.method": name})


def _error_from_rpc(error: grpc.aio.AioRpcError, span: tracing.Span, what: str) -> WalletError:
    span.set_attributes({"rpc.response.status_code": error.code().name})
    return error_from_rpc(error, what)


def _metadata(call: RequestContext, span: tracing.Span) -> tuple[tuple[str, str], ...]:
    metadata = (("x-request-id", call.request_id), *span.trace.headers)
    return metadata if call.token is None else (*metadata, ("authorization", f"Bearer {call.token}"))
