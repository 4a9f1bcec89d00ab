"""Calling another service: a channel that reconnects fast, and calls that carry who asks and how long there is."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

import grpc
from opentelemetry.trace import SpanKind

from kit import tracing
from kit.call import Call, current
from kit.rotation import rotating
from kit.status import from_rpc_error
from kit.tls import TLS, Material, refuse_plaintext
from wallet.errors import DeadlineExceeded, Unavailable, WalletError

_RECONNECT_MS: Final = 1_000
_RESUME_PAUSE_SECONDS: Final = 0.25
_RESUME_ATTEMPTS: Final = 120

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
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        # Or a stream whose reader has stopped would pile up here what the connection can carry in a round trip,
        # 4 MiB and more, before the sender feels it. A message that is larger than a window still has its own.
        ("grpc.http2.bdp_probe", 0),
    )
    if tls is None:
        refuse_plaintext(target)
        async with grpc.aio.insecure_channel(target, options) as channel:
            yield channel
        return

    def connect(material: Material) -> grpc.aio.Channel:
        # The authority is the name that is checked: by default, the address, which says less and may be several.
        secure = (*options, ("grpc.default_authority", name))
        return grpc.aio.secure_channel(target, material.channel_credentials(), secure)

    async with rotating(tls, connect) as channel:
        yield channel


async def unary(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    cap_seconds: float,
    what: str,
) -> Response:
    """One call in the name of the current caller.

    Args:
        method: of a stub.
        request: its message.
        cap_seconds: the longest wait; less when the caller's own deadline is nearer.
        what: names the service to people when it does not answer.

    Raises:
        WalletError: what the service refused the call with; Unavailable or DeadlineExceeded when its outcome is not
            known.
    """
    call = current.get()
    remaining = call.remaining(cap_seconds)
    if not remaining:
        raise DeadlineExceeded(what)  # gRPC would now and then still make the call
    with _span(method, call) as span:
        try:
            return await method(request, timeout=remaining, metadata=_metadata(call, span))
        except grpc.aio.AioRpcError as error:
            raise _told(error, span, what) from None


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
    request: Request,
    *,
    what: str,
) -> AsyncGenerator[Response, None]:
    """The responses of one streaming call; closing the iterator cancels the call.

    Raises:
        WalletError: as `unary`.
    """
    call = current.get()
    with _span(method, call) as span:
        responses = method(request, metadata=_metadata(call, span))
        try:
            async for response in responses:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _told(error, span, what) from None
        finally:
            responses.cancel()


async def resumed(open_stream: Callable[[], AsyncGenerator[Value, None]]) -> AsyncGenerator[Value, None]:
    """The values of a stream that is opened again when whoever serves it goes away: for half a minute without a value,
    before the reader is told. What a stream that is opened later begins with is the caller's to say.

    Raises:
        WalletError: as `stream`.
    """
    attempts = 0
    while True:
        try:
            async with aclosing(open_stream()) as values:
                async for value in values:
                    attempts = 0
                    yield value
        except Unavailable:
            attempts += 1
            if attempts == _RESUME_ATTEMPTS:
                raise
        else:
            return
        await asyncio.sleep(_RESUME_PAUSE_SECONDS)


def _span(method: Any, call: Call) -> tracing.Span:
    # gRPC knows what the method is called, and has no public name for it.
    name = getattr(method, "_method", b"/")[1:].decode() if call.trace.is_sampled else ""
    return tracing.start(name, call.trace, SpanKind.CLIENT, {"rpc.system": "grpc", "rpc.method": name})


def _told(error: grpc.aio.AioRpcError, span: tracing.Span, what: str) -> WalletError:
    span.tell({"rpc.response.status_code": error.code().name})
    return from_rpc_error(error, what)


def _metadata(call: Call, span: tracing.Span) -> tuple[tuple[str, str], ...]:
    metadata = (("x-request-id", call.request_id), *span.trace.headers)
    return metadata if call.token is None else (*metadata, ("authorization", f"Bearer {call.token}"))
