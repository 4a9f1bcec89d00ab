"""Spreads the requests of each client over time.

A rate limit of one minute allows a client to send all requests of the minute at once, and other clients would wait
until the gateway has handled them. So the requests of a client start at a few times the sustained rate.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cachetools import LRUCache

_MULTIPLE: Final = 3.0
"""Rate at which the requests of one client start, divided by the rate of its limit."""

_SHORTEST_WAIT_SECONDS: Final = 0.001

AT_ONCE: Final = 32
"""Requests of one client that start without a pause."""

_CLIENTS: Final = 10_000


class Pacer:
    """Delays requests so that those of one client start at a limited rate, in the order in which they arrive."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        min_per_second: float = 100.0,
        longest_wait_seconds: float = 5.0,
        at_once: int = AT_ONCE,
    ) -> None:
        """Args:
        clock: returns the time in seconds.
        sleep: waits for some seconds.
        min_per_second: minimum rate at which the requests of one client start. Refusing a hundred takes some 50 ms.
        longest_wait_seconds: a request that would wait for longer is refused.
        at_once: requests of one client that start without a pause.
        """
        self._clock = clock
        self._sleep = sleep
        self._min_per_second = min_per_second
        self._longest_wait_seconds = longest_wait_seconds
        self._at_once = at_once
        self._full_at: LRUCache[str, float] = LRUCache(_CLIENTS)
        """Time at which each client may again start as many requests at once as allowed."""

    async def wait(self, client: str, per_second: float, amount: int = 1) -> None:
        """Wait until the client's next request may start.

        Args:
            client: key of the client.
            per_second: sustained rate of the client's limit; 0 if there is none.
            amount: number of requests that this one counts as.

        Raises:
            TimeoutError: so many requests of the client wait that the next one would wait for too long.
        """
        now, interval = self._clock(), 1 / max(_MULTIPLE * per_second, self._min_per_second)
        full_at = max(now, self._full_at.get(client, now)) + amount * interval
        seconds = full_at - now - self._at_once * interval
        if seconds > self._longest_wait_seconds:
            raise TimeoutError
        self._full_at[client] = full_at
        if seconds > _SHORTEST_WAIT_SECONDS:
            await self._sleep(seconds)
