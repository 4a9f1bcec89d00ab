"""Allowance that refills at a constant rate."""

from typing import Final

_CLOCK_SECONDS: Final = 0.001


class TokenBucket:
    """Allowance that refills at a constant rate, up to a maximum. It may be overdrawn.

    Attributes:
        level: tokens at the last refill; negative if overdrawn.
    """

    __slots__ = ("_at_once", "_per_second", "_since", "level")

    def __init__(self, per_second: float, at_once: float, now: float) -> None:
        """Args:
        per_second: tokens that are added each second.
        at_once: initial and maximum level.
        now: time of the event loop, in seconds.
        """
        self._per_second = per_second
        self._at_once = at_once
        self._since = now
        self.level = at_once

    def refill(self, now: float) -> float:
        """Add the tokens of the time since the last refill, and return the level."""
        self.level = min(self.level + (now - self._since) * self._per_second, self._at_once)
        self._since = now
        return self.level

    def take(self, tokens: float, now: float) -> float:
        """Take tokens, and return the seconds until the bucket is no longer overdrawn; 0 if it is not.

        The seconds are never so few that a clock could not measure them.
        """
        self.level = self.refill(now) - tokens
        return max(_CLOCK_SECONDS, -self.level / self._per_second) if self.level < 0 else 0.0
