"""One child process: how it is described, started, watched for readiness, and ended."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from stack.ports import PortError, check_free

ROOT = Path(__file__).parent.parent
STOP_GRACE = 10.0  # seconds a child has between its stop signal and SIGKILL
PROBE_INTERVAL = 0.03

Probe = Callable[[], Awaitable[bool]]
Output = Callable[[str, str], None]  # (process name, one line without its end)


class StartError(Exception):
    """A part of the stack could not be started; the message is for a person and says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute, as whom and where. `environment` is the whole environment, nothing is inherited."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path = ROOT
    user: int | None = None  # None keeps the caller's user; otherwise user, group and no further groups
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A line of the plan: something that runs for as long as the stack does, or (without `ready`) once, to its end.

    `command` is awaited before every start, so it may prepare what the process needs. `ready` answers whether the
    process can be used by now; it is asked again and again and must not raise for a process that is not there yet.
    """

    name: str
    command: Callable[[], Awaitable[Command]]
    ready: Probe | None = None
    depends_on: Sequence[str] = ()
    restart_with: Sequence[str] = ()  # those that this one cannot survive the loss of: it is restarted after them
    ports: Mapping[str, int] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM


def module(name: str, *arguments: str, **environment: str) -> Callable[[], Awaitable[Command]]:
    """A command that runs a Python module of this project with `environment` on top of the caller's."""
    # Not `python -m` from a safe path: the project's root is the working folder, as for a person who types it.
    argv = (sys.executable, "-m", name, *arguments)

    async def command() -> Command:
        return Command(argv, {**os.environ, "PYTHONUNBUFFERED": "1", **environment})

    return command


class Leash:
    """The hold on all children of one supervisor; see `stack/leash.py`."""

    def __init__(self, *, keep_open: Sequence[int] = ()) -> None:
        """Starts the leash, which also keeps the file descriptors `keep_open` until the last child has ended."""
        self._process = subprocess.Popen(  # noqa: S603  our own file, run by our own interpreter
            [sys.executable, "-IS", str(Path(__file__).with_name("leash.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=keep_open,
        )

    def hold(self, pid: int, stop_signal: signal.Signals) -> None:
        """From here on the group `pid` does not outlive this process."""
        self._say(f"+{pid} {int(stop_signal)}\n")

    def release(self, pid: int) -> None:
        """The child `pid` has ended; its number may now belong to somebody else."""
        self._say(f"-{pid}\n")

    def close(self) -> None:
        """Lets the leash go. Whatever it still holds is ended first."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _say(self, order: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), order.encode()) if self._process.stdin else None


class Child:
    """One running process. As an async context manager it is ready inside the block and gone after it.

    A child is in a session of its own, so a terminal's Ctrl-C does not reach it. It cannot outlive this process.
    """

    def __init__(self, process: Process, *, output: Output | None = None, leash: Leash | None = None) -> None:
        """Describes the child; nothing runs yet. Without a `leash` to share it has one of its own while it runs."""
        self.process = process
        self.last_lines: deque[str] = deque(maxlen=20)
        self.started_at = 0.0
        self._output = output
        self._shared_leash = leash
        self._leash: Leash | None = None
        self._running: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._running.pid if self._running and self._running.returncode is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, timeout: float = 60.0) -> None:  # noqa: ASYNC109  the message names the limit
        """Starts the process and returns when it is ready or, if it runs only once, has ended well.

        Raises:
            StartError: it failed, or was not ready in `timeout` seconds (it is then stopped).
        """
        await self.spawn()
        try:
            await self.until_ready(timeout)
        except BaseException:
            await self.stop()
            raise

    async def spawn(self) -> None:
        """Starts the process and returns at once, ready or not.

        Raises:
            StartError: one of its ports is in use, or it could not be prepared.
        """
        if self.pid is not None:
            raise RuntimeError(f"{self.process.name} already runs")
        try:
            check_free({f"{self.process.name} ({use})": port for use, port in self.process.ports.items()})
        except PortError as error:
            raise StartError(str(error)) from None
        command = await self.process.command()
        reader, writer = os.pipe()
        try:
            # A pipe of our own, not asyncio's: asyncio's wait() also waits for whoever inherited the output.
            self._running = await asyncio.create_subprocess_exec(
                *command.argv,
                env=command.environment,
                cwd=command.cwd,
                user=command.user,
                group=command.group,
                extra_groups=None if command.user is None else [],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._leash = self._shared_leash or Leash()
        self._leash.hold(self._running.pid, self.process.stop_signal)
        self.started_at = time.monotonic()
        self.last_lines.clear()
        self._reading = asyncio.create_task(self._read(reader))

    async def until_ready(self, timeout: float) -> None:  # noqa: ASYNC109  the message names the limit
        """Returns when the running process is ready or, if it runs only once, has ended well.

        Raises:
            StartError: it failed, or is still not ready after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            # Both, and in this order: an answer counts only from a process that lives, not from a stranger on its port.
            if self.process.ready and await self.process.ready() and self.pid is not None:
                return
            if self.pid is None:
                code = await self.wait()
                if code == 0 and not self.process.ready:
                    return
                said = "\n".join(f"  {line}" for line in self.last_lines)
                raise StartError(f"{self.process.name} exited with {code} before it was ready\n{said}".rstrip())
            if time.monotonic() > deadline:
                raise StartError(f"{self.process.name} was not ready after {timeout:g} s")
            await asyncio.sleep(PROBE_INTERVAL)

    async def wait(self) -> int:
        """Returns the exit code (negative: the signal that ended it) once the process is gone and its output read."""
        if not self._running:
            raise RuntimeError(f"{self.process.name} was never started")
        return await self._gone(self._running, self._reading)

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends the process: its stop signal, and SIGKILL after `grace` seconds. Nothing to do if it is gone."""
        if not self._running:
            return
        running, reading = self._running, self._reading
        self.send(self.process.stop_signal)
        try:
            await asyncio.wait_for(running.wait(), grace)
        except TimeoutError:
            self.kill()
        await self._gone(running, reading)

    async def _gone(self, running: asyncio.subprocess.Process, reading: asyncio.Task[None] | None) -> int:
        """What `wait` says, of this run of the process: whoever waits beside may have started the next one by then."""
        code = await running.wait()
        if reading:
            # Bounded: a grandchild may hold the output open for longer.
            await asyncio.wait({reading}, timeout=0.5)
            reading.cancel()
        if self._leash and self._running is running:
            self._leash.release(running.pid)
            if self._leash is not self._shared_leash:
                self._leash.close()
            self._leash = None
        return code

    def kill(self) -> None:
        """SIGKILL to the process and its group, as a crash would look. `wait` or `stop` to see it gone."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Sends `number` to the process's group, if it is still there."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def _read(self, descriptor: int) -> None:
        """Hands every line of the child's output on until the last writer is gone."""
        lines = asyncio.StreamReader(limit=2**20)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(descriptor, "rb")
        )
        try:
            rest = b""
            while chunk := await lines.read(2**16):
                *whole, rest = (rest + chunk).split(b"\n")
                self._emit(whole)
            self._emit([rest] if rest else [])
        finally:
            transport.close()

    def _emit(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self.last_lines.append(text)
            if self._output:
                self._output(self.process.name, text)
