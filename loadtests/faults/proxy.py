"""A wire that can be cut."""

import asyncio
from contextlib import suppress
from typing import Final, Self

from stack.ports import HOST

_CHUNK: Final = 1 << 16


class Proxy:
    """Hands bytes on from one loopback port to another one. Listens inside `async with`.

    Whoever is behind it may come and go: while nobody is there, connections are closed as soon as they are made.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.resume()
        self.cut()

    def cut(self) -> None:
        """Every connection is gone at once, whatever was on its way."""
        for writer in self._open:
            writer.transport.abort()

    def stall(self) -> None:
        """Connections stay, and nothing comes through any more, until `resume`: what a lost route looks like."""
        self._flows.clear()

    def resume(self) -> None:
        """What was held up goes on its way."""
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError):
                there, back = await asyncio.open_connection(HOST, self._target)
                self._open.add(back)
                try:
                    await asyncio.gather(self._flow(reader, back), self._flow(there, writer))
                finally:
                    self._open.discard(back)
                    back.transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
