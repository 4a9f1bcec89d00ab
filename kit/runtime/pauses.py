"""Long lists are converted in parts, so that other tasks of the event loop run in between."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_PER_TURN: Final = 32
"""Items that are converted without a pause."""


async def with_pauses(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items. After some of them, pause for as long as they took, because another request needs many turns."""
    started = time.perf_counter()
    for number, item in enumerate(items):
        if number and number % ITEMS_PER_TURN == 0:
            await asyncio.sleep(time.perf_counter() - started)
            started = time.perf_counter()
        yield item


async def convert_all(convert: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Convert each item, with pauses between the parts of a long list."""
    return [convert(item) async for item in with_pauses(items)]
