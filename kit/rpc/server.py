"""gRPC server with authentication, errors as statuses, logs, metrics, traces, health and reflection."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from kit.auth.access import AccessPolicy, AccessRule
from kit.auth.bearer import parse_bearer, repeated_authorization
from kit.auth.principal import TokenVerifier
from kit.http.admin import HealthCheck, run_checks
from kit.rpc.grpc_internals import MethodHandler, ServerStandIn
from kit.rpc.reflection import add_reflection
from kit.rpc.request_context import RequestContext, choose_request_id, current_request
from kit.rpc.status import code_name, error_to_status, fit_to_call
from kit.rpc.tls import TLS, require_loopback
from kit.runtime.addresses import ListenError
from kit.runtime.process import background_task
from kit.telemetry import metrics, tracing
from kit.telemetry.tracing import TraceContext
from wallet.errors import InternalError, InvalidInput, Unauthenticated, WalletError

log = structlog.get_logger(__name__)

_STOP_TIMEOUT_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 0.25
"""Time from the report of NOT_SERVING to the refusal of new calls. Clients use it to switch to other replicas."""
_MAX_CONNECTION_AGE_MS: Final = 600_000
"""Age at which the server closes a TLS connection. The client's next connection uses the newest certificates."""
MAX_STREAMS: Final = 4_000
"""Maximum number of concurrent calls, streams included, on one connection."""
_READINESS_INTERVAL_SECONDS: Final = 1.0
_SLOW_CALL_SECONDS: Final = 1.0
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
"""Status codes of server errors. All other codes are correct responses, such as a refusal."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port in use is an error; with reuse, two processes would share the calls
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # Above `max_metadata_size`, gRPC refuses some calls at random. A token has at most half of this size
    # (`MAX_TOKEN_BYTES`).
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 24 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),  # less than the keepalive interval of our channels
    # One client must not use the whole server. Each of our channels has one connection, with at most `CALL_LIMIT` calls
    # and the streams of its process; calls above `MAX_STREAMS` wait in the client.
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_allowed_incoming_connections", 1_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 30_000),  # our channels are never idle: they watch the server's health
)


@dataclass(frozen=True, slots=True)
class Service:
    """Servicer with its access policy.

    Attributes:
        register: adds the servicer to a server.
        policy: access rule of each method.
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
    """Serve gRPC while the block runs. On exit, running calls have five seconds to finish.

    The gRPC health of each service stays SERVING until shutdown, even while a dependency is unavailable: replicas share
    their dependencies, so failing over to another replica would not help, and callers get a specific error instead. The
    empty service name reports the readiness, for probes.

    Args:
        listen: `host:port`.
        verifier: verifies callers' tokens. A call that the policy does not allow never reaches a servicer.
        services: services by their full names. Health and reflection need no token.
        tls: certificate of the server, and the CA certificates that sign clients' certificates; a client without a
            certificate is refused. None: plaintext, on loopback only.
        checks: readiness checks by the name of the dependency.

    Raises:
        RuntimeError: the methods of a policy and its service differ.
        ListenError: the port is in use, or the host is not an address of this machine.
        PlaintextError: `tls` is None and the port is not on loopback.
    """
    if tls is None:
        require_loopback(listen)
    server = grpc.aio.server(
        options=_OPTIONS if tls is None else (*_OPTIONS, ("grpc.max_connection_age_ms", _MAX_CONNECTION_AGE_MS))
    )
    health = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for name, service in services.items():
        service.register(_authorizing_server(server, verifier, name, service.policy))
    add_reflection(server, (*services, "grpc.health.v1.Health"))
    server.add_generic_rpc_handlers([_UnknownMethods()])  # last: it gets the calls that no other handler takes
    try:
        if tls is None:
            server.add_insecure_port(listen)
        else:
            server.add_secure_port(listen, tls.server_credentials())
    except RuntimeError as error:  # gRPC does not say which of the two reasons applies
        raise ListenError(listen, "the port is in use, or the host is not an address of this machine") from error
    for name in services:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    log.info("serving gRPC", listen=listen)
    try:
        async with background_task(_update_health(health, checks or {}), "health"):
            yield server
    finally:
        await health.enter_graceful_shutdown()
        # gRPC refuses calls that arrive while it stops. By then, clients have switched to another replica, if any.
        await asyncio.sleep(_DRAIN_SECONDS)
        await server.stop(_STOP_TIMEOUT_SECONDS)


async def _update_health(health: grpc_health.HealthServicer, checks: Mapping[str, HealthCheck]) -> None:
    while True:
        is_ready = all(state == "ok" for state in (await run_checks(checks)).values())
        status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        await health.set("", status)
        await asyncio.sleep(_READINESS_INTERVAL_SECONDS)


_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def _authorizing_server(
    server: grpc.aio.Server, verifier: TokenVerifier, name: str, policy: AccessPolicy
) -> grpc.aio.Server:
    """Return the server that a servicer registers with: it authorizes the calls of each method.

    Registration raises RuntimeError if the methods of the policy and the servicer differ.
    """

    def check_methods(methods: Collection[str]) -> None:
        if missing := set(methods) - policy.keys():
            raise RuntimeError(f"methods of {name} without an access rule: {_join(missing)}; add them to its policy")
        if unknown := policy.keys() - set(methods):
            raise RuntimeError(f"access rules for methods that {name} does not have: {_join(unknown)}; remove them")

    rules = {f"/{name}/{method}": rule for method, rule in policy.items()}
    return ServerStandIn(
        server, lambda methods: _AuthorizedHandler(methods, verifier, rules), check_methods
    ).as_server()


def _join(methods: Iterable[str]) -> str:
    return ", ".join(sorted(methods))


class _AuthorizedHandler(grpc.GenericRpcHandler):
    """Methods of a servicer. Each call is authorized and runs in its `RequestContext`; errors become statuses."""

    def __init__(
        self, methods: grpc.GenericRpcHandler, verifier: TokenVerifier, rules: Mapping[str, AccessRule]
    ) -> None:
        """Args:
        methods: handler of the servicer's methods.
        verifier: verifies callers' tokens.
        rules: access rules by the path of the method.
        """
        self._methods = methods
        self._verifier = verifier
        self._rules = rules
        self._handlers: dict[str, MethodHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "MethodHandler | None":
        method = handler_call_details.method
        if method not in self._handlers:
            handler = self._methods.service(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self._authorize(method, handler)
        return self._handlers[method]

    def _authorize(self, method: str, handler: Any) -> MethodHandler:
        rule = self._rules[method]

        async def unary(request: Any, context: _Context) -> Any:
            with _RpcScope(method, context, request) as scope:
                await scope.begin(self._verifier, rule)
                if request is _UNREADABLE:
                    raise _not_a_message()
                return await handler.unary_unary(request, context)
            return await scope.abort()

        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            with _RpcScope(method, context, request, is_stream=True) as scope:
                valid_until = await scope.begin(self._verifier, rule)
                if request is _UNREADABLE:
                    raise _not_a_message()
                async with aclosing(_until_expiry(handler.unary_stream(request, context), valid_until)) as responses:
                    async for response in responses:
                        yield response
            if scope.status.code:
                await scope.abort()

        coders = (_read_message(handler.request_deserializer), handler.response_serializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, *coders)
        return grpc.unary_unary_rpc_method_handler(unary, *coders)


class _UnknownMethods(grpc.GenericRpcHandler):
    """Refuses calls of methods that the server does not have, with our own message instead of gRPC's."""

    def service(self, _: grpc.HandlerCallDetails) -> MethodHandler:
        """Return a handler of a stream in both directions, which suits every call."""

        async def refuse(_: Any, context: _Context) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the service has no such method: see its proto file")

        return grpc.stream_stream_rpc_method_handler(refuse)


_UNREADABLE: Final = object()
"""Stands for a request that is not a message of the method's type."""


def _read_message(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser that returns `_UNREADABLE` for an invalid request, which gRPC would refuse with INTERNAL."""

    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _not_a_message() -> InvalidInput:
    return InvalidInput.for_field("request", "must be a message of the method's request type")


async def _until_expiry(responses: AsyncGenerator[Any, None], valid_until: float | None) -> AsyncGenerator[Any, None]:
    """Yield the responses of a stream until the caller's token expires.

    Args:
        responses: responses of the servicer.
        valid_until: Unix time; None for a call without a token.

    Raises:
        Unauthenticated: the token has expired.
    """
    async with aclosing(responses):
        loop = asyncio.get_running_loop()
        end = None if valid_until is None else loop.time() + valid_until - time.time()
        while end is None or loop.time() < end:
            # The time-out covers only the servicer: between two responses gRPC waits in this task for a slow client.
            try:
                async with asyncio.timeout_at(end) as timeout:
                    response = await anext(responses, None)
            except TimeoutError:
                if not timeout.expired():
                    raise
                break
            if response is None:
                return
            yield response
        raise Unauthenticated.for_token("the token has expired; get a new one")


def record_call(
    method: str, status: status_pb2.Status, seconds: float, span: tracing.Span, *, is_stream: bool = False
) -> None:
    """Record the result of a call in metrics and its span, and log the call if it failed with a server error or was
    slow.

    Args:
        method: path of the method.
        status: status of the call.
        seconds: duration of the call.
        span: span of the call; it is ended.
        is_stream: the duration of the call is not compared with that of a slow call, as a stream lasts as long as its
            client.
    """
    code = code_name(status)
    metrics.RPC_SECONDS.labels(method, code).observe(seconds, span.exemplar)
    is_error = status.code in _SERVER_ERRORS
    if is_error or (seconds > _SLOW_CALL_SECONDS and not is_stream):
        log.warning("slow or failed call", method=method, code=code, ms=round(seconds * 1000, 1))
    span.set_attributes({"rpc.response.status_code": code})
    if is_error:
        span.fail(code)
    span.end()


class _RpcScope:
    """One call: its request context, span, metrics and log.

    An error in the block ends the block and becomes the status that `abort` sends; only a cancellation is raised.
    """

    def __init__(self, method: str, context: _Context, request: object, *, is_stream: bool = False) -> None:
        self._method = method
        self._request = request
        self._context = context
        self._is_stream = is_stream
        self._started = time.monotonic()
        metadata = context.invocation_metadata() or ()
        self._metadata = dict(metadata)
        self._has_repeated_keys = len(self._metadata) < len(metadata)
        parent = TraceContext.from_traceparent(
            _text(self._metadata.get("traceparent")), _text(self._metadata.get("tracestate"))
        )
        name = method[1:]
        self._span = tracing.start_span(
            name, parent or TraceContext.new(), SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": name}
        )
        self.status = status_pb2.Status()

    async def begin(self, verifier: TokenVerifier, rule: AccessRule) -> float | None:
        """Authorize the caller and set the current request of this task.

        Returns:
            Unix time until which the caller's token is valid; None for a public method.

        Raises:
            InvalidInput: there are several tokens.
            Unauthenticated: there is no valid token.
            PermissionDenied: the rule does not allow the caller.
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
        token = self._read_token()
        if not token:
            raise Unauthenticated
        caller = await verifier.verify(token)
        current_request.set(RequestContext(call.request_id, caller, token, call.deadline, trace))
        rule.check(caller)
        return caller.valid_until

    def _read_token(self) -> str:
        """Return the caller's token; an empty text if the call has none.

        Raises:
            InvalidInput: there are several `authorization` entries.
            Unauthenticated: the value does not begin with the scheme Bearer.
        """
        if self._has_repeated_keys:
            keys = [key for key, _ in self._context.invocation_metadata() or ()]
            if keys.count("authorization") > 1:
                raise repeated_authorization()
        return parse_bearer(_text(self._metadata.get("authorization")) or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, WalletError):
            self.status = error_to_status(fit_to_call(error, self._request))
        elif isinstance(error, Exception):
            log.error("unexpected error", method=self._method, exc_info=error)
            self.status = error_to_status(InternalError())
        elif error is not None:
            self.status.code = code_pb2.CANCELLED
        seconds = time.monotonic() - self._started
        record_call(self._method, self.status, seconds, self._span, is_stream=self._is_stream)
        return isinstance(error, Exception)

    async def abort(self) -> None:
        """End the call with its status."""
        await self._context.abort_with_status(rpc_status.to_status(self.status))


def _text(value: str | bytes | None) -> str | None:
    """Return a metadata value if it is text."""
    return value if isinstance(value, str) else None
