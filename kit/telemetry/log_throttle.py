"""Rate limit of log lines that clients can cause."""

from typing import Final

_SECOND: Final = 1.0


class LogThrottle:
    """Admits a limited number of lines per second, and counts the omitted ones."""

    def __init__(self, lines_per_second: int) -> None:
        """Args:
        lines_per_second: lines that are admitted in one second.
        """
        self._limit = lines_per_second
        self._second_started = float("-inf")
        self._admitted = 0
        self._omitted = 0

    def admits(self, now: float) -> bool:
        """Return whether a line may be logged; otherwise count it as omitted.

        Args:
            now: time of a monotonic clock, in seconds.
        """
        if now - self._second_started >= _SECOND:
            self._second_started, self._admitted = now, 0
        if self._admitted < self._limit:
            self._admitted += 1
            return True
        self._omitted += 1
        return False

    def take_omitted(self) -> int:
        """Return the number of lines that were omitted since the last call."""
        omitted, self._omitted = self._omitted, 0
        return omitted
