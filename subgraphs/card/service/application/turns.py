"""Limit of the concurrent requests of each customer. Waiting requests get their turns in the order of arrival."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from wallet.errors import RateLimited

AT_ONCE: Final = "card authorizations at once"
"""Name of the limit in errors."""


class Turns:
    """Limits how many requests of one customer run at the same time in this process.

    A running request holds a turn. Further requests wait in memory for a turn.
    """

    def __init__(self, maximum: int) -> None:
        """Args:
        maximum: maximum number of concurrent requests of one customer.
        """
        self._maximum = maximum
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, customer: str, timeout_seconds: float) -> AsyncIterator[None]:
        """Wait for a turn and hold it during the block.

        Raises:
            RateLimited: the customer's running requests did not end within the time-out.
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
