"""Maximum size of request bodies, with or without a Content-Length."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import build_problem
from gateway.http.problems import response_to

_DRAIN_TIMEOUT_SECONDS: Final = 1.0
_DRAIN_LIMIT_BYTES: Final = 2**20


class BodyLimit:
    """ASGI app that refuses a request with 413 if its body is too large, and passes all others on."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        """Args:
        app: ASGI app for the requests within the limit.
        limit_bytes: maximum size of a body.
        """
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length":  # the server passes on at most that many bytes
                app = self._app if int(value) <= self._limit else self._reject
                await app(scope, receive, send)
                return
        received = 0
        started = False

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _BodyTooLargeError
            return message

        async def send_within_limit(message: Message) -> None:
            nonlocal started
            if received <= self._limit:  # above the limit, the app's response to the incomplete body is dropped
                started = True
                await send(message)

        with suppress(_BodyTooLargeError):
            await self._app(scope, receive_limited, send_within_limit)
        if received > self._limit and not started:
            await self._reject(scope, receive, send)

    async def _reject(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the rest of the body, up to a limit, then respond, because a client may not read while it is sending."""
        drained = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_TIMEOUT_SECONDS):
                while drained < _DRAIN_LIMIT_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        await too_large_response(scope, self._limit)(scope, receive, send)


def too_large_response(scope: Scope, limit_bytes: int) -> Response:
    """Return the response to a body above the limit.

    It closes the connection, because the rest of the body may still arrive.
    """
    detail = f"the body must be at most {limit_bytes} bytes"
    problem = build_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "CONTENT_TOO_LARGE", detail)
    return response_to(scope, problem, {"Connection": "close"})


class _BodyTooLargeError(Exception):
    pass
