"""Fair queue of clients for work that one task does at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """Lock that one task holds at a time, and for which clients take turns.

    At most one task of each client waits in the common queue. So a client with many waiting tasks delays a task of
    another client by only one of them.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """Wait for the client's turn. The turn ends when the `async with` block ends."""
        async with self._lock(client), self._lock(None):
            yield

    def _lock(self, client: str | None) -> asyncio.Lock:
        """Return the lock of a client, or the common lock for None. A lock is deleted when no task uses it."""
        lock = self._locks.get(client)
        if lock is None:
            lock = self._locks[client] = asyncio.Lock()
        return lock
