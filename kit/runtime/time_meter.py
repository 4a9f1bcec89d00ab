"""Measures the time that the event loop spends on the work of one client."""

import asyncio
import time
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, Final, Self, TypeVar

Value = TypeVar("Value")


class Meter:
    """Time that the loop has spent on the work of one client.

    Attributes:
        seconds: time since the meter was reset last.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0


current_meter: Final[ContextVar[Meter]] = ContextVar("current_meter")
"""Meter of the work that the current task does. With `create_measured_task`, its child tasks are measured too."""


class Measured(Coroutine[Any, Any, Value]):
    """Coroutine that adds the time of each of its steps to a meter. Waiting costs nothing."""

    __slots__ = ("_meter", "_work")

    def __init__(self, work: Coroutine[Any, Any, Value], meter: Meter) -> None:
        self._work = work
        self._meter = meter

    def send(self, value: Any) -> Any:
        """Run the next step."""
        started = time.perf_counter()
        try:
            return self._work.send(value)
        finally:
            self._meter.seconds += time.perf_counter() - started

    def throw(self, *error: Any) -> Any:
        """Raise an error, such as a cancellation, in the work, and run its next step."""
        started = time.perf_counter()
        try:
            return self._work.throw(*error)
        finally:
            self._meter.seconds += time.perf_counter() - started

    def close(self) -> None:
        """End the work, which runs its `finally` blocks."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Value]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def create_measured_task(
    loop: asyncio.AbstractEventLoop, work: Any, *, context: Context | None = None
) -> "asyncio.Task[Any]":
    """Create a task, measured by `current_meter` if the context has one. It is a task factory of event loops."""
    meter = current_meter.get(None) if context is None else context.get(current_meter)
    return asyncio.Task(work if meter is None else Measured(work, meter), loop=loop, context=context)
