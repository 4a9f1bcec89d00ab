"""Load generators: processes that receive their load and send their result as lines of JSON.

A generator reads its load from standard input and writes `ready`. Then it reads a `LoadWindow`, sends requests until
the end of the window and writes a `LoadResult`.
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
import uvloop

from benchmarks.figure import BenchError
from stack.process import ROOT

_MAX_LINE_BYTES: Final = 64 * 1024 * 1024
_STANDARD_OUTPUT: Final = 1


class CallError(Exception):
    """A request that failed, or a response that the client does not expect. It ends the run."""


@dataclass(frozen=True, slots=True)
class Call:
    """One successful request: its start and end on the monotonic clock, and its number of transfers."""

    started: float
    ended: float
    transfers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWindow:
    """Measured time. No call starts after `end`.

    The times are on the monotonic clock, which all processes of a machine share.
    """

    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """Result of a load generator.

    Attributes:
        acknowledged: number of all transfers, including those outside of the window.
        transfers: transfers in the window. A call that is partly in the window counts in proportion to
            that part.
        latencies_ms: latencies of the calls that ended in the window.
        error: failure that ended the run, or empty.
    """

    acknowledged: int
    transfers: float
    latencies_ms: Sequence[float]
    error: str = ""


def summarize_calls(calls: Sequence[Call], window: LoadWindow, error: str = "") -> LoadResult:
    """Count the transfers and collect the latencies of the window."""
    return LoadResult(
        acknowledged=sum(call.transfers for call in calls),
        transfers=sum(
            call.transfers
            * max(0.0, min(call.ended, window.end) - max(call.started, window.start))
            / (call.ended - call.started)
            for call in calls
        ),
        latencies_ms=[
            round((call.ended - call.started) * 1_000, 3) for call in calls if window.start <= call.ended <= window.end
        ],
        error=error,
    )


def run_generator(send_requests: Callable[[LoadWindow], Awaitable[Sequence[Call]]]) -> None:
    """Report that the generator is ready, receive a window, send requests until its end, and write the result.

    The generator sends requests as soon as it has received the window. The time until the window's start is the
    warm-up.

    The function returns only when the parent process closes standard input. Until then the parent can read the
    processor time of this process.

    Args:
        send_requests: sends requests until the end of the window. A `CallError` or `OSError` becomes the error of the
            result.
    """

    async def generate(window: LoadWindow) -> LoadResult:
        try:
            return summarize_calls(await send_requests(window), window)
        except (CallError, OSError) as error:
            return summarize_calls([], window, str(error))

    gc.disable()  # a pause for garbage collection would look like a slow server; the process is short-lived
    write_line(b"ready")
    line = sys.stdin.readline()
    if line:  # empty if the parent process has ended
        write_line(orjson.dumps(asdict(uvloop.run(generate(LoadWindow(**orjson.loads(line)))))))
        sys.stdin.read()


def write_line(line: bytes) -> None:
    """Write a complete line to standard output.

    With PYTHONUNBUFFERED, `sys.stdout.write` may write only a part of the line when the pipe is full.
    """
    rest = line + b"\n"
    while rest:
        rest = rest[os.write(_STANDARD_OUTPUT, rest) :]


async def sleep_until(moment: float) -> None:
    """Sleep until a moment on the monotonic clock."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


class GeneratorProcess:
    """A running load generator. It ends when its standard input is closed."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module = module
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Any) -> None:
        """Write a dataclass to the generator's standard input, as one line of JSON."""
        assert self._process.stdin  # noqa: S101  for the type checker: `start_generator` requests the pipe
        self._process.stdin.write(orjson.dumps(asdict(message)) + b"\n")

    async def receive(self, timeout_seconds: float) -> bytes:
        """Return the next line of the generator's standard output.

        Raises:
            BenchError: the generator ended, or the time-out passed.
        """
        assert self._process.stdout  # noqa: S101  as above
        try:
            async with asyncio.timeout(timeout_seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError(f"{self._module} wrote no line in {timeout_seconds:.0f} s") from None
        if not line.endswith(b"\n"):
            raise BenchError(
                f"{self._module} ended with exit code {await self._process.wait()}; its error output is above"
            )
        return line


@asynccontextmanager
async def start_generator(module: str) -> AsyncIterator[GeneratorProcess]:
    """Run a module of this package as a process, and kill it on exit. Its error output goes to the terminal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=_MAX_LINE_BYTES,
    )
    try:
        yield GeneratorProcess(module, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
