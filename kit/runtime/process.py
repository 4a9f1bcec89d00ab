"""A process from its start to its orderly end."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
import uvloop

from kit.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

_END_SECONDS: Final = 8.0
"""How long a process may take to stop. Docker kills it after ten."""
_STOP_SECONDS: Final = 5.0
"""How long a background task may take to end in order."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Runs a service on uvloop until SIGTERM or SIGINT.

    Args:
        main: serves until the event is set, then stops in order and returns. If that takes longer than eight seconds,
            because something that it waits for is frozen, the process ends all the same: what it leaves is taken up by
            the next one, as after kill -9.
    """

    async def supervised() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        serving, told = asyncio.create_task(main(stop)), asyncio.create_task(stop.wait())
        await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not (await asyncio.wait({serving}, timeout=_END_SECONDS))[0]:
            log.warning("ends before all has stopped", seconds=_END_SECONDS)
            os._exit(0)
        await serving
        log.info("stopped")

    # What is loaded by now stays, and a call makes many objects and few cycles: the collector need not look so often.
    # At its defaults it took a fifth of the time of a batch of transfers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    uvloop.run(supervised())


@asynccontextmanager
async def background_task(task: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Runs a task beside the body, for as long as the body. A task that fails takes the body down with it: a process
    without one of its parts is not half alive, it is restarted.
    """
    body = asyncio.current_task()
    assert body is not None  # noqa: S101  for the type checker: a coroutine always runs in a task

    def on_done(done: asyncio.Task[None]) -> None:
        if done.cancelled():  # and not by us: see `forever`
            log.error("background task was cancelled from within", task=name)
            body.cancel()
        elif done.exception() is not None:
            log.error("background task failed", task=name, exc_info=done.exception())
            body.cancel()

    running = asyncio.create_task(task, name=name)
    running.add_done_callback(on_done)
    try:
        yield
    finally:
        running.remove_done_callback(on_done)
        running.cancel()
        # A library may swallow a cancellation (asyncio.wait_for does, before Python 3.12): then it needs another.
        while not (await asyncio.wait({running}, timeout=_STOP_SECONDS))[0]:
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def run_with_restarts(
    step: Callable[[], Awaitable[None]],
    *,
    name: str,
    first_pause: float,
    longest_pause: float,
    unless: type[Exception] | tuple[type[Exception], ...] = (),
) -> None:
    """Runs a step that is meant never to return, again and again: what it fails with is logged, and after a pause that
    grows with each failure (`Backoff`) and starts anew after a quiet minute, it is tried again. Only cancellation ends
    it, and the errors in `unless`, which are raised.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    backoff = Backoff(first_pause, longest_pause)
    while True:
        started = loop.time()
        failure = ""
        try:
            await step()
        except unless:
            raise
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this task: the step let out the end of a task of its own, as aiokafka does when its group
            # is lost. Without this, the part would be gone and nobody told.
            failure = "cancelled from within"
        except Exception as error:  # noqa: BLE001  the loop is what brings the part back, whatever took it away
            failure = f"{type(error).__name__}: {error}"
        if loop.time() - started > 60:  # noqa: PLR2004  a quiet minute
            backoff.reset()
        pause = backoff.pause()
        if failure:
            log.warning("will try again", task=name, pause_seconds=round(pause, 2), error=failure)
        await asyncio.sleep(pause)
