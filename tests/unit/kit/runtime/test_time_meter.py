"""The meter of a client's work counts the time of each step, and does not change how the work runs."""

import asyncio
import gc
from contextlib import suppress

import pytest

from kit.runtime import time_meter
from kit.runtime.time_meter import Measured, Meter


class Clock:
    """Clock that only the measured work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_meter, "time", clock)
    return clock


async def test_steps_are_counted_and_waiting_is_not(clock: Clock) -> None:
    meter, released = Meter(), asyncio.Event()

    async def work() -> str:
        clock.now += 1
        await released.wait()
        clock.now += 2
        return "done"

    task: asyncio.Task[str] = asyncio.create_task(Measured(work(), meter))
    await asyncio.sleep(0)
    assert meter.seconds == 1
    clock.now += 100
    released.set()
    assert await task == "done"
    assert meter.seconds == 3


async def test_time_is_counted_with_its_weight(clock: Clock) -> None:
    meter = Meter()

    async def work() -> None:
        clock.now += 2
        await asyncio.sleep(0)
        clock.now += 1

    await Measured(work(), meter, 8)
    assert meter.seconds == 24


async def test_error_of_the_work_is_raised_and_its_time_counted(clock: Clock) -> None:
    meter = Meter()

    async def work() -> None:
        await asyncio.sleep(0)
        clock.now += 5
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        await Measured(work(), meter)
    assert meter.seconds == 5


async def test_cancellation_reaches_the_work_which_may_handle_it(clock: Clock) -> None:
    meter, started = Meter(), asyncio.Event()

    async def work() -> str:
        started.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        clock.now += 7
        await asyncio.sleep(0)
        return "finished after the cancellation"

    async def run() -> str:
        return await Measured(work(), meter)

    task = asyncio.create_task(run())
    await started.wait()
    task.cancel()
    assert await task == "finished after the cancellation"
    assert meter.seconds == 7


async def test_closed_work_runs_its_finally_block() -> None:
    closed = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    step = Measured(work(), Meter())
    step.send(None)
    step.close()
    assert closed == [True]


async def test_task_that_is_cancelled_before_its_first_step_leaves_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    async def work() -> None:
        raise AssertionError

    task: asyncio.Task[None] = asyncio.create_task(Measured(work(), Meter()))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    assert not recwarn.list
