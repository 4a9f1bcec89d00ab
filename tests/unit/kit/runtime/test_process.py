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


class PartFailed(Exception):
    pass


class TestBackground:
    async def test_runs_beside_the_body_and_ends_with_it(self) -> None:
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

    async def test_a_part_that_fails_takes_the_body_down_with_its_own_error(self) -> None:
        async def part() -> None:
            raise PartFailed

        async def whole() -> None:
            async with process.background_task(part(), "part"):
                await asyncio.Event().wait()

        with pytest.raises(PartFailed):
            await asyncio.create_task(whole())

    async def test_a_part_that_comes_to_its_end_leaves_the_body_alone(self) -> None:
        done = asyncio.Event()

        async def part() -> None:
            done.set()

        async with process.background_task(part(), "part"):
            await done.wait()
            await asyncio.sleep(0)

    async def test_a_part_that_ends_by_a_cancellation_of_its_own_takes_the_body_down(self) -> None:
        async def part() -> None:
            raise asyncio.CancelledError

        async def whole() -> None:
            async with process.background_task(part(), "part"):
                await asyncio.Event().wait()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(whole())

    async def test_a_part_that_swallows_a_cancellation_is_cancelled_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "_TASK_STOP_TIMEOUT_SECONDS", 0.05)
        running = asyncio.Event()

        async def part() -> None:
            running.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

        async with asyncio.timeout(5), process.background_task(part(), "part"):
            await running.wait()

    async def test_the_bodys_error_is_the_bodys(self) -> None:
        async def whole() -> None:
            async with process.background_task(asyncio.Event().wait(), "part"):  # type: ignore[arg-type]  # its answer is not read
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await whole()

    async def test_cancelling_the_whole_cancels_the_part(self) -> None:
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


class TestForever:
    async def test_tries_again_whatever_it_failed_with(self) -> None:
        attempts = 0
        enough = asyncio.Event()

        async def step() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 5:
                enough.set()
                await asyncio.Event().wait()
            raise PartFailed

        stepping = process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        async with asyncio.timeout(5), process.background_task(stepping, "step"):
            await enough.wait()
        assert attempts == 5

    async def test_a_step_that_returns_is_taken_again(self) -> None:
        steps = asyncio.Semaphore(0)

        async def step() -> None:
            steps.release()

        stepping = process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        async with asyncio.timeout(5), process.background_task(stepping, "step"):
            for _ in range(3):
                await steps.acquire()

    async def test_pauses_grow_up_to_the_longest_and_start_anew_after_a_quiet_minute(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        this = asyncio.current_task()
        pauses: list[float] = []
        moments = iter([0, 0] * 4 + [0, 61] + [0, 0] * 2)

        async def step() -> None:
            raise PartFailed

        async def take_note(seconds: float) -> None:
            if asyncio.current_task() is not this:  # another part of this process that is kept alive by the module
                return await asyncio.sleep(seconds)
            pauses.append(seconds)
            return await asyncio.sleep(0)

        class Loop:
            def time(self) -> float:
                return next(moments)

        # Only for the module under test: whatever else runs on this loop keeps its own clock.
        stand_in = SimpleNamespace(**vars(asyncio) | {"sleep": take_note, "get_running_loop": Loop})
        monkeypatch.setattr(process, "asyncio", stand_in)
        with pytest.raises(RuntimeError):  # the end of the moments, as a coroutine tells it
            await process.run_with_restarts(step, name="step", first_delay_seconds=1, longest_delay_seconds=5)
        bounds = [1, 2, 4, 5, 1, 2, 4]
        assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
        assert pauses != bounds  # or all who have lost the same thing would come back to it at once

    async def test_what_it_is_told_not_to_forgive_ends_it(self) -> None:
        async def step() -> None:
            raise PartFailed

        with pytest.raises(PartFailed):
            await process.run_with_restarts(
                step, name="step", first_delay_seconds=0, longest_delay_seconds=0, fatal=(PartFailed,)
            )

    async def test_a_cancellation_that_nobody_asked_for_is_one_more_failure(self) -> None:
        attempts = 0
        enough = asyncio.Event()

        async def step() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                enough.set()
                await asyncio.Event().wait()
            raise asyncio.CancelledError  # as a library lets out the end of a task of its own

        stepping = process.run_with_restarts(step, name="step", first_delay_seconds=0, longest_delay_seconds=0)
        async with asyncio.timeout(5), process.background_task(stepping, "step"):
            await enough.wait()

    async def test_only_cancellation_ends_it(self) -> None:
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

async def fails():
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
    async with process.background_task(fails(), "part"):
        await stop.wait()
"""


@pytest.fixture
def started() -> Callable[[str], subprocess.Popen[str]]:
    def started(main: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", f"{_SERVICE}\nprocess.run({main})"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return started


class TestRun:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_the_service_in_order(
        self, started: Callable[[str], subprocess.Popen[str]], number: signal.Signals
    ) -> None:
        with started("main") as service:
            assert service.stdout is not None
            assert service.stdout.readline() == "running\n"
            service.send_signal(number)
            said, complained = service.communicate(timeout=10)
        assert (service.returncode, said) == (0, "stopping in order\n"), complained

    def test_a_service_that_cannot_stop_ends(self, started: Callable[[str], subprocess.Popen[str]]) -> None:
        with started("stuck") as service:
            assert service.stdout is not None
            assert service.stdout.readline() == "running\n"
            service.send_signal(signal.SIGTERM)
            said, _ = service.communicate(timeout=10)
        assert service.returncode == 0
        assert "stop timed out" in said

    def test_a_service_without_one_of_its_parts_fails(self, started: Callable[[str], subprocess.Popen[str]]) -> None:
        with started("broken") as service:
            _, complained = service.communicate(timeout=10)
        assert service.returncode == 1
        assert complained.rstrip().endswith("RuntimeError: a part failed")
