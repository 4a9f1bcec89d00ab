"""HTTP/1.1 protocol of a connection."""

import asyncio
import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from kit.http import metrics
from kit.http.addresses import is_valid_host
from kit.http.connections import DISCARDED_BYTES, PROGRESS_BYTES, Connection, Stage
from kit.http.uvicorn_internals.parser_messages import OTHER_VERSION, describe_parser_error
from kit.http.uvicorn_internals.websocket_protocol import BoundedWebSocketProtocol

if TYPE_CHECKING:
    from kit.http.uvicorn_internals.server import BoundedConfig

_SLICE_BYTES: Final = 8 * 1024
"""Received bytes that are parsed in one turn of the loop. Ordinary requests are smaller."""
_HEAD_BYTES: Final = 32 * 1024
_HEAD_FIELDS: Final = 128
_BODY_PARTS: Final = 2_000
"""Maximum number of chunks and trailers of one body. Each costs a call of the parser, even if it is small."""
_FRAMING_BYTES: Final = 32 * 1024
_FRAMING_BYTES_PER_PART: Final = 8
"""Received bytes of a body that are not content, such as chunk extensions and trailers. Their limit is the sum of
`_FRAMING_BYTES` and `_FRAMING_BYTES_PER_PART` for each chunk or trailer."""
_PIPELINED_REQUESTS: Final = 16

_CHECKED_FIELDS: Final = frozenset({b"host", b"transfer-encoding", b"expect"})
_HTTP_1_0: Final = "1.0"
_VERSIONS: Final = frozenset({"1.1", _HTTP_1_0})


class _FlowControl(FlowControl):
    """uvicorn's flow control, for a connection that may hold received data back."""

    def __init__(self, transport: asyncio.Transport, resume: Any) -> None:
        super().__init__(transport)
        self._resume = resume
        self.is_held = False

    def resume_reading(self) -> None:
        if not self.read_paused:
            return
        if self.is_held:
            self.read_paused = False
            self._resume()
        else:
            super().resume_reading()

    def release(self) -> None:
        """Break the reference cycle with the protocol."""
        self.is_held = False
        self._resume = None


class _Part:
    """Part of a message that the parser expects."""

    NEXT: Final = 0
    HEAD: Final = 1
    BODY: Final = 2


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits.

    A request that exceeds a limit gets 408, 413 or 431, and an invalid request gets 400, 501 or 505. Then the
    connection is closed. Received data is parsed in slices, at most one in each turn of the loop. A slice waits while
    many other connections have data.

    A request that was complete before the refused data is executed, and its response is sent before the refusal. This
    also holds for a stream: it goes on until the app or the client ends it, and the refusal follows its end. In the
    meantime received data is dropped, and a client that sends more than `DISCARDED_BYTES` is disconnected.
    """

    config: "BoundedConfig"
    flow: _FlowControl

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection: Connection | None = None
        self._part = _Part.HEAD  # the first request must arrive within the time-out of a head
        self._head_bytes = 0  # received bytes of an incomplete head
        self._received_bytes = 0  # since the start of the head, including data behind its end
        self._body_parts = 0
        self._framing_bytes = 0
        self._content_bytes = 0  # of the slice that is being parsed
        self._slice: bytes | memoryview = b""
        self._discarded_bytes = 0
        self._held: memoryview | None = None
        self._is_scheduled = False
        self._is_refused = False  # no more data is parsed; the refusal may wait for earlier responses
        self._is_output_ended = False
        self._is_upgraded = False
        self._is_upgrade_ignored = False  # the head that was just parsed asks for an upgrade that is ignored
        self._host_fields = 0
        self._valid_host: bytes | None = None  # value of an earlier request
        self._resumes = 0
        self._running: RequestResponseCycle | None = None  # `cycle` is the latest request, which may still wait

    # Stages of the connection

    def stage(self) -> tuple[Stage, object]:
        """See `kit.http.connections.Owner`."""
        if self.transport.is_closing():
            return Stage.CLOSING, self.transport.get_write_buffer_size() // PROGRESS_BYTES
        if self._is_output_ended:
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

    def connection_lost(self, exc: Exception | None) -> None:
        """End the requests of the connection: notify the running one, and discard the pipelined ones.

        uvicorn notifies only the latest request. If the running request is not notified, it writes to the closed
        transport, which raises an error.
        """
        self._disconnect_running()
        for cycle, _ in self.pipeline:
            cycle.on_response = _ignore  # breaks a reference cycle
        self.pipeline.clear()
        super().connection_lost(exc)
        self._held = None
        if self._connection is not None:
            self.config.open_connections.remove(self._connection)
        self._release()

    def _release(self) -> None:
        """Break the reference cycles, so that garbage collections, which stop the event loop, are rarely needed."""
        self.flow.release()
        self._running = None
        self.parser = None  # type: ignore[assignment]  # as uvicorn does for a lost connection
        self._connection = None

    def _disconnect_running(self) -> None:
        """Notify the running request that the client has disconnected; the rest of its response is dropped."""
        cycle = self._running
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def resume_writing(self) -> None:  # noqa: D102
        self._resumes += 1
        super().resume_writing()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._held is not None:  # reading is paused, but the event loop may still deliver data
            self._held = memoryview(b"".join((self._held, data)))
        elif len(data) <= _SLICE_BYTES and self.config.open_connections.turnstile.try_enter():
            self._parse(data)
        else:
            self._held = memoryview(data)
            self.flow.is_held = True
            self.transport.pause_reading()
            self._schedule()

    def _parse_slice(self) -> None:
        """Parse the next slice of held data, unless uvicorn has paused reading, and schedule the following slice."""
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
            self._discarded_bytes += len(self._held)  # empty, except after a refusal
            self._held = None
            self.flow.is_held = False
            if not self.flow.read_paused:
                self.transport.resume_reading()

    def _schedule(self) -> None:
        if not self._is_scheduled and self._connection is not None:
            self._is_scheduled = True
            address = self._connection.address or ""  # empty for all clients behind a trusted proxy
            self.config.open_connections.turnstile.enter_later(address, self._parse_slice)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse received data. It replaces uvicorn's `data_received`, which logs each malformed request."""
        if self._is_refused or (self._part == _Part.BODY and self.cycle is not None and self.cycle.response_complete):
            self._discarded_bytes += len(data)
            if self._discarded_bytes > DISCARDED_BYTES:
                self.transport.close()
                return
        if self._is_refused or self.parser is None:
            return
        self._slice = data
        self._received_bytes = self._head_bytes + len(data)
        body_cycle = self.cycle if self._part == _Part.BODY else None
        self._content_bytes = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(*describe_parser_error(error, data))
            return
        finally:
            self._slice = b""  # an idle connection keeps no received data in memory
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
            detail = f"send chunk extensions and trailers of at most {_FRAMING_BYTES // 1024} KiB"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _upgrade(self, rest: bytes | memoryview) -> None:
        """Upgrade to a WebSocket, or parse the request again without its upgrade, and then the rest of the data.

        A server may ignore an upgrade (RFC 9110, 7.8), but the parser cannot. For the parser, the request ends with its
        head, and the body belongs to the other protocol.
        """
        if not self._is_upgrade_ignored:
            self.handle_websocket_upgrade()
            return
        request = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self._is_upgrade_ignored = False
        self._head_bytes = 0
        self.parser = _new_parser(self)
        self._parse(b"\r\n".join((request, *fields, b"", rest)))

    def _should_upgrade(self) -> bool:
        """Return whether the request upgrades to a WebSocket, and to nothing else. All other upgrades are ignored."""
        return (
            [value.lower() for name, value in self.headers if name == b"upgrade"] == [b"websocket"]
            and self.parser.get_http_version() != _HTTP_1_0
            and self._should_upgrade_to_ws()
        )

    def _should_upgrade_to_ws(self) -> bool:
        return self._connection is not None and not self._connection.is_reserve and super()._should_upgrade_to_ws()

    def handle_websocket_upgrade(self) -> None:  # noqa: D102
        if self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete):
            # An earlier response is not complete, or not sent: the WebSocket would write into it.
            detail = "open the WebSocket on another connection, or after the client has read all earlier responses"
            self._refuse(HTTPStatus.BAD_REQUEST, detail)
            return
        self._is_upgraded = True
        self.ws_protocol_class = partial(BoundedWebSocketProtocol, connection=self._connection)  # type: ignore[assignment]
        super().handle_websocket_upgrade()
        self._release()

    def on_message_begin(self) -> None:  # noqa: D102
        super().on_message_begin()
        self._part = _Part.HEAD
        self._host_fields = 0
        self._body_parts = 0

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._part == _Part.BODY:  # trailers are dropped: no code reads them
            self.on_chunk_header()
            return
        if len(self.headers) >= _HEAD_FIELDS:
            self._refuse_head()
            raise _RefusedError
        name, value = name.lower(), value.rstrip(b" \t")  # white space after a value is not part of it (RFC 9112, 5.1)
        if name in _CHECKED_FIELDS:
            self._check_field(name, value)
        self.headers.append((name, value))

    def _check_field(self, name: bytes, value: bytes) -> None:
        """Check a field that decides how the request is read."""
        if name == b"host":
            self._host_fields += 1
            if self._host_fields > 1:
                self._refuse(HTTPStatus.BAD_REQUEST, "send one Host field: this request has several")
                raise _RefusedError
            if value != self._valid_host:
                if not is_valid_host(value):
                    self._refuse(HTTPStatus.BAD_REQUEST, "send a Host field with a host, or with a host and a port")
                    raise _RefusedError
                self._valid_host = value
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                self._refuse(
                    HTTPStatus.NOT_IMPLEMENTED,
                    "send the body with Content-Length, or with Transfer-Encoding: chunked alone",
                )
                raise _RefusedError
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:  # noqa: D102
        version = self.parser.get_http_version()
        if version not in _VERSIONS or self._is_rtsp():
            self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, OTHER_VERSION)
            raise _RefusedError
        if self.parser.get_method() == b"SOURCE":  # the only method of the protocol ICE, which the parser accepts
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "send another method: this server does not know SOURCE")
            raise _RefusedError
        if self._received_bytes > _HEAD_BYTES and self._head_size() > _HEAD_BYTES:
            self._refuse_head()
            raise _RefusedError
        if b"#" in self.url:
            self._refuse(HTTPStatus.BAD_REQUEST, "send the path without a fragment: remove # and all that follows it")
            raise _RefusedError
        if not self._host_fields and version != _HTTP_1_0:
            self._refuse(HTTPStatus.BAD_REQUEST, "send a Host field: it is required in HTTP/1.1")
            raise _RefusedError
        if len(self.pipeline) >= _PIPELINED_REQUESTS:
            detail = f"send at most {_PIPELINED_REQUESTS} requests ahead: read a response before each further request"
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, detail)
            raise _RefusedError
        if self.parser.should_upgrade() and not self._should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refuse(
                    HTTPStatus.NOT_IMPLEMENTED, "this server is no proxy: send the request itself, without CONNECT"
                )
                raise _RefusedError
            self._is_upgrade_ignored = True
            return
        self._part = _Part.BODY
        self._head_bytes = 0
        self._framing_bytes = 0
        self._discarded_bytes = 0
        super().on_headers_complete()
        if not self.pipeline:  # the request runs now
            self._running = self.cycle

    def _is_rtsp(self) -> bool:
        """Return whether the request is in RTSP, which the parser accepts and reports as HTTP.

        A first line that arrives in pieces is not recognized: the request is executed as HTTP. A body may have the same
        line, so the line of the request is looked for with both names.
        """
        data = bytes(self._slice)
        if self._head_bytes or b" RTSP/" not in data:
            return False
        names = set(re.findall(rb"%b +%b +([A-Z]+)/" % (self.parser.get_method(), re.escape(self.url)), data))
        return b"RTSP" in names and b"HTTP" not in names

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
        if not self._is_upgrade_ignored:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next pipelined request. Unlike uvicorn's method, it sets no timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse_head(self) -> None:
        detail = f"send a shorter head: at most {_HEAD_BYTES // 1024} KiB, with at most {_HEAD_FIELDS} fields"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Send an error response, and end the connection. Nothing that follows the refused data is parsed.

        The requests that were complete before the refused data are executed, and the error response follows theirs. An
        incomplete request is not executed further. If its response has started, the response is cut off.
        """
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        metrics.REQUESTS_REFUSED.labels(status.value).inc()
        body = f"{detail}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\n"
            f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        if self._part == _Part.BODY and self.pipeline:  # the incomplete request waits for others
            self._drop_latest()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._end_output(head.encode() + body)
        elif self._part != _Part.BODY:
            cycle.on_response = partial(self._end_after_response, head.encode() + body)
        else:
            cycle.disconnected = True  # the app's response is dropped
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
            else:
                self._end_output(head.encode() + body)

    def _drop_latest(self) -> None:
        """Drop the latest request, which has not started."""
        cycle, _ = self.pipeline.popleft()
        cycle.on_response = _ignore  # breaks a reference cycle
        self._part = _Part.NEXT
        self.cycle = self.pipeline[0][0] if self.pipeline else self._running  # type: ignore[assignment]  # it runs

    def _end_after_response(self, refusal: bytes) -> None:
        """Complete the last response as usual, and send the refusal of the data behind its request."""
        self.on_response_complete()
        if not self.transport.is_closing():
            self._end_output(refusal)

    def _end_output(self, refusal: bytes) -> None:
        self._is_output_ended = True
        self.transport.write(refusal)
        self.transport.write_eof()


def _new_parser(protocol: HttpToolsProtocol) -> httptools.HttpRequestParser:
    """Return a parser with uvicorn's option: it also parses requests that follow one with `Connection: close`."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _ignore() -> None:
    """Callback of a request that never runs."""


class _RefusedError(Exception):
    """Stops the parser."""
