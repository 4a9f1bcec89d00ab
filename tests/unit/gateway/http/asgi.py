"""ASGI app and client for tests of the HTTP modules."""

from collections.abc import Collection

import httpx
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.middleware import RequestMiddleware
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.work_limits import WorkLimits
from kit.rpc import request_context
from tests.conftest import Keys


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the caller and the request body."""
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    principal = request_context.current_request.get().principal
    await PlainTextResponse(f"{principal.subject if principal else 'anonymous'}: {body.decode()}")(scope, receive, send)


def http_client(app: ASGIApp, *, raise_app_exceptions: bool = False, address: str = "127.0.0.1") -> httpx.AsyncClient:
    """Return a client of the app with this address, without a network."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=raise_app_exceptions, client=(address, 123))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def with_middleware(
    app: ASGIApp,
    keys: Keys,
    *,
    timeout_seconds: float = 1.0,
    body_limit_bytes: int = 1_000,
    rates: RateLimitOptions | None = None,
    work: WorkLimits | None = None,
    large_body_paths: Collection[str] = (),
) -> RequestMiddleware:
    """Return the app behind the gateway's middleware, with these rate limits, or with the default ones."""
    limiter = RateLimiter(rates or RateLimitOptions())
    return RequestMiddleware(
        app,
        keys.verifier(),
        limiter,
        work or WorkLimits(),
        timeout_seconds=timeout_seconds,
        body_limit_bytes=body_limit_bytes,
        large_body_paths=large_body_paths,
    )
