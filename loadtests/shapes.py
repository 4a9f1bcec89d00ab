"""Shapes of the load over time. The plan of the run has the maximum number of users and the duration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from locust import LoadTestShape

from loadtests.plan import Plan

Tick = tuple[int, float] | None
"""Number of users and spawn rate per second; None ends the run."""

STEPS_FILE: Final = "steps.txt"

_SPAWN_RATE: Final = 1_000.0


class Shape(LoadTestShape):
    """Base class."""

    abstract = True
    use_common_options = True
    users = 1
    seconds = 1.0
    folder = Path()

    def set_up(self, plan: Plan, folder: Path) -> None:
        """Set the parameters of a run before it starts."""
        self.users, self.seconds, self.folder = plan.users, plan.seconds, folder

    def tick(self) -> Tick:
        """Return the load now. Locust calls this every second."""
        progress = self.get_run_time() / self.seconds
        return self.load_at(progress) if progress < 1 else None

    def load_at(self, progress: float) -> Tick:
        """Return the load at a point of the run, from 0 to 1."""
        raise NotImplementedError


class Ramp(Shape):
    """Linear growth from one user to all."""

    def load_at(self, progress: float) -> Tick:
        """Return a number of users in proportion to the progress."""
        return max(1, round(self.users * progress)), _SPAWN_RATE


class Spike(Shape):
    """A tenth of the users, and all of them during the middle fifth of the run."""

    def load_at(self, progress: float) -> Tick:
        """Return all users in the middle fifth, a tenth of them otherwise."""
        is_spike = 0.4 <= progress < 0.6  # noqa: PLR2004  the middle fifth
        return self.users if is_spike else max(1, self.users // 10), _SPAWN_RATE


class Soak(Shape):
    """Linear growth during the first twentieth of the run, then all users to its end."""

    def load_at(self, progress: float) -> Tick:
        """Return all users after the first twentieth."""
        return max(1, min(self.users, round(self.users * 20 * progress))), _SPAWN_RATE


class Limit(Shape):
    """Ten steps, each with more users than the last one, to find the maximum throughput.

    The run ends when a step increases the throughput by less than a tenth, or when its mean latency exceeds 500 ms. The
    previous step is the limit. The throughput and latency of each step are written to `steps.txt` in the folder.
    """

    max_latency_ms = 500.0
    steps = 10

    def __init__(self) -> None:
        super().__init__()
        self._step = 0
        self._best_rate = 0.0
        self._last_totals = (0.0, 0, 0.0)

    def load_at(self, progress: float) -> Tick:
        """Return the load of the current step, and evaluate each step at its end."""
        step = int(progress * self.steps)
        if step == self._step:
            return self._users_at(step), _SPAWN_RATE
        rate, mean = self._measure_since_last()
        with (self.folder / STEPS_FILE).open("a") as file:
            file.write(f"{self._users_at(self._step)} users: {rate:.0f} responses/s, mean latency {mean:.0f} ms\n")
        if mean > self.max_latency_ms or rate < 1.1 * self._best_rate:
            return None
        self._best_rate, self._step = rate, step
        return self._users_at(step), _SPAWN_RATE

    def _measure_since_last(self) -> tuple[float, float]:
        """Return the responses per second and their mean latency in milliseconds since the last measurement."""
        assert self.runner is not None  # noqa: S101  the runner calls `tick`
        total = self.runner.stats.total
        now, count, milliseconds = self.get_run_time(), total.num_requests, total.total_response_time
        last_time, last_count, last_milliseconds = self._last_totals
        self._last_totals = now, count, milliseconds
        answers = count - last_count
        return answers / (now - last_time), (milliseconds - last_milliseconds) / max(answers, 1)

    def _users_at(self, step: int) -> int:
        return max(1, round(self.users * (step + 1) / self.steps))


BY_NAME: Final[Mapping[str, type[Shape]]] = {"ramp": Ramp, "spike": Spike, "soak": Soak, "limit": Limit}
