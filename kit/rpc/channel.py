"""gRPC client of another service: channels, call limits, circuit breakers, and the request context in metadata."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import grpc
import structlog
from opentelemetry.trace import SpanKind

from kit.http.addresses import address_key
from kit.rpc.circuit_breaker import STATES, CircuitBreaker, CircuitOpenError, State
from kit.rpc.grpc_internals import method_name
from kit.rpc.request_context import RequestContext, current_request
from kit.rpc.rotation import rotating_channel
from kit.rpc.status import error_from_rpc, fit_to_call
from kit.rpc.tls import TLS, CertificateBundle, require_loopback
from kit.runtime.backoff import Backoff
from kit.runtime.settings import CallSettings
from kit.telemetry import metrics, tracing
from wallet.errors import TEMPORARY_ERRORS, DeadlineExceeded, RateLimited, Unavailable, WalletError

log = structlog.get_logger(__name__)

_MAX_RECONNECT_MS: Final = 1_000
_RETRY_TOKENS: Final = 100
_RECONNECT_TIMEOUT_SECONDS: Final = 30.0
_RECONNECT_FIRST_DELAY_SECONDS: Final = 0.1
_RECONNECT_LONGEST_DELAY_SECONDS: Final = 1.0

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")
Value = TypeVar("Value")


@asynccontextmanager
async def open_channel(
    target: str, service: str, reads: Iterable[str], tls: TLS | None = None, *, name: str = ""
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel that balances calls over all healthy addresses of the target (round robin).

    Args:
        target: gRPC target, such as `127.0.0.1:50051` or `dns:///bank:50051`.
        service: full name of the service, for its health and its retry policy.
        reads: names of the methods that only read. gRPC retries them within the deadline when the service is
            unavailable. Mutations are not retried here: the caller that chose the idempotency key retries them.
        tls: certificates; None: plaintext, on loopback only.
        name: name that the certificate of the service must have; the certificate need not have the address.

    Raises:
        PlaintextError: `tls` is None and the target is not on loopback.
    """
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": service},
        # gRPC's retry budget: a failed call takes one token away, and a successful call gives a tenth of a token back.
        # While at most half of the tokens are left, gRPC retries no call. So if all calls fail, retries multiply the
        # load only briefly.
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
        ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
        # A frozen replica is dropped after ten seconds; until then its share of the calls times out. The ping's own
        # time-out, one minute by default, must be set too: the keepalive time-out alone has no effect.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        # With BDP probing, by which gRPC adapts the window of flow control, a stream whose reader has stopped would
        # buffer the data of a round trip, 4 MiB and more, before flow control stops the sender. A message larger than
        # the window still fits.
        ("grpc.http2.bdp_probe", 0),
    )
    if tls is None:
        require_loopback(target)
        async with grpc.aio.insecure_channel(target, options) as channel:
            yield channel
        return

    def connect(bundle: CertificateBundle) -> grpc.aio.Channel:
        # gRPC compares the certificate with this name instead of the address, as a target may have several addresses.
        secure = (*options, ("grpc.default_authority", name))
        return grpc.aio.secure_channel(target, bundle.channel_credentials(), secure)

    async with rotating_channel(tls, connect) as channel:
        yield channel


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits of the calls to one service.

    Attributes:
        timeout_seconds: time-out of one call.
        max_calls: maximum concurrent calls; more are refused.
        max_per_caller: maximum concurrent calls for one caller; more are refused.
        circuit_failures: the circuit of a method opens for all callers after calls of this number of callers have timed
            out, and for one caller after this number of its calls has timed out.
        circuit_open_seconds: time until an open circuit lets one trial call, the probe, pass.
    """

    timeout_seconds: float = 5.0
    max_calls: int = 1_000
    max_per_caller: int = 250
    circuit_failures: int = 5
    circuit_open_seconds: float = 2.0

    @classmethod
    def from_settings(cls, settings: CallSettings) -> Self:
        """Return the limits of the settings `CALL_…`."""
        return cls(
            settings.call_timeout_seconds,
            settings.call_limit,
            settings.call_max_per_caller,
            settings.call_circuit_failures,
            settings.call_circuit_seconds,
        )


@dataclass(frozen=True, slots=True)
class CallAttempt:
    """Call of a caller that the limits and the circuit breaker have let pass.

    Attributes:
        context: request that causes the call.
        caller: scope of the caller; empty for an anonymous caller.
        span: span of the call.
        timeout_seconds: time for which the caller waits.
    """

    context: RequestContext
    caller: str
    span: tracing.Span
    timeout_seconds: float

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of the call: request id, trace and token."""
        return _metadata(self.context, self.span)


class RpcClient:
    """Client of one service that makes calls for the current caller, within `ClientLimits`.

    The circuit breaker of a method is for a service that hangs. A service that is down needs none: gRPC fails its calls
    at once and reconnects with backoff.
    """

    def __init__(self, service: str, limits: ClientLimits) -> None:
        """Args:
        service: name of the service in error messages, such as "the bank".
        limits: limits of the calls.
        """
        self._service = service
        self._limits = limits
        self._calls = 0
        self._calls_by_caller: dict[str, int] = {}
        self._circuits: dict[object, CircuitBreaker] = {}

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        """Call a unary method.

        Args:
            method: method of a stub.
            request: request message.
            metadata: further metadata of the call.

        Raises:
            Unavailable: the outcome is unknown, or a limit or an open circuit prevented the call.
            DeadlineExceeded: the outcome is unknown, or the deadline had passed before the call.
            RateLimited: the caller has too many concurrent calls.
            WalletError: any other error that the service returned.
        """

        async def send(request: Request, attempt: CallAttempt) -> Response:
            return await method(request, timeout=attempt.timeout_seconds, metadata=attempt.metadata + metadata)

        return await self.call(method, request, send)

    async def unary_if_known(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response | None:
        """Call a unary method that the service lacks while it runs an older release; None if the service lacks it.

        Args:
            method: method of a stub.
            request: request message.

        Raises:
            WalletError: as `unary`.
        """

        async def send(request: Request, attempt: CallAttempt) -> Response | None:
            try:
                return await method(request, timeout=attempt.timeout_seconds, metadata=attempt.metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return None
                raise

        return await self.call(method, request, send)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        send: Callable[[Request, CallAttempt], Awaitable[Result]],
    ) -> Result:
        """Make a call of a unary method in another way than through its stub, within the same limits.

        Args:
            method: method whose limits and circuit apply.
            request: request message.
            send: sends the request and returns the response; raises a WalletError, or the error of gRPC.

        Raises:
            WalletError: as `unary`.
        """
        call = current_request.get()
        remaining = call.remaining(self._limits.timeout_seconds)
        if not remaining:
            raise fit_to_call(
                DeadlineExceeded(self._service), request
            )  # here, because gRPC sometimes sends a call whose time-out is 0
        if self._calls >= self._limits.max_calls:
            raise self._refusal(method, request, "limit")
        caller = "" if call.principal is None else call.principal.scope
        own_calls = self._calls_by_caller.get(caller, 0)
        if caller and own_calls >= self._limits.max_per_caller:
            metrics.CALLS_REFUSED.labels(method_name(method), "caller").inc()
            raise RateLimited("calls at once", "1")
        circuit = self._circuits.get(method) or self._new_circuit(method)
        self._calls += 1
        self._calls_by_caller[caller] = own_calls + 1
        try:
            with circuit.guard(caller or address_key((call.client_address,))) as guarded, _span(method, call) as span:
                guarded.ignore_failure = remaining < self._limits.timeout_seconds / 2
                try:
                    return await send(request, CallAttempt(call, caller, span, remaining))
                except grpc.aio.AioRpcError as error:
                    raise fit_to_call(_error_from_rpc(error, span, self._service), request) from None
                except WalletError as error:
                    span.set_attributes({"rpc.response.status_code": error.code.name})
                    raise fit_to_call(error, request) from None
        except CircuitOpenError:
            raise self._refusal(method, request, "circuit") from None
        finally:
            self._calls -= 1
            own_calls = self._calls_by_caller[caller] - 1
            if own_calls:
                self._calls_by_caller[caller] = own_calls
            else:
                del self._calls_by_caller[caller]

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncGenerator[Response, None]:
        """Yield the responses of a streaming method; closing the generator cancels the call.

        A stream has no time-out, and counts neither for the limits nor for the circuit.

        Raises:
            WalletError: the error that the service returned, or Unavailable.
        """
        call = current_request.get()
        with _span(method, call) as span:
            responses = method(request, metadata=_metadata(call, span))
            try:
                async for response in responses:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise fit_to_call(_error_from_rpc(error, span, self._service), request) from None
            finally:
                responses.cancel()

    def _refusal(self, method: object, request: object, reason: str) -> WalletError:
        metrics.CALLS_REFUSED.labels(method_name(method), reason).inc()
        return fit_to_call(Unavailable(self._service), request)

    def _new_circuit(self, method: object) -> CircuitBreaker:
        name = method_name(method)

        def report(state: State) -> None:
            log.warning("circuit state changed", method=name, state=state)
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
    """Yield the values of a stream, and open it again when it fails with one of `TEMPORARY_ERRORS`.

    Args:
        open_stream: opens the stream; when called again, it continues after the last value that the caller has handled.

    Raises:
        WalletError: one of the errors of `RpcClient.stream`. One of `TEMPORARY_ERRORS` is raised only after attempts
            have failed for half a minute, without a value in between.
    """
    clock = asyncio.get_running_loop().time
    backoff = Backoff(_RECONNECT_FIRST_DELAY_SECONDS, _RECONNECT_LONGEST_DELAY_SECONDS)
    give_up_at: float | None = None
    while True:
        try:
            async with aclosing(open_stream()) as values:
                async for value in values:
                    give_up_at = None
                    yield value
        except TEMPORARY_ERRORS:
            if give_up_at is None:
                backoff.reset()
                give_up_at = clock() + _RECONNECT_TIMEOUT_SECONDS
            elif clock() >= give_up_at:
                raise
        else:
            return
        await asyncio.sleep(backoff.next_delay())


def _span(method: object, call: RequestContext) -> tracing.Span:
    name = method_name(method) if call.trace.is_sampled else ""
    return tracing.start_span(name, call.trace, SpanKind.CLIENT, {"rpc.system.name": "grpc", "rpc.method": name})


def _error_from_rpc(error: grpc.aio.AioRpcError, span: tracing.Span, service: str) -> WalletError:
    span.set_attributes({"rpc.response.status_code": error.code().name})
    return error_from_rpc(error, service)


def _metadata(call: RequestContext, span: tracing.Span) -> tuple[tuple[str, str], ...]:
    metadata = (("x-request-id", call.request_id), *span.trace.headers)
    return metadata if call.token is None else (*metadata, ("authorization", f"Bearer {call.token}"))
