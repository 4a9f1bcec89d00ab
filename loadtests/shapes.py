"""How the load changes over a run. Each shape has the run's users as its most, and its seconds as its end."""

from collections.abc import Mapping
from typing import Final

from locust import LoadTestShape

Tick = tuple[int, float] | None
"""So many users, coming or going at so many a second; None ends the run."""

_AT_ONCE: Final = 1_000.0


class Shape(LoadTestShape):
    """What they have in common. `users` and `seconds` are set by the locustfile."""

    abstract = True
    users = 1
    seconds = 1.0

    def tick(self) -> Tick:
        """Locust asks this every second."""
        share = self.get_run_time() / self.seconds
        return self.at(share) if share < 1 else None

    def at(self, share: float) -> Tick:
        """The load when that share of the time is over."""
        raise NotImplementedError


class Ramp(Shape):
    """From one user to all of them, evenly."""

    def at(self, share: float) -> Tick:
        """More and more."""
        return max(1, round(self.users * share)), _AT_ONCE


class Spike(Shape):
    """A tenth of the users, with all of them for the middle fifth of the time."""

    def at(self, share: float) -> Tick:
        """Few, all, few."""
        is_spike = 0.4 <= share < 0.6  # noqa: PLR2004  the middle fifth
        return self.users if is_spike else max(1, self.users // 10), _AT_ONCE


class Soak(Shape):
    """All users after the first twentieth of the time, and for the rest of it."""

    def at(self, share: float) -> Tick:
        """Nothing sudden, then nothing new."""
        return max(1, min(self.users, round(self.users * 20 * share))), _AT_ONCE


class Limit(Shape):
    """Ten steps of more and more users, until another step brings no tenth more answers a second, or the 95th percentile
    is beyond what people wait for: the step before was the limit.
    """

    patience_ms = 500.0
    steps = 10

    def __init__(self) -> None:
        super().__init__()
        self._step = 0
        self._best = 0.0

    def at(self, share: float) -> Tick:
        """A look back at the end of each step."""
        step = int(share * self.steps)
        if step > self._step:
            stats = self.runner.stats.total
            rate, p95 = stats.current_rps, stats.get_current_response_time_percentile(0.95) or 0.0
            print(f"{self._users(self._step)} users: {rate:.0f} answers/s, p95 {p95:.0f} ms")  # noqa: T201
            if p95 > self.patience_ms or (self._step and rate < 1.1 * self._best):
                return None
            self._best, self._step = max(rate, self._best), step
        return self._users(step), _AT_ONCE

    def _users(self, step: int) -> int:
        return max(1, round(self.users * (step + 1) / self.steps))


BY_NAME: Final[Mapping[str, type[Shape]]] = {"ramp": Ramp, "spike": Spike, "soak": Soak, "limit": Limit}
