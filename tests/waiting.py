"""Bounded waiting for a condition; tests use it instead of sleeping."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")


async def until(probe: Callable[[], Awaitable[Value]], *, within: float = 10.0, every: float = 0.05) -> Value:
    """Call the probe until it returns a truthy value, and return that value.

    Raises:
        AssertionError: no value was truthy in time; the message contains the last one.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        value = await probe()
        if value:
            return value
        assert loop.time() < deadline, f"still {value!r} after {within} s"
        await asyncio.sleep(every)
