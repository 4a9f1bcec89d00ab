"""Body time-out and client disconnect: both cancel the request, and with it its calls to the services."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wallet.errors import WalletError

_TICK_SECONDS: Final = 0.05
"""Interval of the common timer. Most requests end before its second tick after their start, and need no other timer."""


class BodyTimeoutError(Exception):
    """The request body did not arrive in time. No response was started."""


class RequestTimeouts:
    """Cancels an HTTP request if its body is late or its client disconnects.

    One timer ticks for all requests of an event loop. A request is watched from the second tick after its start.

    Attributes:
        is_ticking: whether the timer runs. It stops when no request is left.
    """

    def __init__(self, timeout_seconds: float) -> None:
        """Args:
        timeout_seconds: maximum time from the start of the request to the last byte of its body. The response has no
            time limit here.
        """
        self._timeout_seconds = timeout_seconds
        self._new: set[_Request] = set()  # started since the last tick
        self._old: set[_Request] = set()  # started before the last tick, and not watched yet
        self.is_ticking = False

    async def run(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, before_work: Callable[[], Awaitable[object]]
    ) -> None:
        """Run the app until it returns, the client disconnects or the body time-out passes.

        A disconnect cancels the app, even while it reads the body, so the app never gets an incomplete body or an error
        of the connection. The request then ends without a response and is recorded as closed by its client.

        Args:
            app: ASGI app.
            scope: ASGI scope of an HTTP request.
            receive: ASGI receive.
            send: ASGI send.
            before_work: called at the end of the body, or before the app for a request without one. Its `WalletError`
                ends the request.

        Raises:
            BodyTimeoutError: the body did not arrive in time.
            WalletError: an error of `before_work`.
        """
        has_body = scope["method"] not in {"GET", "HEAD"}  # the body of a GET is never read
        request = _Request(receive, self._timeout_seconds, before_work, is_body_complete=not has_body)
        self._new.add(request)
        if not self.is_ticking:
            self.is_ticking = True
            request.loop.call_later(min(_TICK_SECONDS, self._timeout_seconds), self._tick, request.loop)
        try:
            if not has_body:
                await before_work()
            await app(scope, request.receive, send)
        except asyncio.CancelledError:
            if not request.is_cancelled or request.task.cancelling() > 1:  # also cancelled by other code
                raise
            if request.refusal is not None:
                raise request.refusal from None
            if not request.is_disconnected:
                raise BodyTimeoutError from None
        finally:
            self._new.discard(request)
            self._old.discard(request)
            request.stop()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        for request in self._old:
            request.watch()
        self._old, self._new = self._new, set()
        self.is_ticking = bool(self._old)
        if self.is_ticking:
            loop.call_later(min(_TICK_SECONDS, self._timeout_seconds), self._tick, loop)


class _Request:
    """One running request. It is cancelled if its body is late, if its client disconnects, or if it is refused.

    ASGI reports a disconnect only to a pending `receive`, so this class calls `receive` again after the end of the
    body.
    """

    __slots__ = (
        "_before_work",
        "_is_body_complete",
        "_is_watched",
        "_listener",
        "_receive",
        "_timeout_at",
        "_timer",
        "is_cancelled",
        "is_disconnected",
        "loop",
        "refusal",
        "task",
    )

    def __init__(
        self,
        receive: Receive,
        timeout_seconds: float,
        before_work: Callable[[], Awaitable[object]],
        *,
        is_body_complete: bool,
    ) -> None:
        self.task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]  # ASGI apps run in tasks
        self.loop = self.task.get_loop()
        self.is_cancelled = False
        self.is_disconnected = False
        self.refusal: WalletError | None = None
        self._receive = receive
        self._before_work = before_work
        self._timeout_at = self.loop.time() + timeout_seconds
        self._is_body_complete = is_body_complete
        self._is_watched = False
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """ASGI receive that detects the end of the body.

        If the client disconnects before the end, or the request is refused at the end, this call cancels the task.
        """
        message = await self._receive()
        if not self._is_body_complete:
            if message["type"] == "http.disconnect":
                self._disconnect()
                await asyncio.Event().wait()
            if not message.get("more_body", False):
                self._is_body_complete = True
                if self._is_watched:
                    self.watch()
                try:
                    await self._before_work()
                except WalletError as error:
                    self.refusal = error
                    self._cancel()
                    await asyncio.Event().wait()
        return message

    def watch(self) -> None:
        """Start the time-out of the body or, if the body is complete, wait for a disconnect.

        If the body is incomplete, `receive` calls this method again at the end of the body.
        """
        self._is_watched = True
        if self.is_cancelled:
            return
        if self._is_body_complete:
            self._stop_timer()
            self._listener = self.loop.create_task(self._wait_for_disconnect())
        else:
            self._timer = self.loop.call_at(self._timeout_at, self._cancel)

    def stop(self) -> None:
        """End the watch. Call it in the request's task."""
        if self._is_watched:
            self._stop_timer()
            if self._listener is not None:
                self._listener.cancel()
        if self.is_cancelled:
            self.task.uncancel()

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._disconnect()

    def _disconnect(self) -> None:
        self.is_disconnected = True
        self._stop_timer()
        self._cancel()

    def _cancel(self) -> None:
        if not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
