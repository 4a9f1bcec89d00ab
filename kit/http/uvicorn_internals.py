"""Subclasses of uvicorn's server and protocols, which are not public API.

They limit the size and time of a request's head and the time of a blocked write.
`tests/unit/kit/http/test_uvicorn_internals.py` fails if uvicorn no longer has or calls an overridden method.
"""

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_HEAD_BYTES: Final = 32 * 1024
_HEAD_TIMEOUT_SECONDS: Final = 10.0
_WRITE_TIMEOUT_SECONDS: Final = 60.0
_LINGER_SECONDS: Final = 1.0


class ServerWithoutSignals(uvicorn.Server):
    """uvicorn's server without signal handlers: `kit.runtime.process` shuts down the whole process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle no signals."""
        yield


class _WriteTimeoutMixin(asyncio.Protocol):
    """Closes a connection if its peer reads (almost) nothing for a minute.

    uvicorn would keep the buffered response, and wait for the peer without a time-out.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _write_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(_WRITE_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_write_timer()
        super().connection_lost(exc)

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class BoundedWebSocketProtocol(_WriteTimeoutMixin, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with a write time-out."""


class BoundedHttpProtocol(_WriteTimeoutMixin, HttpToolsProtocol):
    """uvicorn's HTTP protocol with a write time-out and limits on a request's head, which uvicorn does not limit.

    A head of more than 32 KiB is answered with 431, and one that is incomplete after ten seconds with 408; then the
    connection is closed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes: int | None = None  # received bytes of an incomplete head
        self._received_bytes = 0  # since the start of the head, with data that arrived together with its end
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102  see uvicorn
        super().connection_made(transport)
        self._head_bytes = 0
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._is_refused:
            return
        self._received_bytes = len(data) + (self._head_bytes or 0)
        super().data_received(data)
        if self._head_bytes is not None:  # the head is still incomplete, which is rare
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif self._timer is None:
                self._start_head_timer()

    def on_message_begin(self) -> None:  # noqa: D102
        super().on_message_begin()
        if self._head_bytes is None:
            self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._head_bytes is not None:  # trailers, which follow a body, are dropped: no code reads them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        self._end_head()
        if self._received_bytes > _HEAD_BYTES and self._head_size() > _HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            raise _HeadTooLargeError  # stops the parser
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: D102
        self._end_head()
        if not self._is_refused:
            super().send_400_response(msg)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _start_head_timer(self) -> None:
        self._timer = self.loop.call_later(_HEAD_TIMEOUT_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _end_head(self) -> None:
        self._head_bytes = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._end_head()
        self._is_refused = True
        if self.cycle is not None and not self.cycle.response_complete:  # the previous request is not answered yet
            self.transport.close()
            return
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        self.transport.write(head.encode())
        self.transport.write_eof()
        # Closing while the client still sends would reset the connection, and the response would be lost.
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)


class _HeadTooLargeError(Exception):
    pass
