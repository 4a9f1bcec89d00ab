"""Turns: concurrent work of one customer, in the order of arrival."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from wallet.errors import RateLimited

AT_ONCE: Final = "card authorizations at once"
"""Name of the limit in errors."""


class Turns:
    """Lets each customer have a number of turns at once in this process. Further requests wait in memory."""

    def __init__(self, maximum: int) -> None:
        """Args:
        maximum: maximum turns of one customer at once.
        """
        self._maximum = maximum
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, customer: str, timeout_seconds: float) -> AsyncIterator[None]:
        """Wait for a turn and hold it during the block.

        Raises:
            RateLimited: there was no turn in time.
        """
        semaphore = self._semaphores.setdefault(customer, asyncio.Semaphore(self._maximum))
        try:
            async with asyncio.timeout(timeout_seconds):
                await semaphore.acquire()
        except TimeoutError:
            raise RateLimited(AT_ONCE, "1") from None
        try:
            yield
        finally:
            semaphore.release()
