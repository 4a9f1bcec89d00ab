"""Around every request, as plain ASGI: its id and its caller, its deadline, its size, its line in the log."""

import asyncio
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import make_problem, problem
from gateway.policy import KNOWN, OPEN_PATHS
from gateway.rates import Rates, Standing, address_of
from kit import call
from kit.call import Call
from kit.principal import Verifier
from wallet.errors import InternalError, RateLimited, WalletError

log = structlog.get_logger(__name__)

_CLOSED_BY_CLIENT: Final = 499
_MOMENT_SECONDS: Final = 0.05
_DRAIN_SECONDS: Final = 1.0
_DRAIN_BYTES: Final = 2**20
_UNCOUNTED: Final = ("/health/", "/metrics")
_SIGN_IN: Final = "/auth/"


def problem_response(body: Any, headers: dict[str, str]) -> Response:
    """A problem as a response."""
    content = body.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, body.status, headers, media_type="application/problem+json")


class CallMiddleware:
    """Gives each request its `Call`: an id that comes back as `X-Request-Id`, the verified caller where there is a
    token, and a deadline. Logs one line when it is over, in which the graph's operations are, too. A token that is not
    valid is refused here, and so is one that opens nothing, for every route that looks at one.

    A request whose caller goes away is cancelled, and with it the calls that it has made to the services.
    """

    def __init__(self, app: ASGIApp, verifier: Verifier, timeout_seconds: float) -> None:
        self._app = app
        self._verifier = verifier
        self._timeout = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = dict(scope["headers"])
        request_id = call.request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        deadline = started + self._timeout if scope["type"] == "http" else None
        reset = call.current.set(Call(request_id, deadline=deadline))
        status = _CLOSED_BY_CLIENT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.accept"}:
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
            await send(message)

        try:
            token = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer").strip()
            if token and scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
                caller = await self._verifier.verify(token)
                KNOWN.check(caller)
                call.current.set(Call(request_id, caller, token, deadline))
            if scope["type"] == "http":
                await _while_awaited(self._app, scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except WalletError as error:
            await problem_response(*problem(error))(scope, receive, send_with_id)
        except Exception as error:
            if status != _CLOSED_BY_CLIENT:  # it is answered, well or badly
                raise
            log.error("unexpected error", exc_info=error)
            await problem_response(*problem(InternalError()))(scope, receive, send_with_id)
        finally:
            line = {
                "method": scope.get("method", "WS"),
                "path": scope["path"],
                "status": int(status),
                "ms": round((time.monotonic() - started) * 1000, 1),
            }
            if "operations" in scope:  # of the graph
                line["operations"] = scope["operations"]
            log.info("request", **line)
            call.current.reset(reset)


async def _while_awaited(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the app for as long as the caller waits for its answer."""
    try:
        async with asyncio.timeout(None) as patience:
            caller = _Caller(receive, patience)
            if scope["method"] in {"GET", "HEAD"}:  # nobody reads what these may have for a body
                caller.watch()
            try:
                await app(scope, caller.receive, send)
            finally:
                caller.forget()
    except TimeoutError:
        if not patience.expired():
            raise


class _Caller:
    """Ends the patience with a request when its caller goes away. One learns of that by listening, from the end of the
    body on; most answers come sooner than it pays to begin with it.
    """

    def __init__(self, receive: Receive, patience: asyncio.Timeout) -> None:
        self._receive = receive
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._listening: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """What the caller sends."""
        message = await self._receive()
        if self._timer is None and not message.get("more_body", False):
            self.watch()
        return message

    def watch(self) -> None:
        self._timer = self._loop.call_later(_MOMENT_SECONDS, self._begin)

    def forget(self) -> None:
        for each in (self._timer, self._listening):
            if each is not None:
                each.cancel()

    def _begin(self) -> None:
        self._listening = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._patience.reschedule(self._loop.time())


class BodyLimitMiddleware:
    """Refuses bodies above a size with 413, whether they say their length or not."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)
        if length is not None:  # and the server hands on no more than that
            guarded = self._app if length <= self._limit else self._refuse
            await guarded(scope, receive, send)
            return
        received = 0
        started = False

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _TooLargeError
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal started
            if received <= self._limit:  # past it, what the app makes of the broken body is not the answer
                started = True
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, receive_limited, send_unless_refused)
        if received > self._limit and not started:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes the rest of the body first, within bounds: a caller who is still sending would not see the answer."""
        drained = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while drained < _DRAIN_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        detail = f"the body must be at most {self._limit} bytes"
        body = make_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "CONTENT_TOO_LARGE", detail)
        await problem_response(body, {"Connection": "close"})(scope, receive, send)


class _TooLargeError(Exception):
    pass


class RateMiddleware:
    """Refuses with 429 what is more than one caller may ask for, before anything is done of it: whoever says who they
    are by who that is, others by their address. Every answer tells what is left.

    Probes and scrapes are not counted.
    """

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        path = scope["path"]
        if path.startswith(_UNCOUNTED):
            await self._app(scope, receive, send)
            return
        limit, who = self._rates.anonymous, address_of(scope.get("client"))
        principal = call.current.get().principal
        if path.startswith(_SIGN_IN):
            limit = self._rates.sign_in
        elif principal is not None:
            limit, who = self._rates.requests, principal.scope
        try:
            standing = await self._rates.take(limit, who)
        except RateLimited as error:
            nothing_left = Standing(limit, 0, int(error.retry_after_seconds))
            await problem_response(*problem(error))(scope, receive, _with_headers(send, nothing_left.headers))
            return
        await self._app(scope, receive, send if standing is None else _with_headers(send, standing.headers))


def _with_headers(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_with_headers
