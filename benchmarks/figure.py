"""Figures: results of the benchmarks, each printed as one line of JSON."""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import orjson

_DIGITS: Final = 3


class BenchError(Exception):
    """A run without a valid figure. The message contains the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command line.

    Attributes:
        seconds: duration of each measured run.
        kafka: start a broker for the bank, so that the bank publishes its outbox.
        soak_minutes: duration of the soak, a long run under constant load that measures memory.
    """

    seconds: float = 8.0
    kafka: bool = False
    soak_minutes: float = 10.0

    @property
    def warm_up_seconds(self) -> float:
        """Duration of the load before the measurement starts."""
        return self.seconds / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One result.

    Attributes:
        figure: name, for example `bank.unary_vs_pgbench`.
        bar: target for the value: a lower bound if `better` is "higher", an upper bound if it is "lower"; None if the
            figure has no target.
        details: measurements that explain the value; no target depends on them.
    """

    figure: str
    value: float
    unit: str
    bar: float | None = None
    better: Literal["higher", "lower"] = "higher"
    details: Mapping[str, Any]

    @property
    def meets_target(self) -> bool:
        """Whether the value meets the target; True if there is no target."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar

    def to_json(self) -> str:
        """Return the figure as one line, with numbers rounded to three decimal places."""
        return orjson.dumps(
            {
                "figure": self.figure,
                "value": round(self.value, _DIGITS),
                "unit": self.unit,
                "bar": self.bar,
                "better": self.better,
                "details": _rounded(self.details),
            },
        ).decode()


class FigureModule(Protocol):
    """Module that measures the figures of one part of the system."""

    FIGURES: Collection[str]
    """Names of the module's figures, in the order of measurement."""

    def measure(self, names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
        """Measure the module's figures that are in `names`, and yield each figure when it is complete.

        Raises:
            BenchError: a run gave no valid figure.
        """
        ...


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
