"""Body time-out and client disconnect: both cancel the request, and with it its calls to the services."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WATCH_DELAY_SECONDS: Final = 0.05
"""The watchers start after this time, because most requests finish sooner."""


class BodyTimeoutError(Exception):
    """The request body did not arrive in time. No response was started."""


async def run_with_timeouts(app: ASGIApp, scope: Scope, receive: Receive, send: Send, timeout_seconds: float) -> None:
    """Run the app until it returns, the client disconnects or the body time-out passes.

    A disconnect cancels the app, even while it reads the body, so the app never gets an incomplete body or an error of
    the connection. The request then ends without a response and is recorded as closed by its client.

    Args:
        app: ASGI app.
        scope: ASGI scope of an HTTP request.
        receive: ASGI receive.
        send: ASGI send.
        timeout_seconds: maximum time until the last byte of the body. The response has no time limit here.

    Raises:
        BodyTimeoutError: the body did not arrive in time.
    """
    try:
        async with asyncio.timeout(None) as timeout:
            watcher = _Watcher(receive, timeout, timeout_seconds, has_body=scope["method"] not in {"GET", "HEAD"})
            try:
                await app(scope, watcher.receive, send)
            finally:
                watcher.stop()
    except TimeoutError:
        if not timeout.expired():
            raise
        if not watcher.is_disconnected:
            raise BodyTimeoutError from None


class _Watcher:
    """Expires the time-out if the body is late, or if the client disconnects.

    ASGI reports a disconnect only to a pending `receive`, so after the body this class keeps receiving.
    """

    def __init__(self, receive: Receive, timeout: asyncio.Timeout, timeout_seconds: float, *, has_body: bool) -> None:
        self._receive = receive
        self._timeout = timeout
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._is_body_complete = not has_body  # the body of a GET is never read
        self._is_watching = False
        self._timer = self._loop.call_later(min(_WATCH_DELAY_SECONDS, timeout_seconds), self._watch)
        self._listener: asyncio.Task[None] | None = None
        self.is_disconnected = False

    async def receive(self) -> Message:
        """ASGI receive that detects the end of the body. After a disconnect within the body, it never returns."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_body_complete:
            self._cancel_request()
            await asyncio.Event().wait()
        if not self._is_body_complete and not message.get("more_body", False):
            self._is_body_complete = True
            if self._is_watching:
                self._watch()
        return message

    def stop(self) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def _watch(self) -> None:
        """Limit the time of the body or, after the body, watch for a disconnect.

        The timer calls it first. If the body is then incomplete, it is called again at the end of the body.
        """
        self._is_watching = True
        if self._is_body_complete:
            self._timeout.reschedule(None)
            self._listener = self._loop.create_task(self._wait_for_disconnect())
        else:
            remaining = max(0.0, self._timeout_seconds - _WATCH_DELAY_SECONDS)
            self._timeout.reschedule(self._loop.time() + remaining)

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel_request()

    def _cancel_request(self) -> None:
        self.is_disconnected = True
        self._timer.cancel()  # it may be due in this turn of the loop, and would set the body time-out again
        self._timeout.reschedule(self._loop.time())
