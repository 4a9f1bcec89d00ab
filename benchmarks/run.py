"""One run: what was measured in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeAlias

from benchmarks.cpu_usage import cpu_seconds, machine_cpu_seconds
from loadtests.console import print_progress

Pids: TypeAlias = Mapping[str, Sequence[int]]
"""The processes of each kind that takes part in a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run did.

    Attributes:
        rate: transfers a second, or whatever was asked for.
        acknowledged: all of them that were answered, before and after the measured time, too.
        what: was asked for.
        details: for people.
    """

    name: str
    rate: float
    acknowledged: int
    what: str = "transfers"
    details: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> "Run":
        """The run, after whoever watches was told of it."""
        print_progress(f"   {self.name}: {self.rate:,.0f} {self.what}/s {_short(self.details)}")
        return self

    def as_details(self) -> dict[str, Any]:
        """The run as part of a figure."""
        return {"run": self.name, f"{self.what}_per_second": self.rate, **self.details}


def fastest(runs: Sequence[Run]) -> Run:
    """The run with the highest rate.

    What disturbs a run, such as a neighbour on the machine, only ever makes it slower, so the best of several is the
    one that says most about what is measured; and both sides of a ratio get this benefit.
    """
    return max(runs, key=attrgetter("rate"))


def cpu_meter(processes: Pids) -> Callable[[], dict[str, float]]:
    """Starts to measure; what it gives answers the processor seconds since, of each kind of process, and of all others
    on the machine: where these are many, the run says little.
    """

    def now() -> dict[str, float]:
        used = {kind: sum(map(cpu_seconds, pids)) for kind, pids in processes.items()}
        return {**used, "others": machine_cpu_seconds() - sum(used.values())}

    before = now()
    return lambda: {kind: seconds - before[kind] for kind, seconds in now().items()}


def _short(details: Mapping[str, Any]) -> str:
    latency, cpu = details.get("latency_ms"), details.get("cpu_seconds", {})
    parts = [] if not latency else ["ms " + "/".join(f"{value:.3g}" for value in latency.values())]
    parts += ["CPU s " + ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in cpu.items())] if cpu else []
    parts += [f"{details['batch_size']:.1f} a batch"] if details.get("batch_size") else []
    return f"({'; '.join(parts)})" if parts else ""
