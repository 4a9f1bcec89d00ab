"""What comes of an operation, as responses: one result, or a stream of them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

import orjson
from graphql import GraphQLError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.errors import format_graphql_error
from gateway.graphql.transport.requests import EVENT_STREAM, JSON, Refused
from gateway.http import metrics
from kit.rpc import request_context
from wallet.errors import InternalError, RateLimited

PARTIAL_SUCCESS: Final = 294

_HEARTBEAT_SECONDS: Final = 15.0


def formatted(result: Any) -> dict[str, Any]:
    """An execution's result as the specification has it: without `data` where nothing was executed."""
    if not result.errors:
        return {"data": result.data}
    errors = [format_graphql_error(error).formatted for error in result.errors]
    # What goes wrong in a field has the field's path; what goes wrong before the first field has none.
    if result.data is None and not any(error.path for error in result.errors):
        return {"errors": errors}
    return {"errors": errors, "data": result.data}


def request_error(error: GraphQLError) -> dict[str, Any]:
    """The result of an operation that is not executed."""
    return {"errors": [format_graphql_error(error).formatted]}


def refusal(refused: Refused) -> dict[str, Any]:
    """The result of a request that is none."""
    extensions = {"code": refused.status.name, "requestId": request_context.current_request.get().request_id}
    return {"errors": [{"message": refused.message, "extensions": extensions}]}


def status_of(result: Mapping[str, Any], media_type: str) -> int:
    """The status that a result has in a media type.

    In `application/json` all have 200, as clients of that age expect. The specification leaves the choice among the 4xx
    to the server; graphql-http's audits want 400.
    """
    if media_type == JSON or "errors" not in result:
        return HTTPStatus.OK
    if "data" in result:
        return PARTIAL_SUCCESS
    codes = {error["extensions"]["code"] for error in result["errors"]}
    if InternalError.reason in codes:
        return HTTPStatus.INTERNAL_SERVER_ERROR
    return HTTPStatus.TOO_MANY_REQUESTS if RateLimited.reason in codes else HTTPStatus.BAD_REQUEST


class JSONResult:
    """One whole response, as ASGI."""

    def __init__(self, body: object, status: int, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._content = orjson.dumps(body)
        self._status = status
        lines = {
            "content-type": f"{media_type}; charset=utf-8",
            "content-length": str(len(self._content)),
            "vary": "Accept",
            **(headers or {}),
        }
        self._headers = [(name.lower().encode(), value.encode()) for name, value in lines.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002, D102  ASGI
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._content})


class EventStream(StreamingResponse):
    """The results of one operation as server-sent events, in graphql-sse's distinct connections mode.

    A comment every fifteen seconds keeps whatever lies between from closing a quiet connection. The results' generator
    is closed with the response, however that ends. When the gateway stops, or the caller's token ends, the response
    ends without `complete`, after which graphql-sse's client connects again: with a fresh token it goes on, with the
    old one it is told.
    """

    media_type = EVENT_STREAM

    def __init__(self, results: AsyncGenerator[Any, None], stop: asyncio.Event) -> None:
        # Neither kept nor buffered on the way, by nginx either.
        super().__init__(_events(results), headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._stop = stop

    async def stream_response(self, send: Send) -> None:
        """Starlette's own, with heartbeats, and then the end of what made the results."""
        try:
            async with asyncio.timeout(_seconds_left()) as life:
                beating = asyncio.create_task(self._beat(send, life))
                try:
                    with metrics.EVENT_STREAMS.track_inprogress():
                        async with aclosing(self.body_iterator):  # type: ignore[type-var]
                            await super().stream_response(send)
                finally:
                    beating.cancel()
        except TimeoutError:
            if not life.expired():
                raise
            await send({"type": "http.response.body", "body": b""})

    async def _beat(self, send: Send, life: asyncio.Timeout) -> None:
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        life.reschedule(asyncio.get_running_loop().time())


def _seconds_left() -> float | None:
    """Until the caller's token ends."""
    caller = request_context.current_request.get().principal
    return None if caller is None else caller.expires_at - time.time()


async def _events(results: AsyncGenerator[Any, None]) -> AsyncIterator[bytes]:
    async with aclosing(results):
        async for result in results:
            yield b"event: next\ndata: %b\n\n" % orjson.dumps(formatted(result))
    yield b"event: complete\ndata: \n\n"
