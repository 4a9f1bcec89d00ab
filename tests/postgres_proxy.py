"""Proxy in front of PostgreSQL that counts the CancelRequests (requests to cancel a statement) that it forwards."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_CANCEL_REQUEST = struct.pack("!ii", 16, 80_877_102)  # the first bytes of a connection that cancels a statement


class CancelRecorder:
    """TCP proxy. `cancel_requests` is the number of CancelRequests that it has forwarded so far."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.cancel_requests = 0

    def url(self, url: str) -> str:
        """Return the URL of a database with the proxy in place of the server."""
        return url.replace(f":{self._target}/", f":{self.port}/")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(2**16):
                    self.cancel_requests += source is reader and data.startswith(_CANCEL_REQUEST)
                    target.write(data)
            target.close()

        await asyncio.gather(forward(reader, server_writer), forward(server_reader, writer))


@asynccontextmanager
async def record_cancel_requests(url: str) -> AsyncIterator[CancelRecorder]:
    """Run a proxy in front of the server of a database URL."""
    port = urlsplit(url).port
    assert port is not None
    recorder = CancelRecorder(port)
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    recorder.port = server.sockets[0].getsockname()[1]
    async with server:
        yield recorder
