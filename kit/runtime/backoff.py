"""Exponential backoff with jitter, for all asynchronous retries."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")


class Backoff:
    """Delays between retries: exponential with equal jitter.

    Each delay is between half of a bound and the bound, and the bound doubles with every delay. One half is fixed, so
    that there is always a pause. The other half is random, so that many clients do not retry at the same moment.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        """Args:
        first_seconds: bound of the first delay.
        longest_seconds: maximum of the bound.
        """
        self._first = self._bound = first_seconds
        self._longest = longest_seconds

    def reset(self) -> None:
        """Start again at the first bound, after a success."""
        self._bound = self._first

    def next_delay(self) -> float:
        """Return the seconds to wait before the next retry."""
        seconds = self._bound * random.uniform(0.5, 1)  # noqa: S311  jitter, no secret
        self._bound = min(2 * self._bound, self._longest)
        return seconds


async def retry(
    call: Callable[[], Awaitable[Value]],
    *,
    on: tuple[type[Exception], ...],
    attempts: int,
    budget_seconds: float,
    backoff: Backoff,
) -> Value:
    """Return the result of an idempotent call, retried a few times.

    Args:
        call: makes one attempt.
        on: errors that are retried; all others are raised at once.
        attempts: maximum number of attempts.
        budget_seconds: maximum time between the start of the first attempt and the start of the last one.
        backoff: delays between the attempts.

    Raises:
        Exception: the error of the last attempt.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + budget_seconds
    while True:
        attempts -= 1
        try:
            return await call()
        except on:
            delay = backoff.next_delay()
            if attempts <= 0 or clock() + delay >= end:
                raise
        await asyncio.sleep(delay)
