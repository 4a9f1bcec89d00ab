"""HTTP/1.1 and WebSockets on a process's own loop, as uvicorn speaks them, with bounds on what comes before a request's
body and on how long is waited for who does not read.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = structlog.get_logger(__name__)

_GRACE_SECONDS: Final = 5
_HEAD_BYTES: Final = 32 * 1024
_HEAD_TIMEOUT_SECONDS: Final = 10.0
_LINGER_SECONDS: Final = 1.0
_WRITE_TIMEOUT_SECONDS: Final = 60.0


@contextlib.asynccontextmanager
async def http_server(
    app: Any, listen: str, *, trusted_proxies: Sequence[str] = (), **options: Any
) -> AsyncIterator[None]:
    """Serves the app from entry until exit; running requests have some seconds to finish.

    Args:
        app: ASGI.
        listen: `host:port`.
        trusted_proxies: the addresses or networks of those who are believed when they say for whom they ask.
        options: of uvicorn.

    Raises:
        OSError: the port is in use.
    """
    host, _, port = listen.rpartition(":")
    config = uvicorn.Config(
        app,
        host,
        int(port),
        http=BoundedHttpProtocol,
        ws=BoundedWebSocketProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),  # or each request would be looked through for nobody
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **options,
    )
    server = _Server(config)
    # Not uvicorn's own: on a port in use it ends the process.
    with socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # Connections inherit it. uvloop sets it on each; asyncio only where the listener names its protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            log.info("serving HTTP", listen=listen)
            yield
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Signals belong to `kit.runtime.process`, which stops the whole process in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


class _WriteTimeoutMixin(asyncio.Protocol):
    """Lets a connection go whose other end reads nothing, or next to nothing, for a minute: uvicorn would close it
    politely, once all is read, and keep what is written to it until then.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _unread: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(_WRITE_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class BoundedWebSocketProtocol(_WriteTimeoutMixin, WebSocketsSansIOProtocol):
    """uvicorn's own, which by itself waits without end for who does not read."""


class BoundedHttpProtocol(_WriteTimeoutMixin, HttpToolsProtocol):
    """uvicorn's own, which by itself takes a request's head however large it is, and waits for it however long that
    takes; and for who does not read. Who sends more than 32 KiB is answered with 431, who takes longer than ten seconds
    with 408; and both are let go.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes: int | None = None  # so far, of one that is not complete
        self._bytes = 0  # of it, or of it and more that came with it
        self._due: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102  as uvicorn's
        super().connection_made(transport)
        self._head_bytes = 0
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._is_refused:
            return
        self._bytes = len(data) + (self._head_bytes or 0)
        super().data_received(data)
        if self._head_bytes is not None:  # there is more to come, which there seldom is
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif self._due is None:
                self._wait_for_head()

    def on_message_begin(self) -> None:  # noqa: D102
        super().on_message_begin()
        if self._head_bytes is None:
            self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._head_bytes is not None:  # what follows a body are trailers: nobody reads them, so nobody keeps them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        self._end_head()
        if self._bytes > _HEAD_BYTES and self._size() > _HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            raise _HeadTooLargeError  # so that the parser looks at nothing more
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: D102
        self._end_head()
        if not self._is_refused:
            super().send_400_response(msg)

    def _size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _wait_for_head(self) -> None:
        self._due = self.loop.call_later(_HEAD_TIMEOUT_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _end_head(self) -> None:
        self._head_bytes = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._end_head()
        self._is_refused = True
        if self.cycle is not None and not self.cycle.response_complete:  # of a request before this one
            self.transport.close()
            return
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        self.transport.write(head.encode())
        self.transport.write_eof()
        # Closed while the caller still sends, it would be reset, and the answer lost.
        self._due = self.loop.call_later(_LINGER_SECONDS, self.transport.close)


class _HeadTooLargeError(Exception):
    pass
