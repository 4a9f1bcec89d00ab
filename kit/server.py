"""A gRPC server with all that each of ours has: callers, errors as statuses, logs, metrics, health, reflection."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import grpc
import structlog
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from kit import metrics
from kit.call import Call, current, request_id
from kit.principal import Principal, Verifier
from kit.status import code_name, to_status
from wallet.errors import InternalError, Unauthenticated, WalletError

log = structlog.get_logger(__name__)

_GRACE_SECONDS: Final = 5.0
_OPEN_TO_ALL: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second listener that takes half of the calls
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


@asynccontextmanager
async def grpc_server(
    listen: str,
    verifier: Verifier,
    services: Mapping[str, Callable[[grpc.aio.Server], None]],
) -> AsyncIterator[grpc.aio.Server]:
    """A server that serves from entry, and on exit lets running calls finish for some seconds.

    Args:
        listen: `host:port`.
        verifier: of callers' tokens; a call without a valid one is refused before it reaches a servicer.
        services: how to register each servicer, by the full name of its service.

    Raises:
        RuntimeError: the port is in use.
    """
    server = grpc.aio.server(interceptors=[_CallInterceptor(verifier)], options=_OPTIONS)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for register in services.values():
        register(server)
    names = (*services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    server.add_insecure_port(listen)
    await server.start()
    for name in ("", *services):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("serving gRPC", listen=listen)
    try:
        yield server
    finally:
        await health.enter_graceful_shutdown()
        await server.stop(_GRACE_SECONDS)


_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class _CallInterceptor(grpc.aio.ServerInterceptor):
    """Around every call: who calls, until when, what came of it. Handlers raise `WalletError`, callers get statuses."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN_TO_ALL):
            return handler
        metadata = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, metadata, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, metadata, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, method: str, metadata: Mapping[str, str], handle: Any) -> Any:
        async def unary(request: Any, context: _Context) -> Any:
            async with self._call(method, metadata, context):
                return await handle(request, context)

        return unary

    def _stream(self, method: str, metadata: Mapping[str, str], handle: Any) -> Any:
        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            async with self._call(method, metadata, context):
                async for response in handle(request, context):
                    yield response

        return stream

    @asynccontextmanager
    async def _call(self, method: str, metadata: Mapping[str, str], context: _Context) -> AsyncIterator[None]:
        started = time.monotonic()
        remaining = context.time_remaining()
        deadline = None if remaining is None else started + remaining
        call = Call(request_id(metadata.get("x-request-id")), deadline=deadline)
        current.set(call)
        status = status_pb2.Status()
        try:
            token = metadata.get("authorization", "").removeprefix("Bearer ")
            principal = self._principal(token)
            current.set(Call(call.request_id, principal, token, deadline))
            yield
        except WalletError as error:
            status = to_status(error)
        except asyncio.CancelledError:
            status.code = code_pb2.CANCELLED
            raise
        except Exception:
            log.exception("unexpected error", method=method)
            status = to_status(InternalError())
        finally:
            metrics.RPC_SECONDS.labels(method, code_name(status)).observe(time.monotonic() - started)
        if status.code:
            await context.abort_with_status(rpc_status.to_status(status))

    def _principal(self, token: str) -> Principal:
        if not token:
            raise Unauthenticated
        return self._verifier.verify(token)
