"""Turns of clients at work that is done one piece at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """Lets one task at a time work, and clients take turns.

    Of each client, only one task waits in the common queue. So a client with many tasks delays each task of another
    client by at most one of its own.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn of the client, and end it with the block."""
        async with self._lock(client), self._lock(None):
            yield

    def _lock(self, client: str | None) -> asyncio.Lock:
        """Return the lock of a client, or the common one. It exists as long as a task holds it or waits for it."""
        lock = self._locks.get(client)
        if lock is None:
            lock = self._locks[client] = asyncio.Lock()
        return lock
