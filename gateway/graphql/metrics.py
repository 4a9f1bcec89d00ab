"""What the graph's operations are known by: a duration, errors by code, and a line in the log for each.

Never what was asked for or answered: neither text nor variables.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram
from strawberry.extensions import SchemaExtension
from strawberry.types.execution import PreExecutionError

from gateway.errors import INVALID_GRAPHQL, graphql_error

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

_MOST_NAMES: Final = 100
_ANONYMOUS: Final = "anonymous"
_CANCELLED: Final = "CANCELLED"  # by the caller, who went away
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


class Operations(SchemaExtension):
    """Sees each operation from its beginning to its end, and makes its errors stable.

    This is where a span of an operation would begin and end.
    """

    def __init__(self, names: Names, *, suggestions: bool) -> None:
        """Args:
        names: that are told apart.
        suggestions: whether errors may say what else was perhaps meant.
        """
        self._names = names
        self._suggestions = suggestions
        self._is_stream = False
        self._codes: list[str] = []

    def on_operation(self) -> Iterator[None]:  # noqa: D102
        started = time.perf_counter()
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_stream:
                self._codes.append(_CANCELLED)
            raise
        except Exception:  # Strawberry's own, for an operation that is not there or not allowed
            self._codes.append(INVALID_GRAPHQL)
            raise
        finally:
            if not self._is_stream:
                self._stabilise(self.execution_context.result)
            self._tell(time.perf_counter() - started)

    def on_stream_result(self, result: Any) -> Iterator[None]:  # noqa: D102
        self._is_stream = True
        self._stabilise(result)
        yield

    def _stabilise(self, result: Any) -> None:
        if result is not None and result.errors:
            result.errors = [graphql_error(error, suggestions=self._suggestions) for error in result.errors]
            self._codes += [error.extensions["code"] for error in result.errors]

    def _tell(self, seconds: float) -> None:
        context = self.execution_context
        kind, name = NOT_READ, OTHER
        with suppress(RuntimeError):  # there is no document, or no such operation in it
            kind = context.operation_type.value
            name = self._names.label(context.operation_name, is_valid=not isinstance(context.result, PreExecutionError))
        OPERATION_SECONDS.labels(kind, name).observe(seconds)
        for code in self._codes:
            OPERATION_ERRORS.labels(kind, name, code).inc()
        log.info("operation", type=kind, name=name, ms=round(seconds * 1000, 1), errors=sorted(set(self._codes)))
