"""Around every request of the contract, as plain ASGI: its line in the log, its API key, its idempotency key, and the
trouble that comes at random.
"""

import asyncio
import hmac
import random
import time

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.rpc import request_context
from kit.rpc.request_context import RequestContext
from kit.telemetry.tracing import TraceContext
from openapi.acquirer import Code
from sandbox.api import refused
from sandbox.payments import Refusal

log = structlog.get_logger(__name__)


class CallMiddleware:
    """Lets in whoever has the API key, one request at a time under each idempotency key. Logs one line when a request
    is over.
    """

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._authorization = f"Bearer {api_key}".encode()
        self._in_use: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        trace = TraceContext.new()
        reset = request_context.current_request.set(
            RequestContext(request_context.choose_request_id(headers.get("x-request-id"), trace), trace=trace)
        )
        started = time.monotonic()
        status = None

        async def send_noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._one_at_a_time(headers)(scope, receive, send_noted)
        finally:
            ms = round((time.monotonic() - started) * 1000, 1)
            log.info("request", method=scope["method"], path=scope["path"], status=status, ms=ms)
            request_context.current_request.reset(reset)

    def _one_at_a_time(self, headers: Headers) -> ASGIApp:
        """What answers a request with these headers."""
        if not hmac.compare_digest(headers.get("authorization", "").encode(), self._authorization):
            return refused(Refusal(Code.unauthorized))
        key = headers.get("idempotency-key")
        if key is None:
            return self._app
        if key in self._in_use:
            return refused(Refusal(Code.key_in_use))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self._in_use.add(key)
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_use.remove(key)

        return app


class FailureMiddleware:
    """Answers late, and 503 now and then: instead of doing what was asked, or after it. The same seed has the same
    requests fail, counted in the order in which they come.
    """

    def __init__(self, app: ASGIApp, *, delay_seconds: float, rate: float, seed: int) -> None:
        self._app = app
        self._delay = delay_seconds
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311  to be repeated, not to be secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        fails, is_done = self._random.random() < self._rate, self._random.random() < 0.5  # noqa: PLR2004  either way
        await asyncio.sleep(self._delay)
        if not fails or is_done:
            await self._app(scope, receive, _unheard if fails else send)
        if fails:
            await refused(Refusal(Code.unavailable))(scope, receive, send)


async def _unheard(_: Message) -> None:
    """Keeps the answer from the client."""
