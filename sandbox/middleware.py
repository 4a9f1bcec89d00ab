"""ASGI middleware for the contract's requests: log line, API key, idempotency key lock, random failures."""

import asyncio
import hmac
import random
import time

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.auth.bearer import AUTHORIZATION, parse_bearer_lines
from kit.http.logged_path import path_to_log
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext
from kit.telemetry.tracing import TraceContext
from openapi.acquirer import Code
from sandbox.api import error_response
from sandbox.payments import Refusal
from wallet.errors import WalletError

log = structlog.get_logger(__name__)


class RequestMiddleware:
    """Checks the API key, allows one request at a time per idempotency key, and logs one line per request."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._api_key = api_key.encode()
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

        async def send_with_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app_for(headers)(scope, receive, send_with_status)
        finally:
            ms = round((time.monotonic() - started) * 1000, 1)
            path = path_to_log(scope["path"])
            log.info("request completed", method=scope["method"], path=path, status=status, ms=ms)
            request_context.current_request.reset(reset)

    def _app_for(self, headers: Headers) -> ASGIApp:
        """Return the app that handles a request with these headers."""
        if not self._is_merchant(headers):
            return error_response(Refusal(Code.unauthorized))
        key = headers.get("idempotency-key")
        if key is None:
            return self._app
        if key in self._in_use:
            return error_response(Refusal(Code.key_in_use))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self._in_use.add(key)
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_use.remove(key)

        return app

    def _is_merchant(self, headers: Headers) -> bool:
        """Return whether the request has the API key, in exactly one `Authorization` line."""
        try:
            key = parse_bearer_lines(headers.getlist(AUTHORIZATION))
        except WalletError:
            return False
        return hmac.compare_digest(key.encode(), self._api_key)


class RandomFailureMiddleware:
    """Delays all requests, and responds to some of them with status 503. Half of these are executed nevertheless.

    The same seed fails the same requests, counted in order of arrival.
    """

    def __init__(self, app: ASGIApp, *, delay_seconds: float, rate: float, seed: int) -> None:
        self._app = app
        self._delay = delay_seconds
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311  repeatable, not secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        fails, is_executed = self._random.random() < self._rate, self._random.random() < 0.5  # noqa: PLR2004  evenly
        await asyncio.sleep(self._delay)
        if not fails or is_executed:
            await self._app(scope, receive, _discard if fails else send)
        if fails:
            await error_response(Refusal(Code.unavailable))(scope, receive, send)


async def _discard(_: Message) -> None:
    """Drop the response."""
