"""Measures the time that the event loop spends on the work of one client."""

import time
from collections.abc import Coroutine, Generator
from typing import Any, Self, TypeVar

Value = TypeVar("Value")


class Meter:
    """Time that the loop has spent on the work of one client.

    Attributes:
        seconds: time since the meter was reset last.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0


class Measured(Coroutine[Any, Any, Value]):
    """Coroutine that adds the time of each of its steps to a meter. Waiting and child tasks do not count."""

    __slots__ = ("_meter", "_weight", "_work")

    def __init__(self, work: Coroutine[Any, Any, Value], meter: Meter, weight: float = 1.0) -> None:
        """Args:
        work: the coroutine.
        meter: gets the time.
        weight: factor of the time, if only some works of the client are measured.
        """
        self._work = work
        self._meter = meter
        self._weight = weight

    def send(self, value: Any) -> Any:
        """Run the next step."""
        started = time.perf_counter()
        try:
            return self._work.send(value)
        finally:
            self._meter.seconds += self._weight * (time.perf_counter() - started)

    def throw(self, *error: Any) -> Any:
        """Raise an error, such as a cancellation, in the work, and run its next step."""
        started = time.perf_counter()
        try:
            return self._work.throw(*error)
        finally:
            self._meter.seconds += self._weight * (time.perf_counter() - started)

    def close(self) -> None:
        """End the work, which runs its `finally` blocks."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Value]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)
