"""How much one caller may have open at once: WebSockets, and subscriptions on them or by server-sent events. A rate
alone would let anybody gather what is never closed.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial

from kit.auth.principal import Principal


class Streams:
    """Counts what is open in this process, by caller."""

    def __init__(self, limit: int) -> None:
        """Args:
        limit: of one caller.
        """
        self.limit = limit
        self._open: Counter[str] = Counter()

    def open(self, caller: Principal) -> Callable[[], None] | None:
        """Counts one more of a caller's, until what this returns is called; None where it would be one too many."""
        who = caller.scope
        if self._open[who] >= self.limit:
            return None
        self._open[who] += 1
        return partial(self._close, who)

    def _close(self, who: str) -> None:
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]
