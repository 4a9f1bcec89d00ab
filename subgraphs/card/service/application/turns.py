"""Limit of the concurrent work of each customer. Waiting requests get their turns in the order of arrival."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from wallet.errors import RateLimited

AT_ONCE: Final = "card authorizations at once"
"""Name of the limit in errors."""


class Turns:
    """Limits the concurrent turns of each customer in this process. Further requests wait in memory."""

    def __init__(self, maximum: int) -> None:
        """Args:
        maximum: maximum concurrent turns of one customer.
        """
        self._maximum = maximum
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, customer: str, timeout_seconds: float) -> AsyncIterator[None]:
        """Wait for a turn and hold it during the block.

        Raises:
            RateLimited: the customer's other turns did not end within the time-out.
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
