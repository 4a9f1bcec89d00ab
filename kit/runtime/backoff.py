"""Pauses between attempts: longer with each, and never the same for two who began together."""

import random


class Backoff:
    """The pauses of one who tries again until it works. Each is drawn between half of a bound and all of it; the bound
    doubles with every failure. Half of it is there so that a pause is one, half by chance so that many who have lost
    the same thing at the same moment do not all come back to it at once.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        """Args:
        first_seconds: the first bound.
        longest_seconds: the greatest.
        """
        self._first = self._bound = first_seconds
        self._longest = longest_seconds

    def reset(self) -> None:
        """It has worked: the next pause is a first one."""
        self._bound = self._first

    def pause(self) -> float:
        """The seconds to wait now."""
        seconds = self._bound * random.uniform(0.5, 1)  # noqa: S311  spreads attempts, keeps no secret
        self._bound = min(2 * self._bound, self._longest)
        return seconds
