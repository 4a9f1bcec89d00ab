"""Around every request, as plain ASGI: its id and its caller, its deadline, its size, its line in the log."""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import structlog
from opentelemetry.trace import SpanKind
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import build_problem, problem_from_error
from gateway.http import metrics
from gateway.http.rate_limits import RateLimiter, RateLimitStatus, address_key
from gateway.policy import KNOWN, OPEN_PATHS
from kit.auth.principal import TokenVerifier
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext
from kit.telemetry import tracing
from kit.telemetry.tracing import TraceContext
from wallet.errors import InternalError, WalletError

log = structlog.get_logger(__name__)

_CLOSED_BY_CLIENT: Final = 499
_MOMENT_SECONDS: Final = 0.05
_DRAIN_SECONDS: Final = 1.0
_DRAIN_BYTES: Final = 2**20
_CARD: Final = re.compile(r"\d{13,}")
"""What may be a card's number, and is no part of an id."""
_UNCOUNTED: Final = "/health/"
_SIGN_IN: Final = "/auth/"
_UNLESS_SAID: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""What every answer says: it is for this caller, is what it says it is, and is no page."""


def problem_response(body: Any, headers: dict[str, str]) -> Response:
    """A problem as a response."""
    content = body.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, body.status, headers, media_type="application/problem+json")


class CallMiddleware:
    """Gives each request its `RequestContext`: an id that comes back as `X-Request-Id` and is its trace's unless the
    caller has one, the verified caller if there is a token, and a deadline. Logs one line at its end, with the graph's
    operations are, too.

    Here is refused, for every route: with 401 or 403 a token that is not valid or opens nothing, where one is looked
    at; with 429 what is more than one caller may ask for, whoever says who they are by who that is, others by their
    address; with 408 a body that takes longer than a request may. Probes are not counted.

    A request whose caller goes away is cancelled, and with it the calls that it has made to the services.
    """

    def __init__(self, app: ASGIApp, verifier: TokenVerifier, rates: RateLimiter, timeout_seconds: float) -> None:
        """Args:
        app: what is asked.
        verifier: of callers' tokens.
        rates: of what they ask for.
        timeout_seconds: the longest that a request may take; streams have no limit.
        """
        self._app = app
        self._verifier = verifier
        self._rates = rates
        self._timeout = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        deadline = exchange.started + self._timeout if scope["type"] == "http" else None
        reset = request_context.current_request.set(
            RequestContext(exchange.request_id, deadline=deadline, trace=exchange.span.trace)
        )
        try:
            await self._answer(exchange, receive)
        except WalletError as error:
            await exchange.send_problem(receive, *problem_from_error(error))
        except _TooSlowError:
            detail = f"the request did not come whole within {self._timeout:g} seconds"
            body = build_problem(HTTPStatus.REQUEST_TIMEOUT, "REQUEST_TIMEOUT", detail)
            await exchange.send_problem(receive, body, {"Connection": "close"})
        except Exception as error:
            if exchange.status != _CLOSED_BY_CLIENT:  # it is answered, well or badly
                raise
            log.error("unexpected error", exc_info=error)
            await exchange.send_problem(receive, *problem_from_error(InternalError()))
        finally:
            exchange.tell()
            request_context.current_request.reset(reset)

    async def _answer(self, exchange: "_Exchange", receive: Receive) -> None:
        scope = exchange.scope
        refusal = await self._identify(exchange)
        if not scope["path"].startswith(_UNCOUNTED):  # who is refused is counted, too
            await self._count(exchange)
        if refusal is not None:
            raise refusal
        if scope["type"] == "http":
            await _while_awaited(self._app, scope, receive, exchange.send, self._timeout)
        else:
            with metrics.WEBSOCKETS.track_inprogress():
                await self._app(scope, receive, exchange.send)

    async def _identify(self, exchange: "_Exchange") -> WalletError | None:
        """Makes the caller known where there is a token to be looked at; what is wrong with it."""
        scope, token = exchange.scope, exchange.token
        if not token or scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return None
        try:
            caller = await self._verifier.verify(token)
            KNOWN.check(caller)
        except WalletError as error:
            return error
        request_context.current_request.set(request_context.current_request.get().with_principal(caller, token))
        return None

    async def _count(self, exchange: "_Exchange") -> None:
        """Counts the request, and notes what is left.

        Raises:
            RateLimited: it is one too many.
        """
        principal = request_context.current_request.get().principal
        if exchange.scope["path"].startswith(_SIGN_IN):
            limit, who = self._rates.sign_in, address_key(exchange.scope.get("client"))
        else:
            limit, who = self._rates.limit_for(principal, exchange.scope.get("client"))
        try:
            await self._rates.hit(limit, who)
        finally:
            exchange.standing = await self._rates.status(limit, who)


class _Exchange:
    """One request and its answer, which gets the headers that every one has."""

    def __init__(self, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        self.scope = scope
        self.started = time.monotonic()
        self.span = tracing.start_span(scope.get("method", "GET"), _trace(headers), SpanKind.SERVER)
        self.request_id = request_context.choose_request_id(
            headers.get(b"x-request-id", b"").decode("latin-1"), self.span.trace
        )
        self.token = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer").strip()
        self.standing: RateLimitStatus | None = None
        self.status = _CLOSED_BY_CLIENT
        self._answered: float | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start", "websocket.accept"}:
            self.status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
            self._answered = time.monotonic()
            message["headers"] = self._completed(message.get("headers", ()))
        await self._send(message)

    async def send_problem(self, receive: Receive, body: Any, headers: dict[str, str]) -> None:
        await problem_response(body, headers)(self.scope, receive, self.send)

    def tell(self) -> None:
        """The line in the log, the metrics, and what its span says."""
        ended = time.monotonic()
        if self.scope["type"] == "http":
            metrics.record_request(self.scope, self.status, (self._answered or ended) - self.started)
        line = {
            "method": self.scope.get("method", "WS"),
            "path": _CARD.sub("#", self.scope["path"]),
            "status": int(self.status),
            "ms": round((ended - self.started) * 1000, 1),
        }
        if "operations" in self.scope:  # of the graph
            line["operations"] = self.scope["operations"]
        log.info("request", **line)
        if self.span.is_recorded:
            self._tell_span(self.scope.get("method", "GET"), int(self.status))
        self.span.end()

    def _tell_span(self, method: str, status: int) -> None:
        """By the route: never by the path, into which callers write what they like."""
        route = self.scope.get("graph") or getattr(self.scope.get("route"), "path", "")
        attributes: dict[str, str | int] = {"http.request.method": method, "http.response.status_code": status}
        if route:
            attributes["http.route"] = route
        self.span.set_attributes(attributes, name=f"{method} {route}".rstrip())
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.span.fail(str(status))

    def _completed(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        whole = [*headers, (b"x-request-id", self.request_id.encode())]
        if self.standing is not None:
            whole += self.standing.headers
        said = {name for name, _ in whole}
        return whole + [each for each in _UNLESS_SAID if each[0] not in said]


def _trace(headers: Mapping[bytes, bytes]) -> TraceContext:
    """Where the caller is, if they say so; or a trace that begins here."""
    parent = headers.get(b"traceparent")
    if parent is None:
        return TraceContext.new()
    return (
        TraceContext.from_traceparent(parent.decode("latin-1"), headers.get(b"tracestate", b"").decode("latin-1"))
        or TraceContext.new()
    )


async def _while_awaited(app: ASGIApp, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
    """Runs the app for as long as the caller waits for its answer, and has the body come in so many seconds.

    Raises:
        _TooSlowError: it did not, and nothing is answered.
    """
    try:
        async with asyncio.timeout(None) as patience:
            caller = _Caller(receive, patience, seconds, has_body=scope["method"] not in {"GET", "HEAD"})
            try:
                await app(scope, caller.receive, send)
            finally:
                caller.forget()
    except TimeoutError:
        if not patience.expired():
            raise
        if not caller.is_gone:
            raise _TooSlowError from None


class _Caller:
    """Ends the patience with a request whose body does not come whole, or whose caller goes away: of which one learns
    by listening, from the end of the body on. Most answers come sooner than it pays to begin with either.
    """

    def __init__(self, receive: Receive, patience: asyncio.Timeout, seconds: float, *, has_body: bool) -> None:
        self._receive = receive
        self._patience = patience
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._is_whole = not has_body  # nobody reads what a GET may have for one
        self._is_watched = False
        self._timer = self._loop.call_later(min(_MOMENT_SECONDS, seconds), self._watch)
        self._listening: asyncio.Task[None] | None = None
        self.is_gone = False

    async def receive(self) -> Message:
        """What the caller sends."""
        message = await self._receive()
        if not self._is_whole and not message.get("more_body", False):
            self._is_whole = True
            if self._is_watched:
                self._watch()
        return message

    def forget(self) -> None:
        self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()

    def _watch(self) -> None:
        """From a moment after the request has begun."""
        self._is_watched = True
        if self._is_whole:
            self._patience.reschedule(None)
            self._listening = self._loop.create_task(self._listen())
        else:
            self._patience.reschedule(self._loop.time() + max(0.0, self._seconds - _MOMENT_SECONDS))

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
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
        body = build_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "CONTENT_TOO_LARGE", detail)
        await problem_response(body, {"Connection": "close"})(scope, receive, send)


class _TooLargeError(Exception):
    pass


class _TooSlowError(Exception):
    pass
