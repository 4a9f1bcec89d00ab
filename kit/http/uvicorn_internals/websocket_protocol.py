"""WebSocket protocol of a connection."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Response
from websockets.server import ServerProtocol

from kit.http import metrics
from kit.http.connections import DISCARDED_BYTES, PROGRESS_BYTES, Connection, Stage
from kit.http.token_bucket import TokenBucket

FRAMES_PER_SECOND: Final = 200
"""Maximum sustained rate of a WebSocket's frames. Each 2 KiB of received data count as a further frame."""
_FRAMES_AT_ONCE: Final = 500
_FRAME_BYTES: Final = 2 * 1024
_FRAME_SLICE_BYTES: Final = 1024
"""Received bytes that are parsed in one turn of the loop: 170 empty frames at most, which take a millisecond."""
_NO_DATA: Final = memoryview(b"")
_FLOOD_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
_CLOSE_REASON_BYTES: Final = 123


_VERSION: Final = "13"
_REFUSALS: Final[Mapping[int, str]] = {
    400: f"send Sec-WebSocket-Version: {_VERSION}, a Sec-WebSocket-Key of 16 bytes in Base64, and no body\n",
    403: "no WebSocket is accepted here: check the path and the origin\n",
    405: "open a WebSocket with GET\n",
    414: "send a shorter path and query\n",
    426: "send Upgrade: websocket and Connection: Upgrade\n",
    431: "send fewer and shorter header fields\n",
    500: "the WebSocket could not be opened: try again\n",
    505: "open a WebSocket with HTTP/1.1\n",
}
"""Response bodies of refused handshakes, by status."""

_REASONS: Final[Mapping[int, str]] = {
    1002: "this is not a valid frame of WebSocket",
    1007: "a text message must be valid UTF-8",
    1009: "the message is too long: send a shorter one",
}
"""Close reasons of connections that `websockets` closes, by close code."""


class _DescribedProtocol(ServerProtocol):
    """Protocol of `websockets` with our texts, which quote nothing that the client sent."""

    def reject(self, status: Any, text: str) -> Response:
        """Return the response to a refused handshake. A 400 has the supported version (RFC 6455, 4.2.2)."""
        response = super().reject(HTTPStatus(status), _REFUSALS.get(status, text))
        if status == HTTPStatus.BAD_REQUEST:
            response.headers["Sec-WebSocket-Version"] = _VERSION
        return response

    def fail(self, code: Any, reason: str = "") -> None:
        """Close the connection. `websockets` calls it."""
        super().fail(code, _REASONS.get(code, reason))


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with limits.

    Received data is parsed in small slices, one in each turn of the loop, and only while the app has read the previous
    message and the client reads our output. A client that sends more frames than the allowed rate is slowed down; if
    that lasts for five seconds, the connection closes with 1008. All WebSockets of one address share another allowance
    (`kit.http.connections`), which only slows them down. If the app closes the connection while the client is
    slowed down, the rest of the received data is dropped. Otherwise the close would wait for the client's close frame,
    which may be the last of thousands of frames.
    """

    def __init__(self, *args: Any, connection: Connection | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = _CLOSE_SECONDS
        self.conn = _DescribedProtocol(
            extensions=self.conn.available_extensions, max_size=self.config.ws_max_size, logger=self.conn.logger
        )
        self._connection = connection
        self._unparsed = _NO_DATA
        self._is_scheduled = False
        self._is_refused = False
        self._discarded_bytes = 0
        self._resumes = 0
        self._frames = TokenBucket(FRAMES_PER_SECOND, _FRAMES_AT_ONCE, self.loop.time())
        self._slow_since: float | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        if connection is not None:
            connection.owner = self

    # Stages of the connection

    def stage(self) -> tuple[Stage, object]:
        """See `kit.http.connections.Owner`."""
        if self.transport.is_closing():
            return Stage.CLOSING, self.transport.get_write_buffer_size() // PROGRESS_BYTES
        if self._is_refused:
            return Stage.LINGERING, None
        if not self.writable.is_set():
            return Stage.BLOCKED, self._resumes
        if not self.handshake_complete:
            return Stage.HANDSHAKE, None
        if self.close_sent:
            return Stage.CLOSE_FRAME, None
        return Stage.APP, None

    def end(self, stage: Stage) -> None:
        """See `kit.http.connections.Owner`."""
        if stage is Stage.LINGERING:
            self.transport.close()
        else:
            self.transport.abort()

    # uvicorn's methods

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102  see uvicorn
        self._unparsed = _NO_DATA
        if self._slow_timer is not None:
            self._slow_timer.cancel()
        super().connection_lost(exc)
        if self._connection is not None:
            self.config.open_connections.remove(self._connection)  # type: ignore[attr-defined]
            self._connection = None

    def pause_writing(self) -> None:  # noqa: D102
        super().pause_writing()
        self._update_reading()

    def resume_writing(self) -> None:  # noqa: D102
        self._resumes += 1
        super().resume_writing()
        self._update_reading()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._is_refused:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > DISCARDED_BYTES:
                self.transport.close()
        elif not self.handshake_initiated:  # the head of the request, from the HTTP protocol
            super().data_received(data)
            if not self.handshake_initiated:
                self._refuse_handshake()
            self._update_reading()
        else:
            # Reading is paused while there is unparsed data, but the event loop may still deliver some.
            self._unparsed = memoryview(b"".join((self._unparsed, data)) if self._unparsed else data)
            if not self._is_scheduled:
                self._parse_slice()

    def _may_parse(self) -> bool:
        return (
            self.handshake_complete
            and not self.read_paused  # the app has read the previous message
            and self.writable.is_set()
            and self._slow_timer is None
            and not self._is_refused
            and not self.transport.is_closing()
        )

    def _parse_slice(self) -> None:
        """Parse the next slice if this is allowed now. The next turn of the loop parses the following slice."""
        self._is_scheduled = False
        if self._unparsed and self._may_parse() and not self._must_wait_for_address():
            piece = bytes(self._unparsed[:_FRAME_SLICE_BYTES])
            self._unparsed = self._unparsed[_FRAME_SLICE_BYTES:] or _NO_DATA
            self.conn.receive_data(piece)
            frames = len(self.conn.events)
            self.handle_events()
            if self.conn.parser_exc is not None:
                self.handle_parser_exception()
            elif not self._is_refused:
                self._charge(frames + len(piece) / _FRAME_BYTES)
        self._update_reading()

    def _must_wait_for_address(self) -> bool:
        """Wait if the WebSockets of the address have used up their common allowance."""
        shared = None if self._connection is None else self._connection.frames
        seconds = 0.0 if shared is None else shared.take(0, self.loop.time())
        if seconds:
            self._slow_down(seconds)
        return bool(seconds)

    def _slow_down(self, seconds: float) -> None:
        if self.close_sent:
            self._linger()
        else:
            self._slow_timer = self.loop.call_later(seconds, self._continue)

    def _update_reading(self) -> None:
        """Read from the socket only while nothing waits to be parsed."""
        if self.transport.is_closing():
            return
        may_parse = self._may_parse()
        if self._is_refused or (may_parse and not self._unparsed):
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()
        if self._unparsed and may_parse and not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._parse_slice)

    def _charge(self, frames: float) -> None:
        """Count frames, and slow the client down if they are too many."""
        now = self.loop.time()
        if self._frames.refill(now) > _FRAMES_AT_ONCE / 2:
            self._slow_since = None
        seconds = self._frames.take(frames, now)
        if seconds and self._slow_since is None:
            self._slow_since = now
        if self._connection is not None and self._connection.frames is not None:
            self._connection.frames.take(frames, now)
        if not seconds:
            return
        if self._slow_since is not None and now - self._slow_since > _FLOOD_SECONDS and not self.close_sent:
            limit = f"send at most {FRAMES_PER_SECOND} a second; each 2 KiB count as one more frame"
            self._fail(1008, f"too many frames: {limit}")
        else:
            self._slow_down(seconds)

    def _continue(self) -> None:
        self._slow_timer = None
        self._parse_slice()

    def _refuse_handshake(self) -> None:
        """Refuse a request that `websockets` does not accept: it has a body, or too many or too long fields."""
        answer = b"".join(self.conn.data_to_send())
        if not answer:
            body = _REFUSALS[400].encode()
            answer = (
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
        metrics.REQUESTS_REFUSED.labels(answer[9:12].decode()).inc()
        self.transport.write(answer)
        self.close_sent = True
        self._linger()

    def _fail(self, code: int, reason: str) -> None:
        """Close the connection without waiting for the client's close frame."""
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Pass a complete message to the app, or close the connection if the message is not UTF-8.

        uvicorn would log the error with a traceback.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self.frames = []
                self._fail(1007, "a text message must be valid UTF-8")
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Send a pong, unless an earlier frame of the same data has ended the output."""
        if not self._is_refused:
            super().handle_ping()

    def handle_parser_exception(self) -> None:  # noqa: D102
        close = self.conn.close_sent
        if close is not None:
            metrics.WEBSOCKETS_CLOSED.labels(int(close.code)).inc()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._linger()

    def _linger(self) -> None:
        """End the output, and drop received data until the client ends its side or a sweep closes the connection.

        A sweep is the check of all connections once a second (`kit.http.connections`).

        Closing at once would reset the connection, and the client could lose the close frame.
        """
        self._is_refused = True
        self._unparsed = _NO_DATA
        self.stop_keepalive()
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None
        if not self.transport.is_closing():
            self.transport.write_eof()

    def shutdown(self) -> None:  # noqa: D102
        if not self.transport.is_closing():
            super().shutdown()

    async def send(self, message: Any) -> None:  # noqa: D102
        # Several subscriptions may wait for the client to read. The first to continue may fill the buffer again.
        while not (self.writable.is_set() or self.disconnected):
            await self.writable.wait()
        if self._is_refused or (self.transport.is_closing() and message["type"] == "websocket.send"):
            # uvicorn would drop the message. An app that sends without a pause would then keep the event loop busy, so
            # that the connection is never closed.
            raise ClientDisconnected
        if message["type"] == "websocket.close" and message.get("reason"):
            reason = message["reason"].encode()[:_CLOSE_REASON_BYTES].decode(errors="ignore")
            message = {**message, "reason": reason}
        await super().send(message)
        if message["type"] != "websocket.send":
            if self.close_sent and self._slow_timer is not None:
                self._linger()
            self._update_reading()

    async def receive(self) -> Any:  # noqa: D102
        message = await super().receive()
        self._update_reading()
        if not self.queue.empty():  # several messages arrived at once: let other tasks run in between
            await asyncio.sleep(0)
        return message
