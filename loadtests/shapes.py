"""How the load changes over a run. Each shape has the run's users as its most, and its seconds as its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from locust import LoadTestShape

Tick = tuple[int, float] | None
"""So many users, coming or going at so many a second; None ends the run."""

STEPS_FILE: Final = "steps.txt"

_AT_ONCE: Final = 1_000.0


class Shape(LoadTestShape):
    """What they have in common. The attributes are set by the locustfile."""

    abstract = True
    users = 1
    seconds = 1.0
    folder = Path()

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
    """Ten steps of more and more users, until another step brings no tenth more answers a second, or answers take
    longer than people wait: the step before was the limit. What was seen at each step is in the folder's `steps.txt`.
    """

    patience_ms = 500.0
    steps = 10

    def __init__(self) -> None:
        super().__init__()
        self._step = 0
        self._best = 0.0
        self._seen = (0.0, 0, 0.0)

    def at(self, share: float) -> Tick:
        """A look back at the end of each step."""
        step = int(share * self.steps)
        if step == self._step:
            return self._users(step), _AT_ONCE
        rate, mean = self._since_last()
        with (self.folder / STEPS_FILE).open("a") as file:
            file.write(f"{self._users(self._step)} users: {rate:.0f} answers/s, {mean:.0f} ms each\n")
        if mean > self.patience_ms or rate < 1.1 * self._best:
            return None
        self._best, self._step = rate, step
        return self._users(step), _AT_ONCE

    def _since_last(self) -> tuple[float, float]:
        """Answers a second, and milliseconds that each took."""
        assert self.runner is not None  # noqa: S101  it is what asks
        total = self.runner.stats.total
        now, count, milliseconds = self.get_run_time(), total.num_requests, total.total_response_time
        since, before, spent = self._seen
        self._seen = now, count, milliseconds
        return (count - before) / (now - since), (milliseconds - spent) / max(count - before, 1)

    def _users(self, step: int) -> int:
        return max(1, round(self.users * (step + 1) / self.steps))


BY_NAME: Final[Mapping[str, type[Shape]]] = {"ramp": Ramp, "spike": Spike, "soak": Soak, "limit": Limit}
