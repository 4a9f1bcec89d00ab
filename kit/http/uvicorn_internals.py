"""Subclasses of uvicorn's server and protocols, which are not public API.

They add what uvicorn does not limit: connections, the time in each stage of a connection, the parts of a request, the
frames of a WebSocket, and the work in one turn of the event loop (ADR 33).
`tests/unit/kit/http/test_uvicorn_internals.py` fails if uvicorn no longer has or calls an overridden method.
"""

import asyncio
import contextlib
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from kit.http import metrics
from kit.http.connections import Connection, Connections, Stage

_SLICE_BYTES: Final = 8 * 1024
"""Received bytes that are parsed in one turn of the loop. Ordinary requests are smaller."""
_HEAD_BYTES: Final = 32 * 1024
_HEAD_FIELDS: Final = 128
_BODY_PARTS: Final = 2_000
"""Chunks and trailers of one body. Each costs a call, however small it is."""
_FRAMING_BYTES: Final = 32 * 1024
_FRAMING_BYTES_PER_PART: Final = 8
"""Received bytes of a body that are not content, such as chunk extensions and trailers: in all, and for each part."""
_PIPELINED_REQUESTS: Final = 16
_DISCARDED_BYTES: Final = 1024 * 1024
"""Received bytes that are dropped, of a body that the app has not read or after the last answer."""
_PROGRESS_BYTES: Final = 16 * 1024
"""Bytes of the output buffer that a client must read in the time of a stage."""

FRAMES_PER_SECOND: Final = 200
"""Sustained rate of a WebSocket's frames; 2 KiB count as a further frame."""
_FRAMES_AT_ONCE: Final = 500
_FRAME_BYTES: Final = 2 * 1024
_FRAME_SLICE_BYTES: Final = 1024
"""As `_SLICE_BYTES`, for frames: 170 empty ones at most, which take a millisecond."""
_FLOOD_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
_CLOSE_REASON_BYTES: Final = 123


class ServerWithoutSignals(uvicorn.Server):
    """uvicorn's server without signal handlers: `kit.runtime.process` shuts down the whole process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle no signals."""
        yield


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration with our protocols.

    Attributes:
        open_connections: connections of the listener.
        reserve_app: app of the connections above the limit.
    """

    def __init__(self, app: Any, open_connections: Connections, reserve_app: Any, **options: Any) -> None:
        """Args:
        app: ASGI app.
        open_connections: connections of the listener.
        reserve_app: ASGI app of the connections above the limit.
        options: options of `uvicorn.Config`.
        """
        super().__init__(
            app,
            http=BoundedHttpProtocol,
            ws=BoundedWebSocketProtocol,
            ws_per_message_deflate=False,  # a compressed flood would cost the sender little; messages are small
            **options,
        )
        self.open_connections = open_connections
        self.reserve_app = reserve_app


class _FlowControl(FlowControl):
    """uvicorn's flow control, for a connection that may hold received data back."""

    def __init__(self, transport: asyncio.Transport, resume: Any) -> None:
        super().__init__(transport)
        self._resume = resume
        self.is_held = False

    def resume_reading(self) -> None:
        if self.read_paused and self.is_held:
            self.read_paused = False
            self._resume()
        else:
            super().resume_reading()

    def release(self) -> None:
        """Drop the reference to the protocol, which has one to this object."""
        self.is_held = False
        self._resume = None


class _Part:
    """Part of a message that the parser expects."""

    NEXT: Final = 0
    HEAD: Final = 1
    BODY: Final = 2


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits.

    A request that exceeds one is answered with 400, 408, 413 or 431, and the connection is closed. Received data is
    parsed in slices, one in each turn of the loop.
    """

    config: BoundedConfig
    flow: _FlowControl

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection: Connection | None = None
        self._part = _Part.HEAD  # the first request must come within the time of a head
        self._head_bytes = 0  # received bytes of an incomplete head
        self._received_bytes = 0  # since the start of the head, with data that arrived together with its end
        self._body_parts = 0
        self._framing_bytes = 0
        self._content_bytes = 0  # of the slice that is being parsed
        self._discarded_bytes = 0
        self._held: memoryview | None = None
        self._is_scheduled = False
        self._is_refused = False
        self._is_upgraded = False
        self._resumes = 0

    # Stages of the connection

    def stage(self) -> tuple[Stage, object]:
        """See `kit.http.connections.Owner`."""
        if self.transport.is_closing():
            return Stage.CLOSING, self.transport.get_write_buffer_size() // _PROGRESS_BYTES
        if self._is_refused:
            return Stage.LINGERING, None
        if self.flow.write_paused:
            return Stage.BLOCKED, self._resumes
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return (Stage.HEAD if self._part == _Part.HEAD else Stage.IDLE), cycle
        if cycle.more_body and not self.pipeline:
            return Stage.BODY, cycle
        return Stage.APP, None

    def end(self, stage: Stage) -> None:
        """See `kit.http.connections.Owner`."""
        if stage in {Stage.HEAD, Stage.BODY}:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time: send it again")
        elif stage in {Stage.IDLE, Stage.LINGERING}:
            self.transport.close()
        else:
            self.transport.abort()

    # uvicorn's methods

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102  see uvicorn
        super().connection_made(transport)
        self.flow = _FlowControl(transport, self._schedule)
        self._connection = self.config.open_connections.add(self, transport)
        if self._connection.is_reserve:
            self.app = self.config.reserve_app

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        super().connection_lost(exc)
        self._held = None
        if self._connection is not None:
            self.config.open_connections.remove(self._connection)
        self._release()

    def _release(self) -> None:
        """Leave no cycle of references: a garbage collection stops the loop."""
        self.flow.release()
        self.parser = None  # type: ignore[assignment]  # as uvicorn does for a lost connection
        self._connection = None

    def resume_writing(self) -> None:  # noqa: D102
        self._resumes += 1
        super().resume_writing()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._held is not None:  # reading is paused, but a loop may deliver what it has read
            self._held = memoryview(b"".join((self._held, data)))
        elif len(data) <= _SLICE_BYTES:
            self._parse(data)
        else:
            self._held = memoryview(data)
            self.flow.is_held = True
            self.transport.pause_reading()
            self._parse_slice()

    def _parse_slice(self) -> None:
        """Parse the next slice of held data, unless uvicorn has paused reading. The next turn continues."""
        self._is_scheduled = False
        if self._held is None or self.flow.read_paused:
            return
        piece, self._held = self._held[:_SLICE_BYTES], self._held[_SLICE_BYTES:]
        self._parse(piece)
        if self._is_upgraded or self.transport.is_closing():
            self._held = None
        elif self._held and not self._is_refused:
            self._schedule()
        else:
            self._discarded_bytes += len(self._held)  # not empty after a refusal only
            self._held = None
            self.flow.is_held = False
            if not self.flow.read_paused:
                self.transport.resume_reading()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._parse_slice)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse received data. It replaces uvicorn's `data_received`, which logs each malformed request."""
        if self._is_refused or (self._part == _Part.BODY and self.cycle is not None and self.cycle.response_complete):
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _DISCARDED_BYTES:
                self.transport.close()
                return
        if self._is_refused or self.parser is None:
            return
        self._received_bytes = self._head_bytes + len(data)
        body_cycle = self.cycle if self._part == _Part.BODY else None
        self._content_bytes = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP/1.1 request")
            return
        if self._part != _Part.BODY:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse_head()
        elif body_cycle is self.cycle:  # the slice is within one body
            self._count_framing(len(data) - self._content_bytes)

    def _count_framing(self, received_bytes: int) -> None:
        """Count bytes of a body that are not content. The parser collects trailers, and reports them at their end."""
        self._framing_bytes += received_bytes
        if self._framing_bytes > _FRAMING_BYTES + _FRAMING_BYTES_PER_PART * self._body_parts:
            detail = f"chunk extensions and trailers of a body must be at most {_FRAMING_BYTES // 1024} KiB"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _should_upgrade_to_ws(self) -> bool:
        return self._connection is not None and not self._connection.is_reserve and super()._should_upgrade_to_ws()

    def handle_websocket_upgrade(self) -> None:  # noqa: D102
        if self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete):
            # An earlier response is not sent: the WebSocket would write into it.
            self.transport.close()
            return
        self._is_upgraded = True
        self.ws_protocol_class = partial(BoundedWebSocketProtocol, connection=self._connection)  # type: ignore[assignment]
        super().handle_websocket_upgrade()
        self._release()

    def on_message_begin(self) -> None:  # noqa: D102
        super().on_message_begin()
        self._part = _Part.HEAD
        self._body_parts = 0

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._part == _Part.BODY:  # trailers are dropped: no code reads them
            self.on_chunk_header()
            return
        if len(self.headers) >= _HEAD_FIELDS:
            self._refuse_head()
            raise _RefusedError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        if self._received_bytes > _HEAD_BYTES and self._head_size() > _HEAD_BYTES:
            self._refuse_head()
            raise _RefusedError
        if len(self.pipeline) >= _PIPELINED_REQUESTS:
            self.transport.close()
            raise _RefusedError
        self._part = _Part.BODY
        self._head_bytes = 0
        self._framing_bytes = 0
        self._discarded_bytes = 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count a chunk of a body. httptools calls it for chunked bodies only."""
        self._body_parts += 1
        if self._body_parts > _BODY_PARTS:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send the body in at most {_BODY_PARTS} chunks")
            raise _RefusedError

    def on_body(self, body: bytes) -> None:  # noqa: D102
        self._content_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:  # noqa: D102
        self._part = _Part.NEXT
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next pipelined request. Unlike uvicorn's, it sets no timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse_head(self) -> None:
        detail = f"the head of a request must be at most {_HEAD_BYTES // 1024} KiB in {_HEAD_FIELDS} fields"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer the current request, and close the connection soon. A response that has begun is cut."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        metrics.REQUESTS_REFUSED.labels(status.value).inc()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            is_current = self._part == _Part.BODY and not self.pipeline and not cycle.response_started
            cycle.disconnected = True  # the app's response is dropped
            cycle.message_event.set()
            if not is_current:
                self.transport.close()
                return
        body = f"{detail}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\n"
            f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()


class _RefusedError(Exception):
    """Stops the parser."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with limits.

    Received data is parsed in small slices, one in each turn of the loop, and only while the app has read the previous
    message and the client reads our output. A client that sends more frames than the allowed rate is slowed down; if
    that lasts for five seconds, the connection closes with 1008.
    """

    def __init__(self, *args: Any, connection: Connection | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = _CLOSE_SECONDS
        self._connection = connection
        self._unparsed = bytearray()
        self._is_scheduled = False
        self._is_refused = False
        self._discarded_bytes = 0
        self._resumes = 0
        self._allowance = float(_FRAMES_AT_ONCE)  # token bucket: frames that may be parsed now
        self._allowance_at = self.loop.time()
        self._slow_since: float | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        if connection is not None:
            connection.owner = self

    # Stages of the connection

    def stage(self) -> tuple[Stage, object]:
        """See `kit.http.connections.Owner`."""
        if self.transport.is_closing():
            return Stage.CLOSING, self.transport.get_write_buffer_size() // _PROGRESS_BYTES
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
        self._unparsed.clear()
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
        if not self.handshake_initiated:  # the head of the request, from the HTTP protocol
            super().data_received(data)
            if not self.handshake_initiated:
                self._refuse_handshake()
            self._update_reading()
        elif self._is_refused:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _DISCARDED_BYTES:
                self.transport.close()
        else:
            self._unparsed += data
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
        """Parse the next slice if that is allowed now. The next turn of the loop continues."""
        self._is_scheduled = False
        if self._unparsed and self._may_parse():
            piece = bytes(self._unparsed[:_FRAME_SLICE_BYTES])
            del self._unparsed[:_FRAME_SLICE_BYTES]
            self.conn.receive_data(piece)
            frames = len(self.conn.events)
            self.handle_events()
            if self.conn.parser_exc is not None:
                self.handle_parser_exception()
            elif not self._is_refused:
                self._charge(frames + len(piece) / _FRAME_BYTES)
        self._update_reading()

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
        refilled = self._allowance + (now - self._allowance_at) * FRAMES_PER_SECOND
        if refilled > _FRAMES_AT_ONCE / 2:
            self._slow_since = None
        self._allowance = min(refilled, _FRAMES_AT_ONCE) - frames
        self._allowance_at = now
        if self._allowance >= 0:
            return
        if self._slow_since is None:
            self._slow_since = now
        if now - self._slow_since > _FLOOD_SECONDS:
            self._fail(1008, f"too many frames: send at most {FRAMES_PER_SECOND} a second, 2 KiB each")
        else:
            self._slow_timer = self.loop.call_later(-self._allowance / FRAMES_PER_SECOND, self._continue)

    def _continue(self) -> None:
        self._slow_timer = None
        self._parse_slice()

    def _refuse_handshake(self) -> None:
        """Answer a request that `websockets` does not accept: it has a body, or too many or too long fields."""
        answer = b"".join(self.conn.data_to_send())
        if not answer:
            answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        metrics.REQUESTS_REFUSED.labels(answer[9:12].decode()).inc()
        self.transport.write(answer)
        self.close_sent = True
        self._linger()

    def _fail(self, code: int, reason: str) -> None:
        """Close the connection without waiting for the client's close frame."""
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Pass a complete message to the app. uvicorn logs one with invalid UTF-8 as an error, with a traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self.frames = []
                self._fail(1007, "a text message must be valid UTF-8")
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:  # noqa: D102
        close = self.conn.close_sent
        if close is not None:
            metrics.WEBSOCKETS_CLOSED.labels(int(close.code)).inc()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._linger()

    def _linger(self) -> None:
        """Drop what the client sends for a moment: closing at once would reset the connection."""
        self._is_refused = True
        self._unparsed.clear()
        self.stop_keepalive()

    def shutdown(self) -> None:  # noqa: D102
        if not self.transport.is_closing():
            super().shutdown()

    async def send(self, message: Any) -> None:  # noqa: D102
        # Many operations may wait for the client to read. One of them may fill the buffer again.
        while not (self.writable.is_set() or self.disconnected):
            await self.writable.wait()
        if self._is_refused or (self.transport.is_closing() and message["type"] == "websocket.send"):
            # uvicorn drops the message. An app that never pauses would keep the loop from closing the connection.
            raise ClientDisconnected
        if message["type"] == "websocket.close" and message.get("reason"):
            reason = message["reason"].encode()[:_CLOSE_REASON_BYTES].decode(errors="ignore")
            message = {**message, "reason": reason}
        await super().send(message)
        if message["type"] != "websocket.send":
            self._update_reading()

    async def receive(self) -> Any:  # noqa: D102
        message = await super().receive()
        self._update_reading()
        if not self.queue.empty():  # several messages arrived at once: others have their turn between them
            await asyncio.sleep(0)
        return message
