"""A service's data proved while they are in use: the laws and the walk are its own, what is made of them is here."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final, Literal

import structlog
from fastapi import APIRouter, HTTPException
from prometheus_client import Gauge

from kit.http.admin import JsonLinesResponse
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

_REPORTED: Final = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk has come: every row up to this one, `rows` in all, has been checked."""

    walk: str
    verified_up_to: str
    rows: int


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks a law. `row` identifies it and holds no secret."""

    law: StrEnum
    row: Mapping[str, str | int]
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A row of a walk that is not there yet, and is so recent that it may be on its way: no violation."""

    walk: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a proof ended.

    Attributes:
        verdict: `sound` only of data that were seen whole; `unavailable`: what is needed to see them went away before
            the end, and nothing wrong had been found.
        rows: how many were checked, by walk.
        behind: how many were not there yet and may be on their way, by walk.
        violations: how many were found; `broken` has them by law.
        seconds: how long it took.
    """

    verdict: Literal["sound", "broken", "unavailable"]
    rows: Mapping[str, int]
    behind: Mapping[str, int]
    violations: int
    broken: Mapping[StrEnum, int]
    seconds: float


Finding = Progress | Violation | Pending
Report = Progress | Violation | Verdict


@dataclass(frozen=True, slots=True)
class Gauges:
    """A service's metrics of its last finished proof; `behind` where rows have a way to come."""

    violations: Gauge
    finished: Gauge
    behind: Gauge | None = None

    def show(self, verdict: Verdict) -> None:
        """Of a proof that has just finished."""
        self.violations.set(verdict.violations)
        if self.behind is not None:
            self.behind.set(sum(verdict.behind.values()))
        self.finished.set_to_current_time()


class IntegrityCheck:
    """Proves that a service's laws hold. One proof at a time."""

    def __init__(
        self, found: Callable[[], AsyncGenerator[Finding, None]], walks: Iterable[str], gauges: Gauges
    ) -> None:
        """Args:
        found: goes through the data and tells what it finds. It ends when all have been seen, and raises a WalletError
            when it cannot go on. It may be closed at any moment.
        walks: the walks whose rows the verdict counts. There may be others, which look at the same rows again.
        gauges: the service's metrics.
        """
        self._found = found
        self._walks = tuple(walks)
        self._gauges = gauges
        self._proving = asyncio.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a proof is running; another one would wait for its end."""
        return self._proving.locked()

    async def run(self) -> AsyncGenerator[Report, None]:
        """Progress and violations as they are found, at most `_REPORTED` of a law, and the verdict. Closing it ends the
        proof.
        """
        async with self._proving:
            run = _Run(started=time.monotonic(), rows=dict.fromkeys(self._walks, 0))
            finished = False
            try:
                async with aclosing(self._found()) as found:
                    async for each in found:
                        if told := run.told(each):
                            yield told
                finished = True
            except WalletError as error:
                cause = error.__cause__ or error
                log.warning("the proof broke off", error=f"{type(cause).__name__}: {cause}")
            verdict = run.verdict(finished=finished)
            if finished:
                self._gauges.show(verdict)
            yield verdict


def integrity_router(integrity: IntegrityCheck) -> APIRouter:
    """`GET /integrity` proves the service's laws and tells how it goes, line by line; the last line is the verdict.
    When the client goes away, the proof ends. 409 while another one runs.
    """
    router = APIRouter()

    @router.get("/integrity")
    async def prove() -> JsonLinesResponse:
        if integrity.is_running:
            raise HTTPException(409, "a proof is running in this process: wait for its end")
        return JsonLinesResponse(_lines(integrity))

    return router


async def _lines(integrity: IntegrityCheck) -> AsyncGenerator[dict[str, object], None]:
    async with aclosing(integrity.run()) as reports:
        async for report in reports:
            match report:
                case Progress():
                    yield {"progress": asdict(report)}
                case Violation():
                    yield {"violation": asdict(report)}
                case Verdict():
                    yield asdict(report)


@dataclass(slots=True)
class _Run:
    """What a proof has seen so far."""

    started: float
    rows: dict[str, int]
    behind: Counter[str] = field(default_factory=Counter)
    broken: Counter[StrEnum] = field(default_factory=Counter)

    def told(self, found: Finding) -> Progress | Violation | None:
        """Counts it; itself, if it is to be told."""
        match found:
            case Progress():
                if found.walk in self.rows:
                    self.rows[found.walk] = found.rows
                return found
            case Violation():
                self.broken[found.law] += 1
                return found if self.broken[found.law] <= _REPORTED else None
            case Pending():
                self.behind[found.walk] += 1
                return None

    def verdict(self, *, finished: bool) -> Verdict:
        """Data with a violation are broken, even if not all of them were seen."""
        verdict: Literal["sound", "broken", "unavailable"]
        verdict = "broken" if self.broken else "sound" if finished else "unavailable"
        seconds = round(time.monotonic() - self.started, 3)
        return Verdict(verdict, self.rows, dict(self.behind), self.broken.total(), dict(self.broken), seconds)
