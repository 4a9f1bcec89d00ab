"""Ctrl-C and SIGTERM: the first one during the load ends the load early, any other one ends the run."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loadtests.console import print_progress


class Interrupts:
    """Signals that end a run. Without `handled`, signals have their usual effect."""

    def __init__(self) -> None:
        self._end_load: Callable[[], None] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals during the block: cancel the current task, or end the load of `ending_load`."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101  for the type checker: a coroutine always runs in a task

        def on_signal() -> None:
            if self._end_load is None:
                task.cancel()
                return
            print_progress("ending the load; then the responses are checked, unless Ctrl-C is pressed again")
            end_load, self._end_load = self._end_load, None
            end_load()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    @contextmanager
    def ending_load(self, end_load: Callable[[], None]) -> Iterator[None]:
        """Call a function, which ends the load early, at the first signal during the block."""
        self._end_load = end_load
        try:
            yield
        finally:
            self._end_load = None
