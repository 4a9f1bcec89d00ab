"""One HTTP request or WebSocket and its response: id, trace span, response headers, and the log line at the end."""

import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog
from opentelemetry.trace import SpanKind
from starlette.types import Message, Receive, Scope, Send

from gateway.http import metrics
from gateway.http.problems import response_to
from gateway.http.rate_limits import RateLimitStatus
from gateway.http.security_headers import with_security_headers
from kit.http.logged_path import path_to_log
from kit.http.server import is_health_check
from kit.rpc import request_context
from kit.telemetry import tracing
from kit.telemetry.log_throttle import LogThrottle
from kit.telemetry.tracing import TraceContext
from openapi.models import Problem

log = structlog.get_logger(__name__)

CLIENT_CLOSED_REQUEST: Final = 499
"""Status in logs and metrics of a request that got no response, as nginx records it."""

_RESPONSE_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_refused_requests = LogThrottle(lines_per_second=5)
"""Limits the log lines of requests above a rate limit (429), because clients can send many of them cheaply."""


class Exchange:
    """State of one request and its response.

    Attributes:
        scope: ASGI scope.
        headers: request headers by lower-case name; of repeated headers only the last one.
        started: start of the request, on the monotonic clock.
        span: span of the request.
        request_id: the caller's `X-Request-Id` if it is safe to log, else the trace id.
        read_rate_limit_status: reads the remaining quota for the response headers; None if the request has no limit.
            The quota is read when the response starts, because one request may count several times, such as an array of
            GraphQL requests.
        on_response_start: called when the response starts.
        is_health_check: whether the request is a health check, which has no rate limit and is logged at debug level.
        status: status of the response; `CLIENT_CLOSED_REQUEST` until the response starts.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        """Args:
        scope: ASGI scope.
        send: ASGI send of the server.
        """
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = time.monotonic()
        self.span = tracing.start_span(scope.get("method", "GET"), _parent_trace(self.headers), SpanKind.SERVER)
        proposed_id = self.headers.get(b"x-request-id")
        self.request_id = self.span.trace.trace_id
        if proposed_id is not None:
            self.request_id = request_context.choose_request_id(proposed_id.decode("latin-1"), self.span.trace)
        self.read_rate_limit_status: Callable[[], Awaitable[RateLimitStatus | None]] | None = None
        self.on_response_start: Callable[[], None] = _do_nothing
        self.is_health_check = is_health_check(scope)
        self.status: int = CLIENT_CLOSED_REQUEST
        self._response_started: float | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        """ASGI send that records the status and completes the response headers."""
        if message["type"] in _RESPONSE_STARTS:
            self.status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
            self._response_started = time.monotonic()
            self.on_response_start()
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            if self.read_rate_limit_status is not None and (status := await self.read_rate_limit_status()) is not None:
                headers += status.headers
            message["headers"] = with_security_headers(headers)
        await self._send(message)

    async def send_problem(self, receive: Receive, problem: Problem, headers: dict[str, str]) -> None:
        """Send a problem as the response; a GraphQL endpoint sends a GraphQL error instead."""
        await response_to(self.scope, problem, headers)(self.scope, receive, self.send)

    def complete(self) -> None:
        """Record metrics, log one line unless it is throttled, and end the span. Call it once, after the response."""
        ended = time.monotonic()
        if self.scope["type"] == "http":
            seconds = (self._response_started or ended) - self.started
            metrics.record_request(self.scope, self.status, seconds, self.span.exemplar)
        throttle = _refused_requests if self.status == HTTPStatus.TOO_MANY_REQUESTS else None
        if throttle is None or throttle.admits(ended):
            self._log(ended, throttle.take_omitted() if throttle else 0)
        if self.span.is_recorded:
            self._describe_span()
        self.span.end()

    def _log(self, ended: float, omitted: int) -> None:
        line = {
            "method": self.scope.get("method", "WS"),
            "path": path_to_log(self.scope["path"]),
            "status": int(self.status),
            "ms": round((ended - self.started) * 1000, 1),
        }
        if "operations" in self.scope:  # set by the GraphQL endpoint
            line["operations"] = self.scope["operations"]
        if omitted:
            line["omitted"] = omitted
        (log.debug if self.is_health_check else log.info)("request completed", **line)

    def _describe_span(self) -> None:
        """Name the span by its route template. The path is left out, because callers choose it."""
        method, route = self.scope.get("method", "GET"), metrics.route_template(self.scope) or ""
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.response.status_code": int(self.status),
        }
        if route:
            attributes["http.route"] = route
        self.span.set_attributes(attributes, name=f"{method} {route}".rstrip())
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.span.fail(str(int(self.status)))


def _do_nothing() -> None:
    pass


def _parent_trace(headers: Mapping[bytes, bytes]) -> TraceContext:
    """Return the caller's trace context, or a new one if there is none or it is malformed."""
    parent = headers.get(b"traceparent")
    if parent is None:
        return TraceContext.new()
    return (
        TraceContext.from_traceparent(parent.decode("latin-1"), headers.get(b"tracestate", b"").decode("latin-1"))
        or TraceContext.new()
    )
