"""Child processes: description, start, readiness and end."""

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
STOP_GRACE = 10.0  # seconds between the stop signal and SIGKILL
PROBE_INTERVAL = 0.03
LONGEST_LINE = 2**20  # bytes of one line of output; a longer one is passed on in pieces

Probe = Callable[[], Awaitable[bool]]
Output = Callable[[str, str], None]  # (process name, line without its line end)


class StartError(Exception):
    """A process could not be started. The message says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """Program, user and working directory of a process. `environment` is complete: nothing is inherited."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path = ROOT
    user: int | None = None  # None keeps the caller's user; otherwise no supplementary groups are kept
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a plan (the list of all processes to run). If `ready` is None, it is a job, which runs once.

    Attributes:
        name: unique in the plan.
        command: awaited before every start, so it may prepare files that the process needs.
        ready: readiness probe, polled until it returns True; must not raise while the process starts.
        depends_on: processes that have to be ready first.
        restart_with: when one of these has been restarted, this process is restarted too.
        ports: ports that have to be free, by their use, such as `gRPC` or `admin`.
        urls: addresses to show, by name.
        stop_signal: signal that asks the process to end.
    """

    name: str
    command: Callable[[], Awaitable[Command]]
    ready: Probe | None = None
    depends_on: Sequence[str] = ()
    restart_with: Sequence[str] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM


def module(name: str, *arguments: str, **environment: str) -> Callable[[], Awaitable[Command]]:
    """Return a command that runs a module of this project, with `environment` added to the current environment."""
    # The working directory is the project root, so that `python -m` finds the project's packages.
    argv = (sys.executable, "-m", name, *arguments)

    # GRPC_VERBOSITY=NONE: gRPC's C core writes to standard error, and its threads would block if nobody read the lines.

    async def command() -> Command:
        return Command(argv, {"GRPC_VERBOSITY": "NONE", **os.environ, "PYTHONUNBUFFERED": "1", **environment})

    return command


async def start_process(command: Command, output: int) -> asyncio.subprocess.Process:
    """Start the command in a session of its own, with its output to the file descriptor `output`."""
    return await asyncio.create_subprocess_exec(
        *command.argv,
        env=command.environment,
        cwd=command.cwd,
        user=command.user,
        group=command.group,
        extra_groups=None if command.user is None else [],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


class OrphanReaper:
    """Handle of `stack/orphan_reaper.py`, which ends all registered children if this process dies."""

    def __init__(self, *, keep_open: Sequence[int] = ()) -> None:
        """Start the reaper. It keeps the file descriptors `keep_open` open until the last child has ended."""
        self._process = subprocess.Popen(  # noqa: S603  fixed arguments
            [sys.executable, "-IS", str(Path(__file__).with_name("orphan_reaper.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=keep_open,
        )

    def register(self, pid: int, stop_signal: signal.Signals) -> None:
        """Register the process group `pid`, so that it does not outlive this process."""
        self._send(f"+{pid} {int(stop_signal)}\n")

    def release(self, pid: int) -> None:
        """Unregister the process group `pid`: it has ended, and the pid may be reused."""
        self._send(f"-{pid}\n")

    def close(self) -> None:
        """End the reaper, which first ends all groups that are still registered."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _send(self, order: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), order.encode()) if self._process.stdin else None


class Child:
    """A child process. As an async context manager it is ready inside the block and ended after it.

    A child has its own session, so Ctrl-C on the terminal does not reach it. It cannot outlive this process.
    """

    def __init__(self, process: Process, *, output: Output | None = None, reaper: OrphanReaper | None = None) -> None:
        """Describe the child without starting it. Without a shared `reaper` it gets its own at the start."""
        self.process = process
        self.last_lines: deque[str] = deque(maxlen=20)
        self.started_at = 0.0
        self._output = output
        self._shared_reaper = reaper
        self._reaper: OrphanReaper | None = None
        self._running: asyncio.subprocess.Process | None = None
        self._output_task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, or None while it does not run."""
        return self._running.pid if self._running and self._running.returncode is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, timeout: float = 60.0) -> None:  # noqa: ASYNC109  the message names the limit
        """Start the process and wait until it is ready, or until a job has ended with 0.

        Raises:
            StartError: the process failed, or was not ready within `timeout` seconds; it is stopped then.
        """
        await self.spawn()
        try:
            await self.until_ready(timeout)
        except BaseException:
            await self.stop()
            raise

    async def spawn(self) -> None:
        """Start the process without waiting for readiness.

        Raises:
            StartError: one of its ports is in use, or `command` raised this error.
        """
        if self.pid is not None:
            raise RuntimeError(f"{self.process.name} is already running")
        try:
            check_free({f"{self.process.name} ({use})": port for use, port in self.process.ports.items()})
        except PortError as error:
            raise StartError(str(error)) from None
        command = await self.process.command()
        reader, writer = os.pipe()
        try:
            # Our own pipe: with asyncio's, wait() also waits for grandchildren that inherited the output.
            self._running = await start_process(command, writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._reaper = self._shared_reaper or OrphanReaper()
        self._reaper.register(self._running.pid, self.process.stop_signal)
        self.started_at = time.monotonic()
        self.last_lines.clear()
        self._output_task = asyncio.create_task(self._read(reader))

    async def until_ready(self, timeout: float) -> None:  # noqa: ASYNC109  the message names the limit
        """Wait until the process is ready, or until a job has ended with 0.

        Raises:
            StartError: the process failed, or is not ready after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            # Check the pid after the probe: the response may come from another process on the same port.
            if self.process.ready and await self.process.ready() and self.pid is not None:
                return
            if self.pid is None:
                code = await self.wait()
                if code == 0 and not self.process.ready:
                    return
                output = "\n".join(f"  {line}" for line in self.last_lines)
                raise StartError(f"{self.process.name} exited with {code} before it was ready\n{output}".rstrip())
            if time.monotonic() > deadline:
                raise StartError(f"{self.process.name} was not ready after {timeout:g} s")
            await asyncio.sleep(PROBE_INTERVAL)

    async def wait(self) -> int:
        """Wait for the end of the process, then at most 0.5 s for the rest of its output.

        Return the exit code (negative: the signal that ended it).
        """
        if not self._running:
            raise RuntimeError(f"{self.process.name} was not started")
        return await self._wait_until_ended(self._running, self._output_task)

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """End the process: its stop signal first, SIGKILL after `grace` seconds. Safe to repeat."""
        if not self._running:
            return
        running, output_task = self._running, self._output_task
        self.send(self.process.stop_signal)
        try:
            await asyncio.wait_for(running.wait(), grace)
        except TimeoutError:
            self.kill()
        await self._wait_until_ended(running, output_task)

    async def _wait_until_ended(
        self, running: asyncio.subprocess.Process, output_task: asyncio.Task[None] | None
    ) -> int:
        """Do the same as `wait` for this run of the process. Another task may already have started the next run."""
        code = await running.wait()
        if output_task:
            # A grandchild may keep the output open for longer.
            await asyncio.wait({output_task}, timeout=0.5)
            output_task.cancel()
        if self._reaper and self._running is running:
            self._reaper.release(running.pid)
            if self._reaper is not self._shared_reaper:
                self._reaper.close()
            self._reaper = None
        return code

    def kill(self) -> None:
        """Send SIGKILL to the process group, like a crash. Call `wait` or `stop` afterwards."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process group, if it still exists."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def _read(self, descriptor: int) -> None:
        """Pass on each line of the child's output until all writers have closed it."""
        lines = asyncio.StreamReader(limit=2**20)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(descriptor, "rb")
        )
        try:
            rest = b""
            while chunk := await lines.read(2**16):
                *whole, rest = (rest + chunk).split(b"\n")
                if len(rest) >= LONGEST_LINE:
                    whole.append(rest)
                    rest = b""
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
