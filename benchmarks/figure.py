"""Result of a benchmark, printed as one JSON object per line."""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import orjson

_DIGITS: Final = 3


class BenchError(Exception):
    """A run that measured nothing worth a figure; the message is for a person and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person may choose: seconds a run is measured for, whether the bank has a broker, how long a soak is."""

    seconds: float = 8.0
    kafka: bool = False
    soak_minutes: float = 10.0

    @property
    def warm_up(self) -> float:
        """Seconds that each run goes on before it is measured."""
        return self.seconds / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One result. A `bar` is what it must at least be, or at most where less is better; None: it is only reported."""

    figure: str
    value: float
    unit: str
    bar: float | None = None
    better: Literal["higher", "lower"] = "higher"
    details: Mapping[str, Any]

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar

    def line(self) -> str:
        """The figure as it is printed."""
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


class Part(Protocol):
    """A module that measures one part of the system."""

    FIGURES: Collection[str]
    """The names of its figures, in the order that they are measured in."""

    def measure(self, wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
        """The wanted ones of its figures, as they come.

        Raises:
            BenchError: a run went wrong.
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
