"""Integrity check of a service's data while the service runs.

The service defines the invariants and the scans. A scan reads a table and yields findings: its progress, rows that
break an invariant, and pending rows. This module counts the findings and reports them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

import structlog
from fastapi import APIRouter, HTTPException
from prometheus_client import Gauge

from kit.http.admin import JsonLinesResponse
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

_MAX_REPORTED_PER_INVARIANT: Final = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a scan: `rows` rows are checked, up to and including the row `verified_up_to`."""

    scan: str
    verified_up_to: str
    rows: int


@dataclass(frozen=True, slots=True)
class Violation:
    """Row that breaks an invariant. `row` identifies it and contains no secret."""

    invariant: StrEnum
    row: Mapping[str, str | int]
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Missing row that is too recent to be a violation: it may be stored soon."""

    scan: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a check.

    Attributes:
        verdict: `sound`: all rows were checked and no invariant is broken; `broken`: there are violations;
            `unavailable`: a dependency failed before the end, and no violation had been found until then.
        rows: checked rows by scan.
        pending: missing rows that are too recent to be violations, by scan.
        violations: number of violations.
        broken: number of violations by invariant.
        seconds: duration.
    """

    verdict: Literal["sound", "broken", "unavailable"]
    rows: Mapping[str, int]
    pending: Mapping[str, int]
    violations: int
    broken: Mapping[StrEnum, int]
    seconds: float


Finding = Progress | Violation | Pending
Report = Progress | Violation | Verdict


@dataclass(frozen=True, slots=True)
class Gauges:
    """Metrics of the last finished check; a check that cannot find pending rows has no `pending`."""

    violations: Gauge
    finished: Gauge
    pending: Gauge | None = None

    def record(self, verdict: Verdict) -> None:
        """Set the gauges to the result of a check that has just finished."""
        self.violations.set(verdict.violations)
        if self.pending is not None:
            self.pending.set(sum(verdict.pending.values()))
        self.finished.set_to_current_time()


class IntegrityCheck:
    """Check of a service's invariants. Only one run is active at a time."""

    def __init__(self, find: Callable[[], AsyncGenerator[Finding, None]], scans: Iterable[str], gauges: Gauges) -> None:
        """Args:
        find: scans the data and yields findings. It ends after the last row, and raises a WalletError if a dependency
            fails. It may be closed at any time.
        scans: scans whose rows the verdict counts. Other scans, which check the same rows again, are not counted.
        gauges: metrics of the service.
        """
        self._find = find
        self._scans = tuple(scans)
        self._gauges = gauges
        self._lock = asyncio.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a check is running; a second one would wait for its end."""
        return self._lock.locked()

    async def run(self) -> AsyncGenerator[Report, None]:
        """Yield progress and violations while they are found, at most 100 violations per invariant, then the verdict.

        Closing the generator ends the check.
        """
        async with self._lock:
            totals = _Totals(started=time.monotonic(), rows=dict.fromkeys(self._scans, 0))
            is_finished = False
            try:
                async with aclosing(self._find()) as findings:
                    async for finding in findings:
                        if report := totals.add(finding):
                            yield report
                is_finished = True
            except WalletError as error:
                cause = error.__cause__ or error
                log.warning("integrity check interrupted", error=f"{type(cause).__name__}: {cause}")
            verdict = totals.verdict(is_finished=is_finished)
            if is_finished:
                self._gauges.record(verdict)
            yield verdict


def integrity_router(integrity: IntegrityCheck) -> APIRouter:
    """Return the route `GET /integrity`: it runs the check and streams its reports as JSON lines, the verdict last.

    A client that disconnects ends the check. The response is 409 while another check runs.
    """
    router = APIRouter()

    @router.get("/integrity")
    async def run_check() -> JsonLinesResponse:
        if integrity.is_running:
            raise HTTPException(409, "an integrity check is running in this process: wait for its end")
        return JsonLinesResponse(_lines(integrity))

    return router


async def _lines(integrity: IntegrityCheck) -> AsyncGenerator[dict[str, object], None]:
    """Yield the reports as JSON objects. The keys `walk`, `law` and `behind` are the names that earlier releases used
    for scan, invariant and pending.
    """
    async with aclosing(integrity.run()) as reports:
        async for report in reports:
            match report:
                case Progress(scan, verified_up_to, rows):
                    yield {"progress": {"walk": scan, "verified_up_to": verified_up_to, "rows": rows}}
                case Violation(invariant, row, found, expected):
                    yield {"violation": {"law": invariant, "row": row, "found": found, "expected": expected}}
                case Verdict():
                    yield {
                        "verdict": report.verdict,
                        "rows": report.rows,
                        "behind": report.pending,
                        "violations": report.violations,
                        "broken": report.broken,
                        "seconds": report.seconds,
                    }


@dataclass(slots=True)
class _Totals:
    """Counts of a running check."""

    started: float
    rows: dict[str, int]
    pending: Counter[str] = field(default_factory=Counter)
    broken: Counter[StrEnum] = field(default_factory=Counter)

    def add(self, finding: Finding) -> Progress | Violation | None:
        """Count a finding; return it if it is to be reported."""
        match finding:
            case Progress():
                if finding.scan in self.rows:
                    self.rows[finding.scan] = finding.rows
                return finding
            case Violation():
                self.broken[finding.invariant] += 1
                return finding if self.broken[finding.invariant] <= _MAX_REPORTED_PER_INVARIANT else None
            case Pending():
                self.pending[finding.scan] += 1
                return None

    def verdict(self, *, is_finished: bool) -> Verdict:
        """Return the verdict. Data with a violation are `broken`, even if not all rows were checked."""
        verdict: Literal["sound", "broken", "unavailable"]
        verdict = "broken" if self.broken else "sound" if is_finished else "unavailable"
        seconds = round(time.monotonic() - self.started, 3)
        return Verdict(verdict, self.rows, dict(self.pending), self.broken.total(), dict(self.broken), seconds)
