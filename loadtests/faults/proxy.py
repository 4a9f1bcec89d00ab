"""TCP proxy that can interrupt its connections."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from stack.ports import HOST

_CHUNK_BYTES: Final = 1 << 16


class Proxy:
    """TCP proxy between two loopback ports. Listens inside `async with`.

    The target may start and stop at any time. While the target does not listen, new connections are closed at once.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_forwarding = asyncio.Event()
        self._is_forwarding.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.resume()
        self.disconnect()
        await self._server.wait_closed()

    def disconnect(self) -> None:
        """Abort every connection at once. Data in transit is lost."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Keep the connections but forward nothing until `resume`, like a network partition."""
        self._is_forwarding.clear()

    def resume(self) -> None:
        """Forward the held data and continue."""
        self._is_forwarding.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._tracked(writer):
            try:
                target_reader, target_writer = await asyncio.open_connection(HOST, self._target)
                with self._tracked(target_writer):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._forward(reader, target_writer))
                        group.create_task(self._forward(target_reader, writer))
            except* OSError:
                pass  # the connection was reset, or the target does not listen

    @contextmanager
    def _tracked(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Let `disconnect` abort the connection during the block; abort it at the end of the block."""
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._is_forwarding.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
