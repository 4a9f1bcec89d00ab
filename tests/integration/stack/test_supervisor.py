import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from stack.console import Console
from stack.ports import free_ports
from stack.process import Child, OrphanReaper, Process, StartError
from stack.supervisor import Supervisor
from tests.integration.stack import fake_stack as fake


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  other processes cause the event
            await asyncio.sleep(0.01)


class SupervisedFakes:
    """Supervisor of fake processes, and the messages that it prints."""

    def __init__(self, plan: Sequence[Process], console: Console, screen: Path, reaper: OrphanReaper) -> None:
        self.supervisor = Supervisor(plan, console, reaper)
        self._console = console
        self._screen = screen

    @property
    def messages(self) -> list[str]:
        self._console.flush()
        return [line for line in self._screen.read_text().splitlines() if " | " not in line]

    def pid(self, name: str) -> int | None:
        return self.supervisor.children[name].pid


@asynccontextmanager
async def stage(tmp_path: Path, *plan: Process) -> AsyncIterator[SupervisedFakes]:
    screen = tmp_path / "screen"
    with screen.open("w") as file:
        console = Console(tmp_path, file)
    with closing(console), closing(OrphanReaper()) as reaper:
        staged = SupervisedFakes(plan, console, screen, reaper)
        try:
            yield staged
        finally:
            await staged.supervisor.stop()


async def restart_when_ended(child: Child) -> None:
    """Restart the child when it has ended, as the supervisor does."""
    await child.wait()
    await child.spawn()


class TestStart:
    async def test_process_waits_for_its_dependencies(self, tmp_path: Path) -> None:
        one, two, three = free_ports(3)
        plan = (
            fake.service("gateway", one, depends_on=("bank",)),
            fake.service("bank", two, depends_on=("postgres",)),
            fake.service("postgres", three),
        )
        async with stage(tmp_path, *plan) as staged:
            await staged.supervisor.start()
            assert [line.split()[0] for line in staged.messages] == ["postgres", "bank", "gateway"]
            assert all("… ready in" in line for line in staged.messages)

    async def test_dependents_wait_for_the_end_of_a_job(self, tmp_path: Path) -> None:
        once = Process(name="migrations", command=fake.python("-c", "print('migrated')"))
        async with stage(tmp_path, once, fake.service("bank", free_ports(1)[0], depends_on=("migrations",))) as staged:
            await staged.supervisor.start()
            assert staged.messages[0].startswith("migrations … done in")
            assert (tmp_path / "migrations.log").read_text() == "migrated\n"
            assert staged.pid("migrations") is None
            assert staged.pid("bank")

    async def test_failed_job_fails_the_start_with_its_output(self, tmp_path: Path) -> None:
        once = Process(name="migrations", command=fake.python("-c", "raise SystemExit('no such table')"))
        async with stage(tmp_path, once, fake.service("bank", free_ports(1)[0], depends_on=("migrations",))) as staged:
            with pytest.raises(StartError, match=r"migrations exited with 1 before it was ready\n  no such table"):
                await staged.supervisor.start()
            assert staged.pid("bank") is None

    async def test_start_fails_if_a_process_never_becomes_ready(self) -> None:
        child = Child(replace(fake.service("bank", free_ports(1)[0]), ready=never))
        with pytest.raises(StartError, match=r"bank was not ready after 0\.5 s"):
            await child.start(timeout=0.5)
        assert child.pid is None


class TestRestart:
    async def test_killed_process_is_restarted(self, tmp_path: Path) -> None:
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            staged.supervisor.children["bank"].kill()
            await until(lambda: any("ready again" in line for line in staged.messages))
            assert f"bank exited with -9; restarting in 0.2 s ({tmp_path / 'bank.log'})" in staged.messages

    async def test_restart_delay_grows_with_each_crash(self, tmp_path: Path) -> None:
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            for delay in ("0.2", "0.4", "0.8"):
                await until(lambda: staged.pid("bank"))
                staged.supervisor.children["bank"].kill()
                await until(partial(has_message, staged, f"bank exited with -9; restarting in {delay} s"))

    async def test_restart_delay_is_reset_after_a_healthy_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stack.supervisor.HEALTHY", 0)
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            for times in (1, 2):
                await until(lambda: staged.pid("bank"))
                staged.supervisor.children["bank"].kill()
                await until(partial(has_message, staged, "bank exited with -9; restarting in 0.2 s", times))

    async def test_crashed_process_restarts_only_processes_that_list_it_in_restart_with(self, tmp_path: Path) -> None:
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
            await until(lambda: any(line.startswith("analytics … ready again") for line in staged.messages))
            assert "analytics is restarted: kafka lost its state" in staged.messages
            assert staged.pid("bank") == before["bank"]
            assert staged.pid("analytics") not in {None, before["analytics"]}

    async def test_restart_during_stop_keeps_output_and_reaper(self) -> None:
        script = "import time\nwhile True: print('hello', flush=True); time.sleep(0.001)"
        child = Child(Process(name="talker", command=fake.python("-c", script), ready=at_once))
        async with child:
            for _ in range(5):
                guarding = asyncio.create_task(restart_when_ended(child))
                await asyncio.sleep(0)
                async with asyncio.timeout(5):
                    await child.stop()
                    await guarding
                child.last_lines.clear()
                await until(lambda: child.last_lines, 5)
                assert child._reaper is not None

    async def test_stopped_process_stays_down_until_started(self, tmp_path: Path) -> None:
        async with stage(tmp_path, fake.service("bank", free_ports(1)[0])) as staged:
            await staged.supervisor.start()
            await staged.supervisor.stop_process("bank")
            assert staged.pid("bank") is None
            assert not any("restarting" in line for line in staged.messages)
            await staged.supervisor.start_process("bank")
            staged.supervisor.children["bank"].kill()
            await until(partial(has_message, staged, "bank exited with -9; restarting in 0.2 s"))


class TestOutput:
    async def test_any_bytes_become_lines(self) -> None:
        script = "import sys; sys.stdout.buffer.write(b'\\xff\\x00\\xed\\xa0\\x80 \\r\\nend')"
        child = Child(Process(name="talker", command=fake.python("-c", script)))
        await child.spawn()
        assert await child.wait() == 0
        assert list(child.last_lines) == ["\ufffd\x00\ufffd\ufffd\ufffd ", "end"]

    async def test_very_long_line_is_split(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("stack.process.LONGEST_LINE", 100_000)
        child = Child(Process(name="talker", command=fake.python("-c", "print('x' * 1_000_000, end='')")))
        await child.spawn()
        assert await child.wait() == 0
        assert "".join(child.last_lines) == "x" * 1_000_000
        assert max(map(len, child.last_lines)) < 200_000


class TestStop:
    async def test_stop_ends_the_last_process_first(self, tmp_path: Path) -> None:
        names = ("postgres", "bank", "gateway")
        plan = [fake.service(name, port) for name, port in zip(names, free_ports(3), strict=True)]
        async with stage(tmp_path, *plan) as staged:
            await staged.supervisor.start()
            await staged.supervisor.stop()
            assert [line.split()[0] for line in staged.messages if "stopped" in line] == ["gateway", "bank", "postgres"]

    async def test_stop_kills_a_process_that_ignores_sigterm(self) -> None:
        child = Child(fake.service("bank", free_ports(1)[0], "stubborn"))
        await child.start()
        await child.stop(grace=0.2)
        assert child.pid is None
        assert await child.wait() == -signal.SIGKILL

    async def test_stop_leaves_no_grandchildren(self) -> None:
        script = "import os, signal; os.fork(); print(os.getpid(), flush=True); signal.pause()"
        child = Child(Process(name="family", command=fake.python("-c", script), ready=at_once))
        await child.start()
        await until(lambda: len(child.last_lines) == 2)
        members = [int(line) for line in child.last_lines]
        assert all(fake.is_running(pid) for pid in members)
        await child.stop()
        await until(lambda: not any(fake.is_running(pid) for pid in members))


def has_message(staged: SupervisedFakes, line: str, times: int = 1) -> bool:
    """Return whether so many messages begin with this line."""
    return sum(each.startswith(line) for each in staged.messages) == times


async def never() -> bool:
    return False


async def at_once() -> bool:
    return True
