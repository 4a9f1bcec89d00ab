"""HTTP responses of the GraphQL endpoints: one result as JSON, or several as server-sent events or as parts."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from graphql import GraphQLError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.errors import METHOD_NOT_ALLOWED, format_graphql_error, is_request_error
from gateway.graphql.transport.requests import EVENT_STREAM, MULTIPART, RequestRefused
from gateway.http import metrics
from gateway.http.media_types import JSON
from kit.http.routing import send_head
from kit.rpc import request_context
from wallet.errors import InternalError, RateLimited

PARTIAL_SUCCESS: Final = 294
"""Status of a result that has both data and errors."""

_HEARTBEAT_SECONDS: Final = 15.0


def format_result(result: Any) -> dict[str, Any]:
    """Convert an execution result to a response as the GraphQL specification defines it.

    The response to a request error has no `data`.
    """
    if not result.errors:
        return {"data": result.data}
    errors = [format_graphql_error(error).formatted for error in result.errors]
    if is_request_error(result.data, result.errors):
        return {"errors": errors}
    return {"errors": errors, "data": result.data}


def format_request_error(error: GraphQLError) -> dict[str, Any]:
    """Convert a request error, such as a syntax error, to a GraphQL response."""
    return {"errors": [format_graphql_error(error).formatted]}


def format_refusal(error: RequestRefused) -> dict[str, Any]:
    """Convert the refusal of a malformed HTTP request to a GraphQL response."""
    is_too_large = error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE  # the name of this status depends on Python
    code = "CONTENT_TOO_LARGE" if is_too_large else error.status.name
    extensions = {"code": code, "requestId": request_context.current_request.get().request_id}
    return {"errors": [{"message": error.message, "extensions": extensions}]}


def response_status(result: Mapping[str, Any], media_type: str) -> int:
    """Return the HTTP status of a result.

    The status of a mutation by GET is 405. All other results have 200 with `application/json`, as older clients expect.
    With `application/graphql-response+json`, a result with `data` and errors has `PARTIAL_SUCCESS`. A request error has
    400, as graphql-http's audits expect (the specification allows any 4xx), or 429 if a rate limit is exceeded. An
    unexpected error before execution has 500.

    Args:
        result: a formatted result.
        media_type: media type of the response.
    """
    if "errors" not in result:
        return HTTPStatus.OK
    codes = {error["extensions"]["code"] for error in result["errors"]}
    if METHOD_NOT_ALLOWED in codes:
        return HTTPStatus.METHOD_NOT_ALLOWED
    if media_type == JSON:
        return HTTPStatus.OK
    if "data" in result:
        return PARTIAL_SUCCESS
    if InternalError.reason in codes:
        return HTTPStatus.INTERNAL_SERVER_ERROR
    return HTTPStatus.TOO_MANY_REQUESTS if RateLimited.reason in codes else HTTPStatus.BAD_REQUEST


class JSONResult:
    """ASGI response with one JSON body."""

    def __init__(self, body: object, status: int, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Args:
        body: value to encode as JSON.
        status: HTTP status.
        media_type: media type of the body.
        headers: further headers.
        """
        self._content = orjson.dumps(body)
        self._status = status
        self._headers = [
            (b"content-type", f"{media_type}; charset=utf-8".encode()),
            (b"content-length", b"%d" % len(self._content)),
            (b"vary", b"Accept"),
        ]
        if headers:
            self._headers += [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002, D102  ASGI
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._content})


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """Format of a stream of results.

    Attributes:
        content_type: value of `Content-Type`.
        result: bytes before and after the JSON of a result.
        heartbeat: bytes that clients ignore.
        end: bytes after the last result.
    """

    content_type: str
    result: tuple[bytes, bytes]
    heartbeat: bytes
    end: bytes


_PART: Final = b"\r\n--graphql\r\nContent-Type: application/json\r\n\r\n"

STREAM_FORMATS: Final = {
    EVENT_STREAM: StreamFormat(
        "text/event-stream; charset=utf-8", (b"event: next\ndata: ", b"\n\n"), b":\n\n", b"event: complete\ndata: \n\n"
    ),
    MULTIPART: StreamFormat(
        'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"',
        (_PART + b'{"payload":', b"}"),
        _PART + b"{}",
        b"\r\n--graphql--\r\n",
    ),
}
"""Formats by media type: graphql-sse's distinct connections mode, and Apollo's multipart subscriptions."""


class ResultStream(StreamingResponse):
    """Results of one operation, as server-sent events or as parts of a multipart body.

    A heartbeat every 15 seconds keeps proxies from closing an idle connection. The generator of the results is always
    closed with the response. When the gateway stops or the caller's token expires, the response ends without the end
    of the format. graphql-sse's client then reconnects, and Apollo's client reports an error. After an expiry, they
    need a new token. The response to HEAD has no results.
    """

    def __init__(self, results: AsyncGenerator[Any, None], stop: asyncio.Event, media_type: str) -> None:
        """Args:
        results: results of the operation.
        stop: set when the gateway stops.
        media_type: key of `STREAM_FORMATS`.
        """
        self._format = STREAM_FORMATS[media_type]
        # `X-Accel-Buffering` turns off nginx's buffering.
        headers = {
            "Content-Type": self._format.content_type,
            "Cache-Control": "no-cache",
            "Vary": "Accept",
            "X-Accel-Buffering": "no",
        }
        super().__init__(_encode_results(results, self._format), headers=headers)
        self._results = results
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["method"] == "HEAD":
            await self._results.aclose()
            await send_head(self, send)
        else:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send results and heartbeats until the results end, the token expires or the gateway stops."""
        try:
            async with asyncio.timeout(_token_seconds()) as lifetime:
                heartbeat = asyncio.create_task(self._send_heartbeats(send, lifetime))
                try:
                    with metrics.EVENT_STREAMS.track_inprogress():
                        async with aclosing(self.body_iterator):  # type: ignore[type-var]
                            await super().stream_response(send)
                finally:
                    heartbeat.cancel()
        except TimeoutError:
            if not lifetime.expired():
                raise
            await send({"type": "http.response.body", "body": b""})

    async def _send_heartbeats(self, send: Send, lifetime: asyncio.Timeout) -> None:
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                await send({"type": "http.response.body", "body": self._format.heartbeat, "more_body": True})
        lifetime.reschedule(asyncio.get_running_loop().time())


def _token_seconds() -> float | None:
    """Return the seconds after which the caller's token ends the stream; None for an anonymous caller."""
    caller = request_context.current_request.get().principal
    return None if caller is None else caller.stream_seconds()


async def _encode_results(results: AsyncGenerator[Any, None], stream_format: StreamFormat) -> AsyncIterator[bytes]:
    before, after = stream_format.result
    async with aclosing(results):
        async for result in results:
            yield b"%b%b%b" % (before, orjson.dumps(format_result(result)), after)
    yield stream_format.end
