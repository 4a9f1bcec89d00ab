"""Lifecycle of a process: start, background tasks, graceful shutdown."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final

import structlog
import uvloop

from kit.runtime.backoff import Backoff
from kit.telemetry.log_sink import flush_logs

log = structlog.get_logger(__name__)

_STOP_TIMEOUT_SECONDS: Final = 8.0
"""Maximum duration of a graceful shutdown. Docker kills a container after ten seconds."""
_TASK_STOP_TIMEOUT_SECONDS: Final = 5.0
"""Time after which a background task that still runs is cancelled again."""
_HEALTHY_SECONDS: Final = 60.0
"""Run time after which the backoff of a restarted task starts again."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a service on uvloop until SIGTERM or SIGINT.

    Args:
        main: serves until the event is set, then shuts down and returns. If the shutdown takes longer than eight
            seconds, the process exits anyway; the next process resumes the unfinished work, as after `kill -9`.
    """

    async def supervise() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        serving, stopping = asyncio.create_task(main(stop)), asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not (await asyncio.wait({serving}, timeout=_STOP_TIMEOUT_SECONDS))[0]:
            log.warning("stop timed out", seconds=_STOP_TIMEOUT_SECONDS)
            flush_logs()
            os._exit(0)
        await serving
        log.info("stopped")

    # Modules stay loaded, and a call allocates many objects but few cycles, so the garbage collector may run less often
    # than by default. With its default thresholds it took a fifth of the time of a batch of transfers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    uvloop.run(supervise())


@asynccontextmanager
async def background_task(task: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run a task while the block runs, and cancel it at the end of the block.

    A task that fails cancels the block: a process that lost one of its tasks is restarted as a whole.
    """
    body = asyncio.current_task()
    assert body is not None  # noqa: S101  for the type checker: a coroutine always runs in a task

    def on_done(done: asyncio.Task[None]) -> None:
        if done.cancelled():  # by the task itself, see `run_with_restarts`
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
        # A library may swallow a cancellation (asyncio.wait_for does, before Python 3.12), so cancel until it ends.
        while not (await asyncio.wait({running}, timeout=_TASK_STOP_TIMEOUT_SECONDS))[0]:
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def run_with_restarts(
    step: Callable[[], Awaitable[None]],
    *,
    name: str,
    first_delay_seconds: float = 0.1,
    longest_delay_seconds: float = 2.0,
    fatal: type[Exception] | tuple[type[Exception], ...] = (),
) -> None:
    """Run a step in an endless loop. A failure is logged, and the step runs again after a `Backoff` delay.

    Only a cancellation or a fatal error ends the loop. The backoff starts again after a step that ran for a minute.

    Args:
        step: usually never returns.
        name: name of the task in logs.
        first_delay_seconds: bound of the first delay.
        longest_delay_seconds: maximum of the delays.
        fatal: errors that are raised and end the loop.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    backoff = Backoff(first_delay_seconds, longest_delay_seconds)
    while True:
        started = loop.time()
        failure = ""
        try:
            await step()
        except fatal:
            raise
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            # This task was not cancelled from outside. The step raised the CancelledError of one of its own tasks, as
            # aiokafka does when its consumer group is lost. Without a restart, the task would end silently.
            failure = "cancelled from within"
        except Exception as error:  # noqa: BLE001  every failure leads to a restart
            failure = f"{type(error).__name__}: {error}"
        if loop.time() - started > _HEALTHY_SECONDS:
            backoff.reset()
        delay = backoff.next_delay()
        if failure:
            log.warning("background task restarts", task=name, pause_seconds=round(delay, 2), error=failure)
        await asyncio.sleep(delay)


@asynccontextmanager
async def restarting_tasks(steps: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Run the steps as background tasks with restarts while the block runs.

    Args:
        steps: endless steps by the names of their tasks.
    """
    async with AsyncExitStack() as stack:
        for name, step in steps.items():
            await stack.enter_async_context(background_task(run_with_restarts(step, name=name), name))
        yield
