"""A wire that can be cut."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
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
        await self._server.wait_closed()

    def cut(self) -> None:
        """Every connection is gone at once, whatever was on its way."""
        for writer in tuple(self._open):
            writer.transport.abort()

    def stall(self) -> None:
        """Connections stay, and nothing comes through any more, until `resume`: what a lost route looks like."""
        self._flows.clear()

    def resume(self) -> None:
        """What was held up goes on its way."""
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._held(writer):
            try:
                there, back = await asyncio.open_connection(HOST, self._target)
                with self._held(back):
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._flow(reader, back))
                        both.create_task(self._flow(there, writer))
            except* OSError:
                pass  # it was cut, or nobody is there

    @contextmanager
    def _held(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """A connection that can be cut, and is gone afterwards."""
        self._open.add(writer)
        try:
            yield
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
