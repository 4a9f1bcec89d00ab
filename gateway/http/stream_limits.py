"""Limit on open streams per caller: WebSockets, and subscriptions over WebSockets or server-sent events.

A rate limit does not bound long-lived connections, so open streams are limited separately.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial

from kit.auth.principal import Principal


class StreamLimiter:
    """Counts the open streams of each caller in this process."""

    def __init__(self, limit: int) -> None:
        """Args:
        limit: maximum number of open streams of one caller.
        """
        self.limit = limit
        self._open: Counter[str] = Counter()

    def acquire(self, caller: Principal) -> Callable[[], None] | None:
        """Count one more stream of the caller.

        Returns:
            A function that releases the stream; call it once. None if the caller is at the limit.
        """
        key = caller.scope
        if self._open[key] >= self.limit:
            return None
        self._open[key] += 1
        return partial(self._release, key)

    def _release(self, key: str) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]
