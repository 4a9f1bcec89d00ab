import asyncio
import io
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from stack.console import Console
from stack.ports import free_ports
from stack.process import Child, Leash, Process, StartError
from stack.supervisor import Supervisor
from tests.integration.stack import fake_stack as fake


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  what is waited for happens in other processes
            await asyncio.sleep(0.01)


class Stage:
    """A supervisor on a plan of fakes, and what it said."""

    def __init__(self, plan: Sequence[Process], console: Console, screen: io.StringIO, leash: Leash) -> None:
        self.supervisor = Supervisor(plan, console, leash)
        self._screen = screen

    @property
    def said(self) -> list[str]:
        return [line for line in self._screen.getvalue().splitlines() if " | " not in line]

    def pid(self, name: str) -> int | None:
        return self.supervisor.children[name].pid


@asynccontextmanager
async def stage(tmp_path: Path, *plan: Process) -> AsyncIterator[Stage]:
    screen = io.StringIO()
    with closing(Console(tmp_path, screen)) as console, closing(Leash()) as leash:
        staged = Stage(plan, console, screen, leash)
        try:
            yield staged
        finally:
            await staged.supervisor.stop()


async def started_again(child: Child) -> None:
    """As a supervisor does."""
    await child.wait()
    await child.spawn()


class TestStart:
    async def test_each_process_waits_for_what_it_depends_on(self, tmp_path: Path) -> None:
        one, two, three = free_ports(3)
        plan = (
            fake.service("gateway", one, depends_on=("bank",)),
            fake.service("bank", two, depends_on=("postgres",)),
            fake.service("postgres", three),
        )
        async with stage(tmp_path, *plan) as staged:
            await staged.supervisor.start()
            assert [line.split()[0] for line in staged.said] == ["postgres", "bank", "gateway"]
            assert all("… ready in" in line for line in staged.said)

    async def test_a_one_shot_has_to_end_well_before_others_start(self, tmp_path: Path) -> None:
        once = Process(name="migrations", command=fake.python("-c", "print('migrated')"))
        async with stage(tmp_path, once, fake.service("bank", free_ports(1)[0], depends_on=("migrations",))) as staged:
            await staged.supervisor.start()
            assert staged.said[0].startswith("migrations … done in")
            assert (tmp_path / "migrations.log").read_text() == "migrated\n"
            assert staged.pid("migrations") is None
            assert staged.pid("bank")

    async def test_a_failed_one_shot_fails_the_start_with_its_last_words(self, tmp_path: Path) -> None:
        once = Process(name="migrations", command=fake.python("-c", "raise SystemExit('no such table')"))
        async with stage(tmp_path, once, fake.service("bank", free_ports(1)[0], depends_on=("migrations",))) as staged:
            with pytest.raises(StartError, match=r"migrations exited with 1 before it was ready\n  no such table"):
                await staged.supervisor.start()
            assert staged.pid("bank") is None

    async def test_a_process_that_never_gets_ready_is_given_up(self) -> None:
        child = Child(replace(fake.service("bank", free_ports(1)[0]), ready=never))
        with pytest.raises(StartError, match=r"bank was not ready after 0\.5 s"):
            await child.start(timeout=0.5)
        assert child.pid is None


class TestRestart:
    async def test_a_killed_process_comes_back(self, tmp_path: Path) -> None:
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            staged.supervisor.children["bank"].kill()
            await until(lambda: any("ready again" in line for line in staged.said))
            assert "bank exited with -9; restarting in 0.2 s" in staged.said

    async def test_a_process_that_keeps_crashing_is_started_later_and_later(self, tmp_path: Path) -> None:
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            for delay in ("0.2", "0.4", "0.8"):
                await until(lambda: staged.pid("bank"))
                staged.supervisor.children["bank"].kill()
                await until(partial(said, staged, f"bank exited with -9; restarting in {delay} s"))

    async def test_health_makes_earlier_crashes_forgotten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stack.supervisor.HEALTHY", 0)
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            for times in (1, 2):
                await until(lambda: staged.pid("bank"))
                staged.supervisor.children["bank"].kill()
                await until(partial(said, staged, "bank exited with -9; restarting in 0.2 s", times))

    async def test_what_cannot_survive_a_loss_is_restarted_after_it(self, tmp_path: Path) -> None:
        kafka, bank, analytics = free_ports(3)
        plan = (
            fake.service("kafka", kafka),
            fake.service("bank", bank, depends_on=("kafka",)),
            fake.service("analytics", analytics, depends_on=("kafka",), restart_with=("kafka",)),
        )
        async with stage(tmp_path, *plan) as staged:
            await staged.supervisor.start()
            before = {name: staged.pid(name) for name in ("bank", "analytics")}
            staged.supervisor.children["kafka"].kill()
            await until(lambda: any(line.startswith("analytics … ready again") for line in staged.said))
            assert "analytics is restarted: kafka came back without what it knew" in staged.said
            assert staged.pid("bank") == before["bank"]
            assert staged.pid("analytics") not in {None, before["analytics"]}

    async def test_what_one_stops_and_another_starts_again_is_heard_and_held(self) -> None:
        script = "import time\nwhile True: print('hello', flush=True); time.sleep(0.001)"
        child = Child(Process(name="talker", command=fake.python("-c", script), ready=at_once))
        async with child:
            for _ in range(5):
                guarding = asyncio.create_task(started_again(child))
                await asyncio.sleep(0)
                async with asyncio.timeout(5):
                    await child.stop()
                    await guarding
                child.last_lines.clear()
                await until(lambda: child.last_lines, 5)
                assert child._leash is not None

    async def test_what_was_taken_away_stays_away_until_it_is_brought_back(self, tmp_path: Path) -> None:
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            await staged.supervisor.take_away("bank")
            assert staged.pid("bank") is None
            assert not any("restarting" in line for line in staged.said)
            await staged.supervisor.bring_back("bank")
            staged.supervisor.children["bank"].kill()
            await until(lambda: "bank exited with -9; restarting in 0.2 s" in staged.said)


class TestStop:
    async def test_ends_the_last_of_the_plan_first(self, tmp_path: Path) -> None:
        names = ("postgres", "bank", "gateway")
        plan = [fake.service(name, port) for name, port in zip(names, free_ports(3), strict=True)]
        async with stage(tmp_path, *plan) as staged:
            await staged.supervisor.start()
            await staged.supervisor.stop()
            assert [line.split()[0] for line in staged.said if "stopped" in line] == ["gateway", "bank", "postgres"]

    async def test_kills_what_does_not_listen(self) -> None:
        child = Child(fake.service("bank", free_ports(1)[0], "stubborn"))
        await child.start()
        await child.stop(grace=0.2)
        assert child.pid is None
        assert await child.wait() == -signal.SIGKILL

    async def test_leaves_no_grandchildren_behind(self) -> None:
        script = "import os, signal; os.fork(); print(os.getpid(), flush=True); signal.pause()"
        child = Child(Process(name="family", command=fake.python("-c", script), ready=at_once))
        await child.start()
        await until(lambda: len(child.last_lines) == 2)
        members = [int(line) for line in child.last_lines]
        assert all(fake.lives(pid) for pid in members)
        await child.stop()
        await until(lambda: not any(fake.lives(pid) for pid in members))


def said(staged: Stage, line: str, times: int = 1) -> bool:
    return staged.said.count(line) == times


async def never() -> bool:
    return False


async def at_once() -> bool:
    return True
