"""Start and stop of a process, background tasks and restarts."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest

from kit.runtime import process


class TaskFailed(Exception):
    pass


class TestBackgroundTask:
    async def test_task_runs_beside_the_block_and_ends_with_it(self) -> None:
        running, ended = asyncio.Event(), asyncio.Event()

        async def part() -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with process.background_task(part(), "part"):
            await running.wait()
        assert ended.is_set()

    async def test_failed_task_ends_the_block(self) -> None:
        async def part() -> None:
            raise TaskFailed

        async def whole() -> None:
            async with process.background_task(part(), "part"):
                await asyncio.Event().wait()

        with pytest.raises(TaskFailed):
            await asyncio.create_task(whole())

    async def test_finished_task_does_not_end_the_block(self) -> None:
        done = asyncio.Event()

        async def part() -> None:
            done.set()

        async with process.background_task(part(), "part"):
            await done.wait()
            await asyncio.sleep(0)

    async def test_task_cancelled_from_within_ends_the_block(self) -> None:
        async def part() -> None:
            raise asyncio.CancelledError

        async def whole() -> None:
            async with process.background_task(part(), "part"):
                await asyncio.Event().wait()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(whole())

    async def test_task_that_swallows_a_cancellation_is_cancelled_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process, "_TASK_STOP_TIMEOUT_SECONDS", 0.05)
        running = asyncio.Event()

        async def part() -> None:
            running.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

        async with asyncio.timeout(5), process.background_task(part(), "part"):
            await running.wait()

    async def test_error_of_the_block_is_raised(self) -> None:
        async def whole() -> None:
            async with process.background_task(asyncio.Event().wait(), "part"):  # type: ignore[arg-type]  # its result is not used
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await whole()

    async def test_cancelled_block_cancels_the_task(self) -> None:
        running, ended = asyncio.Event(), asyncio.Event()

        async def part() -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def whole() -> None:
            async with process.background_task(part(), "part"):
                await asyncio.Event().wait()

        task = asyncio.create_task(whole())
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


class TestRunWithRestarts:
    async def test_failed_step_runs_again(self) -> None:
        attempts = 0
        enough = asyncio.Event()

        async def step() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 5:
                enough.set()
                await asyncio.Event().wait()
            raise TaskFailed

        stepping = process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        async with asyncio.timeout(5), process.background_task(stepping, "step"):
            await enough.wait()
        assert attempts == 5

    async def test_returned_step_runs_again(self) -> None:
        steps = asyncio.Semaphore(0)

        async def step() -> None:
            steps.release()

        stepping = process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        async with asyncio.timeout(5), process.background_task(stepping, "step"):
            for _ in range(3):
                await steps.acquire()

    async def test_delays_double_and_restart_after_a_healthy_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        this = asyncio.current_task()
        pauses: list[float] = []
        moments = iter([0, 0] * 4 + [0, 61] + [0, 0] * 2)

        async def step() -> None:
            raise TaskFailed

        async def record_pause(seconds: float) -> None:
            if asyncio.current_task() is not this:  # the caller is a task that does not belong to this test
                return await asyncio.sleep(seconds)
            pauses.append(seconds)
            return await asyncio.sleep(0)

        class Loop:
            def time(self) -> float:
                return next(moments)

        # Replaces the clock of the module under test only, not of other tasks on this loop.
        stand_in = SimpleNamespace(**vars(asyncio) | {"sleep": record_pause, "get_running_loop": Loop})
        monkeypatch.setattr(process, "asyncio", stand_in)
        with pytest.raises(RuntimeError):  # Python raises it in place of the StopIteration of `moments`
            await process.run_with_restarts(step, name="step", first_delay_seconds=1, longest_delay_seconds=5)
        bounds = [1, 2, 4, 5, 1, 2, 4]
        assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
        assert pauses != bounds  # with jitter

    async def test_fatal_error_ends_the_loop(self) -> None:
        async def step() -> None:
            raise TaskFailed

        with pytest.raises(TaskFailed):
            await process.run_with_restarts(
                step, name="step", first_delay_seconds=0, longest_delay_seconds=0, fatal=(TaskFailed,)
            )

    async def test_cancellation_from_within_counts_as_a_failure(self) -> None:
        attempts = 0
        enough = asyncio.Event()

        async def step() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                enough.set()
                await asyncio.Event().wait()
            raise asyncio.CancelledError  # a library cancelled its own task and raised the cancellation

        stepping = process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        async with asyncio.timeout(5), process.background_task(stepping, "step"):
            await enough.wait()

    async def test_cancellation_ends_the_loop(self) -> None:
        running = asyncio.Event()

        async def step() -> None:
            running.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(
            process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        )
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


_SERVICE = """
import asyncio
import logging
import structlog
from kit.runtime import process

async def fail():
    raise RuntimeError("a part failed")

async def main(stop):
    print("running", flush=True)
    await stop.wait()
    print("stopping in order", flush=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

async def stuck(stop):
    print("running", flush=True)
    await stop.wait()
    process._STOP_TIMEOUT_SECONDS = 0.1
    while True:
        await asyncio.sleep(1)

async def broken(stop):
    async with process.background_task(fail(), "part"):
        await stop.wait()
"""


@pytest.fixture
def start_service() -> Callable[[str], subprocess.Popen[str]]:
    def start_service(main: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", f"{_SERVICE}\nprocess.run({main})"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return start_service


class TestRun:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_stops_the_service_gracefully(
        self, start_service: Callable[[str], subprocess.Popen[str]], number: signal.Signals
    ) -> None:
        with start_service("main") as service:
            assert service.stdout is not None
            assert service.stdout.readline() == "running\n"
            service.send_signal(number)
            output, errors = service.communicate(timeout=10)
        assert (service.returncode, output) == (0, "stopping in order\n"), errors

    def test_process_exits_when_the_stop_times_out(self, start_service: Callable[[str], subprocess.Popen[str]]) -> None:
        with start_service("stuck") as service:
            assert service.stdout is not None
            assert service.stdout.readline() == "running\n"
            service.send_signal(signal.SIGTERM)
            output, _ = service.communicate(timeout=10)
        assert service.returncode == 0
        assert "stop timed out" in output

    def test_failed_background_task_fails_the_process(
        self, start_service: Callable[[str], subprocess.Popen[str]]
    ) -> None:
        with start_service("broken") as service:
            _, errors = service.communicate(timeout=10)
        assert service.returncode == 1
        assert errors.rstrip().endswith("RuntimeError: a part failed")
