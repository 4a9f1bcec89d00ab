"""A gRPC server with all that each of ours has: callers, errors as statuses, logs, metrics, health, reflection."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias, cast

import grpc
import structlog
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from kit.auth.access import AccessPolicy, AccessRule
from kit.auth.principal import TokenVerifier
from kit.http.admin import HealthCheck, run_checks
from kit.rpc.request_context import RequestContext, choose_request_id, current_request
from kit.rpc.status import code_name, error_to_status
from kit.rpc.tls import TLS, require_loopback
from kit.runtime.process import background_task
from kit.telemetry import metrics, tracing
from kit.telemetry.tracing import TraceContext
from wallet.errors import InternalError, Unauthenticated, WalletError

log = structlog.get_logger(__name__)

_GRACE_SECONDS: Final = 5.0
_LEAVING_SECONDS: Final = 0.25
_CONNECTION_MS: Final = 600_000
"""After which a client of TLS goes on with new calls on a new connection, with the certificates that there are then."""

_READINESS_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 1.0
_SERVER_ERRORS: Final = frozenset(
    {
        code_pb2.UNKNOWN,
        code_pb2.DEADLINE_EXCEEDED,
        code_pb2.UNIMPLEMENTED,
        code_pb2.INTERNAL,
        code_pb2.UNAVAILABLE,
        code_pb2.DATA_LOSS,
    }
)
"""What is the server's: with anything else it has done what it is there for."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second listener that takes half of the calls
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),  # less than our channels' keepalive
)


@dataclass(frozen=True, slots=True)
class Service:
    """A servicer, and who may call it.

    Attributes:
        register: adds the servicer to a server.
        policy: a rule for each of its methods.
    """

    register: Callable[[grpc.aio.Server], None]
    policy: AccessPolicy


@asynccontextmanager
async def grpc_server(
    listen: str,
    verifier: TokenVerifier,
    services: Mapping[str, Service],
    tls: TLS | None = None,
    checks: Mapping[str, HealthCheck] | None = None,
) -> AsyncIterator[grpc.aio.Server]:
    """A server that serves from entry, and on exit lets running calls finish for some seconds.

    By gRPC's health, each service serves until the end begins: a channel goes to another replica then, and not before,
    since what this one stands on the others stand on, too, and whoever calls is better told what is away. The server
    as a whole, whose name is empty, is ready or not, as the admin interface says it: that is for probes.

    Args:
        listen: `host:port`.
        verifier: of callers' tokens; a call that the policy does not let pass is refused before it reaches a servicer.
        services: what is served, by the full name of each service. Health and reflection are open to all.
        tls: what to show clients, who must show a certificate, too, and whom to believe. Without it, the port is on
            loopback.
        checks: of what the process stands on.

    Raises:
        RuntimeError: the port is in use, or a policy and its service do not have the same methods.
        PlaintextError: there is no TLS, and the port is elsewhere.
    """
    if tls is None:
        require_loopback(listen)
    server = grpc.aio.server(
        options=_OPTIONS if tls is None else (*_OPTIONS, ("grpc.max_connection_age_ms", _CONNECTION_MS))
    )
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for name, service in services.items():
        service.register(cast("grpc.aio.Server", _AuthorizingRegistrar(server, verifier, name, service.policy)))
    names = (*services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    if tls is None:
        server.add_insecure_port(listen)
    else:
        server.add_secure_port(listen, tls.server_credentials())
    for name in services:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    log.info("serving gRPC", listen=listen)
    try:
        async with background_task(_publish_readiness(health, checks or {}), "health"):
            yield server
    finally:
        await health.enter_graceful_shutdown()
        # What arrives while gRPC begins to stop is refused. By then, all who know of another replica ask that one.
        await asyncio.sleep(_LEAVING_SECONDS)
        await server.stop(_GRACE_SECONDS)


async def _publish_readiness(health: HealthServicer, checks: Mapping[str, HealthCheck]) -> None:
    while True:
        is_ready = all(state == "ok" for state in (await run_checks(checks)).values())
        status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        await health.set("", status)
        await asyncio.sleep(_READINESS_SECONDS)


_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class _AuthorizingRegistrar:
    """What a servicer is registered with, in place of the server: puts a guard around each of its methods.

    Once, when the method is first called: an interceptor would be asked on every call.
    """

    def __init__(self, server: grpc.aio.Server, verifier: TokenVerifier, name: str, policy: AccessPolicy) -> None:
        self._server = server
        self._verifier = verifier
        self._name = name
        self._policy = policy

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        rules = {f"/{self._name}/{method}": rule for method, rule in self._policy.items()}
        self._server.add_generic_rpc_handlers(
            [_AuthorizedHandler(each, self._verifier, rules) for each in generic_rpc_handlers]
        )

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, _Handler]) -> None:
        """The same methods as the generic handlers, for servers that look them up ahead of time: not wanted twice. Here
        they say what the policy has to have.
        """
        if unruled := method_handlers.keys() - self._policy.keys():
            raise RuntimeError(f"who may call these methods of {service_name} is not said: {_names(unruled)}")
        if unknown := self._policy.keys() - method_handlers.keys():
            raise RuntimeError(f"there are rules for methods that {service_name} does not have: {_names(unknown)}")


def _names(methods: Iterable[str]) -> str:
    return ", ".join(sorted(methods))


class _AuthorizedHandler(grpc.GenericRpcHandler):
    """The methods of a service. Each runs in its caller's `RequestContext`; `WalletError` becomes a status."""

    def __init__(
        self, methods: grpc.GenericRpcHandler, verifier: TokenVerifier, rules: Mapping[str, AccessRule]
    ) -> None:
        """Args:
        methods: as the servicer has them.
        verifier: of callers' tokens.
        rules: of each method, by its full name.
        """
        self._methods = methods
        self._verifier = verifier
        self._rules = rules
        self._guarded: dict[str, _Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "_Handler | None":
        method = handler_call_details.method
        if method not in self._guarded:
            handler = self._methods.service(handler_call_details)
            if handler is None:
                return None
            self._guarded[method] = self._guard(method, handler)
        return self._guarded[method]

    def _guard(self, method: str, handler: Any) -> _Handler:
        rule = self._rules[method]

        async def unary(request: Any, context: _Context) -> Any:
            with _RpcScope(method, context) as serving:
                await serving.begin(self._verifier, rule)
                return await handler.unary_unary(request, context)
            return await serving.abort()

        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            with _RpcScope(method, context, is_stream=True) as serving:
                until = await serving.begin(self._verifier, rule)
                async with aclosing(_ended(handler.unary_stream(request, context), until)) as responses:
                    async for response in responses:
                        yield response
            if serving.status.code:
                await serving.abort()

        coders = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, *coders)
        return grpc.unary_unary_rpc_method_handler(unary, *coders)


async def _ended(responses: AsyncGenerator[Any, None], until: float | None) -> AsyncGenerator[Any, None]:
    """The responses, for as long as the token lasts.

    Raises:
        Unauthenticated: it has ended.
    """
    async with aclosing(responses):
        loop = asyncio.get_running_loop()
        end = None if until is None else loop.time() + until - time.time()
        while end is None or loop.time() < end:
            # Around each response alone: between two of them this task is gRPC's own, which waits for the reader.
            try:
                async with asyncio.timeout_at(end) as lifetime:
                    response = await anext(responses, None)
            except TimeoutError:
                if not lifetime.expired():
                    raise
                break
            if response is None:
                return
            yield response
        raise Unauthenticated("the token has expired; get a new one")


class _RpcScope:
    """One call from its first moment to its last. An error ends the block and becomes the status that `abort` sends;
    only cancellation goes on.
    """

    def __init__(self, method: str, context: _Context, *, is_stream: bool = False) -> None:
        self._method = method
        self._context = context
        self._is_stream = is_stream
        self._started = time.monotonic()
        self._metadata = dict(context.invocation_metadata() or ())
        parent = TraceContext.from_traceparent(
            _text(self._metadata.get("traceparent")), _text(self._metadata.get("tracestate"))
        )
        name = method[1:]
        self._span = tracing.start_span(
            name, parent or TraceContext.new(), SpanKind.SERVER, {"rpc.system": "grpc", "rpc.method": name}
        )
        self.status = status_pb2.Status()

    async def begin(self, verifier: TokenVerifier, rule: AccessRule) -> float | None:
        """Makes the call the current one of this task, with its verified caller, whom the rule admits.

        Returns:
            When the caller's token ends, on the clock of `time.time`; None for a call without one.
        """
        remaining, trace = self._context.time_remaining(), self._span.trace
        call = RequestContext(
            choose_request_id(_text(self._metadata.get("x-request-id")), trace),
            deadline=None if remaining is None else self._started + remaining,
            trace=trace,
        )
        current_request.set(call)
        if rule.is_public:
            return None
        token = (_text(self._metadata.get("authorization")) or "").removeprefix("Bearer ")
        if not token:
            raise Unauthenticated
        caller = await verifier.verify(token)
        current_request.set(RequestContext(call.request_id, caller, token, call.deadline, trace))
        rule.check(caller)
        return caller.valid_until

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, WalletError):
            self.status = error_to_status(error)
        elif isinstance(error, Exception):
            log.error("unexpected error", method=self._method, exc_info=error)
            self.status = error_to_status(InternalError())
        elif error is not None:
            self.status.code = code_pb2.CANCELLED
        self._record(time.monotonic() - self._started)
        return isinstance(error, Exception)

    def _record(self, seconds: float) -> None:
        """What came of the call: to the metrics, to its span, and to the log where somebody may have to look."""
        code = code_name(self.status)
        metrics.RPC_SECONDS.labels(self._method, code).observe(seconds)
        is_fault = self.status.code in _SERVER_ERRORS
        if is_fault or (seconds > _SLOW_SECONDS and not self._is_stream):  # a stream lasts as long as it is read
            log.warning("call", method=self._method, code=code, ms=round(seconds * 1000, 1))
        self._span.set_attributes({"rpc.response.status_code": code})
        if is_fault:
            self._span.fail(code)
        self._span.end()

    async def abort(self) -> None:
        """Tells the caller what came of the call."""
        await self._context.abort_with_status(rpc_status.to_status(self.status))


def _text(value: str | bytes | None) -> str | None:
    """A metadata value, if it is text."""
    return value if isinstance(value, str) else None
