"""Start of services as forks of one process that has imported the modules of all services.

The imports of a service take half a second to one second of processor time, and the tests start two hundred services.
The system of `python -m stack` starts its services as usual (`tests/integration/stack/test_up.py`,
`tests/e2e/test_demo.py`).
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

import pytest

from stack import process
from stack.process import Command
from tests.forks.service import SERVICES, Descriptor, run_service

_CONTEXT: Final = multiprocessing.get_context("forkserver")


class Fork:
    """A fork that runs a service. It has the part of `asyncio.subprocess.Process` that `stack.process` uses."""

    def __init__(self, running: ForkServerProcess) -> None:
        assert running.pid is not None
        self.pid: int = running.pid
        self.returncode: int | None = None
        self._running = running
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(running.sentinel, self._end)

    async def wait(self) -> int:
        """Wait for the end of the process. Return the exit code (negative: the signal that ended it)."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._running.sentinel)
        self._running.join()
        self.returncode = self._running.exitcode
        self._running.close()
        self._ended.set()


@contextmanager
def use_fork_server() -> Iterator[None]:
    """Start services as forks during the block.

    When coverage is measured, services start as usual, because coverage does not measure forks.
    """
    if "coverage" in sys.modules:
        yield
        return
    _CONTEXT.set_forkserver_preload(["tests.forks.preload"])
    start_usually = process.start_process

    async def start_process(command: Command, output: int) -> Any:
        match command.argv:
            case [sys.executable, "-m", name, *arguments] if name in SERVICES:
                return _fork(name, arguments, command, output)
        return await start_usually(command, output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "start_process", start_process)
        yield


def _fork(name: str, arguments: list[str], command: Command, output: int) -> Fork:
    started, starting = os.pipe()
    try:
        descriptors = (Descriptor(output), Descriptor(starting))
        fork = _CONTEXT.Process(
            target=run_service, args=(name, arguments, dict(command.environment), command.cwd, *descriptors)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONUNBUFFERED", "1")  # for the fork server, which starts with the first fork
            fork.start()
    finally:
        os.close(starting)
    with os.fdopen(started, "rb") as pipe:
        pipe.read()  # until the fork leads its own session
    return Fork(fork)
