"""gRPC channel that switches to a new certificate without failed calls."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

import grpc
import structlog

from kit.rpc.grpc_internals import ChannelStandIn, MethodStandIn
from kit.rpc.tls import TLS, CertificateBundle
from kit.runtime.process import background_task

log = structlog.get_logger(__name__)

_CHECK_INTERVAL_SECONDS: Final = 1.0
_CONNECT_TIMEOUT_SECONDS: Final = 10.0

Call = TypeVar("Call", bound=grpc.aio.Call)


@asynccontextmanager
async def rotating_channel(
    tls: TLS, connect: Callable[[CertificateBundle], grpc.aio.Channel]
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel that uses new certificate files within seconds, without a failed call.

    The channel opens a connection with the new certificate, while the old connection carries all calls. As soon as the
    new connection is ready, it carries all new calls, and the old connection is closed after its last call.

    Args:
        tls: certificate files.
        connect: returns a channel with the given certificates.
    """
    rotation = _Rotation(tls, connect)
    try:
        async with background_task(rotation.run(), "certificate"):
            yield ChannelStandIn(rotation.build_method).as_channel()
    finally:
        await rotation.close()


class _CountedChannel:
    """gRPC channel with the number of its running calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._calls = 0
        self._idle = asyncio.Event()

    def count(self, call: Call) -> Call:
        self._calls += 1
        call.add_done_callback(self._on_done)
        return call

    def _on_done(self, _: Any) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def close_when_idle(self) -> None:
        """Close the channel after its last call, or at once when cancelled. No new call may start."""
        try:
            if self._calls:
                self._idle.clear()
                await self._idle.wait()
        finally:
            await self.channel.close()


class _RotatingMethod(MethodStandIn):
    """Method of a stub that calls the current channel."""

    def __init__(self, create: Callable[[grpc.aio.Channel], Any], channel: _CountedChannel) -> None:
        super().__init__(create(channel.channel))
        self._create = create
        self._channel = channel

    def use(self, channel: _CountedChannel) -> None:
        self._channel, self.target = channel, self._create(channel.channel)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._channel.count(self.target(*arguments, **options))


class _Rotation:
    """Current channel, and the methods that call it."""

    def __init__(self, tls: TLS, connect: Callable[[CertificateBundle], grpc.aio.Channel]) -> None:
        self._tls = tls
        self._connect = connect
        self._bundle = tls.current_bundle()
        self._channel = _CountedChannel(connect(self._bundle))
        self._methods: list[_RotatingMethod] = []

    def build_method(self, create: Callable[[grpc.aio.Channel], Any]) -> _RotatingMethod:
        self._methods.append(_RotatingMethod(create, self._channel))
        return self._methods[-1]

    async def run(self) -> None:
        """Switch to new certificate files, until cancelled."""
        async with asyncio.TaskGroup() as closing:
            while True:
                await asyncio.sleep(_CHECK_INTERVAL_SECONDS)
                bundle = self._tls.current_bundle()
                if bundle == self._bundle:
                    continue
                new = await self._connect_with(bundle)
                if new is not None:
                    closing.create_task(self._channel.close_when_idle())
                    self._bundle, self._channel = bundle, new
                    for method in self._methods:
                        method.use(new)

    async def close(self) -> None:
        await self._channel.channel.close()

    async def _connect_with(self, bundle: CertificateBundle) -> _CountedChannel | None:
        """Return a new channel as soon as it is ready; None after the time-out."""
        async with AsyncExitStack() as close_on_failure:
            channel = await close_on_failure.enter_async_context(self._connect(bundle))
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
                    await channel.channel_ready()
            except TimeoutError:
                log.warning("no connection with the new certificate yet, the previous one stays in use")
                return None
            close_on_failure.pop_all()
            return _CountedChannel(channel)
