"""Result of one measured load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from loadtests.console import print_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Result of a run.

    Attributes:
        rate: transfers per second, or pages per second if `counted` is "pages".
        acknowledged: number of successful requests, including those outside of the measured time.
        counted: what the rate counts; part of the key in `as_details`.
        details: further measurements, such as latencies; no target depends on them.
    """

    name: str
    rate: float
    acknowledged: int
    counted: str = "transfers"
    details: Mapping[str, Any] = field(default_factory=dict)

    def print_summary(self) -> None:
        """Print the run as a line of progress."""
        print_progress(f"   {self.name}: {self.rate:,.0f} {self.counted}/s {_summary(self.details)}")

    def as_details(self) -> dict[str, Any]:
        """Return the run as part of a figure's details."""
        return {"run": self.name, f"{self.counted}_per_second": self.rate, **self.details}


def fastest(runs: Sequence[Run]) -> Run:
    """Return the run with the highest rate.

    Interference, such as other work on the machine, only makes runs slower. So the fastest run is the best
    measurement, for both sides of a ratio.
    """
    return max(runs, key=attrgetter("rate"))


def _summary(details: Mapping[str, Any]) -> str:
    latency, cpu = details.get("latency_ms"), details.get("cpu_seconds", {})
    parts = [] if not latency else ["ms " + "/".join(f"{value:.3g}" for value in latency.values())]
    parts += ["CPU s " + ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in cpu.items())] if cpu else []
    parts += [f"{details['batch_size']:.1f} per batch"] if details.get("batch_size") else []
    return f"({'; '.join(parts)})" if parts else ""
