"""Exponential backoff with jitter, the one for all asynchronous retries."""

import random


class Backoff:
    """Delays between retries: exponential with equal jitter.

    Each delay is drawn between half of a bound and the bound, which doubles with every delay. Half is fixed, so that
    there is always a pause; half is random, to avoid a thundering herd.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        """Args:
        first_seconds: bound of the first delay.
        longest_seconds: maximum of the bound.
        """
        self._first = self._bound = first_seconds
        self._longest = longest_seconds

    def reset(self) -> None:
        """Start again at the first bound, after a success."""
        self._bound = self._first

    def next_delay(self) -> float:
        """Return the seconds to wait before the next retry."""
        seconds = self._bound * random.uniform(0.5, 1)  # noqa: S311  jitter, no secret
        self._bound = min(2 * self._bound, self._longest)
        return seconds
