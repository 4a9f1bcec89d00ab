"""HTTP server without sockets, on an event loop whose clock jumps to the next timer: a minute takes milliseconds."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.server import ServerState

from kit.http.connections import SWEEP_SECONDS, ConnectionLimits, Connections
from kit.http.uvicorn_internals.http_protocol import BoundedHttpProtocol
from kit.http.uvicorn_internals.server import BoundedConfig

App = Callable[[Any, Any, Any], Awaitable[None]]

_HIGH_WATER = 64 * 1024


class _JumpingSelector(selectors.SelectSelector):
    """Selector that never waits: it moves the loop's clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "the loop would wait forever"
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop with a clock that jumps."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class FakeTransport(asyncio.Transport):
    """Transport to a client that reads at once, or not at all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str = "192.0.2.1") -> None:
        super().__init__({"peername": (address, 4711), "sockname": ("192.0.2.9", 80)})
        self.loop = loop
        self.protocol: Any = None
        self.received = bytearray()  # data that the client has read
        self.buffer = bytearray()  # data that the client has not read yet
        self.most_buffered = 0
        self.is_client_reading = True
        self.is_open = True
        self.is_paused = False
        self.is_output_ended = False
        self._is_closing = False
        self._is_write_paused = False

    def write(self, data: Any) -> None:
        if not self.is_open or self.is_output_ended:
            raise RuntimeError("the transport is closed")  # as uvloop does
        if self._is_closing:
            return
        self.buffer += data
        self.most_buffered = max(self.most_buffered, len(self.buffer))
        if self.is_client_reading:
            self.loop.call_soon(self.flush)
        elif len(self.buffer) > _HIGH_WATER and not self._is_write_paused:
            self._is_write_paused = True
            self.protocol.pause_writing()

    def flush(self) -> None:
        """Let the client read all buffered data."""
        if not self.is_client_reading or not self.is_open:
            return
        self.received += self.buffer
        self.buffer.clear()
        if self._is_write_paused:
            self._is_write_paused = False
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose(None)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self.buffer:
                self.loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._is_closing = True
        self.loop.call_soon(self._lose, ConnectionAbortedError())

    def _lose(self, error: Exception | None) -> None:
        if self.is_open:
            self.is_open = False
            self.protocol.connection_lost(error)

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def write_eof(self) -> None:
        self.is_output_ended = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Client:
    """Client of one connection."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self._unsent = bytearray()

    @property
    def is_connected(self) -> bool:
        return self.transport.is_open

    @property
    def received(self) -> bytes:
        return bytes(self.transport.received)

    @property
    def unsent_bytes(self) -> int:
        """Number of sent bytes that the server has not read."""
        return len(self._unsent)

    def send(self, data: bytes) -> None:
        """Send data. The server receives the data as soon as it reads."""
        self._unsent += data
        self.deliver()

    def deliver(self) -> None:
        """Deliver the data that the server has not read, unless it has paused reading."""
        transport = self.transport
        while self._unsent and not transport.is_paused and not transport.is_closing():
            data = bytes(self._unsent[: 256 * 1024])
            del self._unsent[: len(data)]
            transport.protocol.data_received(data)

    async def read_until_closed(self, seconds: float = 300) -> bytes:
        """Return all that the server sends until it closes the connection."""
        await self.wait(seconds, until_closed=True)
        assert not self.is_connected, f"open after {seconds} s in {self.transport.protocol.stage()}"
        return self.received

    async def wait(self, seconds: float, *, until_closed: bool = False) -> None:
        """Let time pass, and deliver data when the server reads again."""
        end = self.transport.loop.time() + seconds
        while self.transport.loop.time() < end and not (until_closed and not self.is_connected):
            await asyncio.sleep(0.05)
            self.deliver()

    async def settle(self) -> None:
        """Let the server do all that it can do without waiting."""
        await self.wait(0.05)


class VirtualServer:
    """Server of an app on the running loop."""

    def __init__(self, app: App, limits: ConnectionLimits | None = None, reserve_app: App | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.connections = Connections("virtual:80", limits or ConnectionLimits())
        self.config = BoundedConfig(app, self.connections, reserve_app or app, log_config=None, lifespan="off")
        self.state = ServerState()
        self._sweep()

    def _sweep(self) -> None:
        self.connections.sweep(self.loop.time())
        self._timer = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def connect(self, address: str = "192.0.2.1") -> Client:
        """Connect a client from an address."""
        transport = FakeTransport(self.loop, address)
        transport.protocol = BoundedHttpProtocol(self.config, self.state, {}, self.loop)
        transport.protocol.connection_made(transport)
        return Client(transport)

    async def stop(self) -> None:
        """Close all connections, and cancel the app's tasks."""
        self._timer.cancel()
        self.connections.close()
        while self.state.tasks:
            for task in self.state.tasks:
                task.cancel()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def virtual_server(app: App, **options: Any) -> AsyncIterator[VirtualServer]:
    """Run a server while the block runs."""
    server = VirtualServer(app, **options)
    try:
        yield server
    finally:
        await server.stop()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a virtual loop."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()
