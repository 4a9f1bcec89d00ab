"""What the graph's operations are known by: a duration, errors by code, and a place in the log for each.

Never what was asked for or answered: neither text nor variables.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import Counter, Histogram

log = structlog.get_logger(__name__)

OPERATION_SECONDS = Histogram(
    "wallet_gateway_operation_duration_seconds",
    "Operations of the graph, by type and name; a subscription's time is all of its life.",
    ["type", "name"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OPERATION_ERRORS = Counter(
    "wallet_gateway_operation_errors",
    "Errors in answers of the graph, by the operation's type and name and the error's code.",
    ["type", "name", "code"],
)

NOT_READ: Final = "not read"
"""The type of what was refused before that was known."""

OTHER: Final = "other"
"""The name of what is not told apart."""

Told: TypeAlias = dict[str, Any]
"""What the log says of an operation: its type, its name, how long it took, the codes of its errors."""

_MOST_NAMES: Final = 100
_ANONYMOUS: Final = "anonymous"
_SAFE: Final = re.compile(r"(?!.*\d{3})\w{1,64}")  # with room for no card's number


class Names:
    """The names of operations that are told apart: these, or the first hundred that come. All others are `other`."""

    def __init__(self, known: Iterable[str] | None) -> None:
        self._names = set(known or ())
        self._most = len(self._names) if known is not None else _MOST_NAMES

    def label(self, name: str | None, *, is_valid: bool) -> str:
        """What an operation of this name counts as; a name of what is not valid is not remembered."""
        if not name:
            return _ANONYMOUS
        if name not in self._names:
            if not is_valid or len(self._names) >= self._most or not _SAFE.fullmatch(name):
                return OTHER
            self._names.add(name)
        return name


def tell(kind: str, name: str, seconds: float, codes: Sequence[str], operations: list[Told] | None) -> None:
    """An operation that is over.

    Args:
        kind: its type, or NOT_READ.
        name: as `Names` has it.
        seconds: that it took.
        codes: of its errors.
        operations: those of the request whose line of log tells of it; None where it has a line of its own.
    """
    OPERATION_SECONDS.labels(kind, name).observe(seconds)
    for code in codes:
        OPERATION_ERRORS.labels(kind, name, code).inc()
    told = {"type": kind, "name": name, "ms": round(seconds * 1000, 1), "errors": sorted(set(codes))}
    if operations is None:
        log.info("operation", **told)
    else:
        operations.append(told)
