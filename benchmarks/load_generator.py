"""A process of the benchmark's own that is spoken to by lines of JSON: generators of load."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import orjson

from benchmarks.figure import BenchError
from stack.process import ROOT

_LONGEST_LINE: Final = 64 * 1024 * 1024
_STANDARD_OUTPUT: Final = 1


def answer(line: bytes) -> None:
    """Says a line to whoever started this process: whole, where Python without buffers (PYTHONUNBUFFERED) is content
    with as much of it as the pipe takes at once.
    """
    left = line + b"\n"
    while left:
        left = left[os.write(_STANDARD_OUTPUT, left) :]


class Child:
    """A module of this package that runs; it ends when nobody speaks to it any more."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module = module
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, value: Any) -> None:
        """Sends a dataclass."""
        assert self._process.stdin  # noqa: S101  for the type checker: it was asked for
        self._process.stdin.write(orjson.dumps(asdict(value)) + b"\n")

    async def hear(self, within: float) -> bytes:
        """The next line.

        Raises:
            BenchError: it ended, or says nothing in so many seconds.
        """
        assert self._process.stdout  # noqa: S101  as above
        try:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError(f"{self._module} has said nothing for {within:.0f} s") from None
        if not line.endswith(b"\n"):
            raise BenchError(f"{self._module} ended with {await self._process.wait()}; why stands above")
        return line


@asynccontextmanager
async def running(module: str) -> AsyncIterator[Child]:
    """The module in a process of its own, gone afterwards. What it writes to its standard error is for people."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=_LONGEST_LINE,
    )
    try:
        yield Child(module, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
