"""Metrics and log lines of the graph's operations, without query texts, variables or results."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import Counter, Histogram

log = structlog.get_logger(__name__)

OPERATION_SECONDS = Histogram(
    "wallet_gateway_operation_duration_seconds",
    "Duration of GraphQL operations, by type and name; that of a subscription is the time from its start to its end.",
    ["type", "name"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OPERATION_ERRORS = Counter(
    "wallet_gateway_operation_errors",
    "Errors in GraphQL responses, by the operation's type and name and the error's code.",
    ["type", "name", "code"],
)

NOT_READ: Final = "not read"
"""Operation type in metrics and logs if the operation is refused before its type is known."""

OTHER: Final = "other"
"""Operation name in metrics and logs if the name itself is not a metric label."""

OperationSummary: TypeAlias = dict[str, Any]
"""Log fields of one operation: type, name, duration in milliseconds, error codes."""

_MAX_NAMES: Final = 100
_ANONYMOUS: Final = "anonymous"
_SAFE: Final = re.compile(r"(?!.*\d{3})\w{1,64}")
"""Names that cannot contain a card number."""


class OperationNames:
    """Bounded set of operation names that are metric labels. Every other name is `other`."""

    def __init__(self, names: Iterable[str] | None) -> None:
        """Args:
        names: names that become labels. None: the first hundred names of valid operations become labels.
        """
        self._names = set(names or ())
        self._max_names = len(self._names) if names is not None else _MAX_NAMES

    def label(self, name: str | None, *, is_valid: bool) -> str:
        """Return the metric label of an operation name.

        Args:
            name: name of the operation, if it has one.
            is_valid: the operation is valid, so a new name may become a label.
        """
        if not name:
            return _ANONYMOUS
        if name not in self._names:
            if not is_valid or len(self._names) >= self._max_names or not _SAFE.fullmatch(name):
                return OTHER
            self._names.add(name)
        return name


def record_operation(
    operation_type: str, name: str, seconds: float, codes: Mapping[str, int], operations: list[OperationSummary] | None
) -> None:
    """Record a finished operation in the metrics and the log.

    Args:
        operation_type: `query`, `mutation`, `subscription` or `NOT_READ`.
        name: label that `OperationNames.label` returned.
        seconds: duration.
        codes: number of the operation's errors, by code.
        operations: list to append the summary to, for the log line of the request. None: log the operation separately.
    """
    _operation_seconds(operation_type, name).observe(seconds)
    for code, count in codes.items():
        OPERATION_ERRORS.labels(operation_type, name, code).inc(count)
    summary = {"type": operation_type, "name": name, "ms": round(seconds * 1000, 1), "errors": sorted(codes)}
    if operations is None:
        log.info("operation completed", **summary)
    else:
        operations.append(summary)


@lru_cache(maxsize=1_024)
def _operation_seconds(operation_type: str, name: str) -> Histogram:
    """Return the histogram with these labels. `labels` would take as long as the observation in each operation."""
    return OPERATION_SECONDS.labels(operation_type, name)
