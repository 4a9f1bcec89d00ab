"""A channel whose certificate changes while calls are made on it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar, cast

import grpc
import structlog

from kit.rpc.tls import TLS, CertificateBundle
from kit.runtime.process import background_task

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 1.0
_READY_SECONDS: Final = 10.0

OneCall = TypeVar("OneCall", bound=grpc.aio.Call)


@asynccontextmanager
async def rotating_channel(
    tls: TLS, connect: Callable[[CertificateBundle], grpc.aio.Channel]
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that takes up new files within seconds, without a failed call: it connects anew, makes calls there as
    soon as somebody answers, and hangs up where it was when the last call there has ended. While nobody answers, it
    goes on as it is.

    Args:
        tls: the files.
        connect: makes a channel with what they hold.
    """
    channel = _Rotating(tls, connect)
    try:
        async with background_task(channel.follow(), "certificate"):
            yield cast("grpc.aio.Channel", channel)
    finally:
        await channel.close()


class _Connections:
    """A channel of gRPC's, and how many calls it has."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._calls = 0
        self._idle = asyncio.Event()

    def begun(self, call: OneCall) -> OneCall:
        self._calls += 1
        call.add_done_callback(self._ended)
        return call

    def _ended(self, _: Any) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def hang_up(self) -> None:
        """When the last call has ended, or at once when cancelled. No other may begin meanwhile."""
        try:
            if self._calls:
                self._idle.clear()
                await self._idle.wait()
        finally:
            await self.channel.close()


class _Method:
    """One method of a stub, on whichever connections calls are made now."""

    def __init__(self, make: Callable[[grpc.aio.Channel], Any], connections: _Connections) -> None:
        self._make = make
        self.use(connections)

    def use(self, connections: _Connections) -> None:
        self._connections, self._callable = connections, self._make(connections.channel)
        self._method: bytes = self._callable._method  # noqa: SLF001  as gRPC's own has it, whom spans ask for the name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._connections.begun(self._callable(*arguments, **options))


class _Rotating:
    """What our stubs need of a channel: none of their calls has a stream of requests."""

    def __init__(self, tls: TLS, connect: Callable[[CertificateBundle], grpc.aio.Channel]) -> None:
        self._tls = tls
        self._connect = connect
        self._material = tls.current_bundle()
        self._connections = _Connections(connect(self._material))
        self._methods: list[_Method] = []

    def unary_unary(self, *arguments: Any, **options: Any) -> _Method:
        return self._method(lambda channel: channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> _Method:
        return self._method(lambda channel: channel.unary_stream(*arguments, **options))

    def _method(self, make: Callable[[grpc.aio.Channel], Any]) -> _Method:
        self._methods.append(_Method(make, self._connections))
        return self._methods[-1]

    async def follow(self) -> None:
        """Takes up new files, until it is cancelled."""
        async with asyncio.TaskGroup() as leaving:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                material = self._tls.current_bundle()
                if material == self._material:
                    continue
                new = await self._reach(material)
                if new is not None:
                    leaving.create_task(self._connections.hang_up())
                    self._material, self._connections = material, new
                    for method in self._methods:
                        method.use(new)

    async def close(self) -> None:
        await self._connections.channel.close()

    async def _reach(self, material: CertificateBundle) -> _Connections | None:
        """New connections, once somebody answers there."""
        async with AsyncExitStack() as unless_taken:
            channel = await unless_taken.enter_async_context(self._connect(material))
            try:
                async with asyncio.timeout(_READY_SECONDS):
                    await channel.channel_ready()
            except TimeoutError:
                log.warning("nobody has answered to the new certificate yet: the one before stays in use")
                return None
            unless_taken.pop_all()
            return _Connections(channel)
