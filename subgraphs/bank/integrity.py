"""The ledger proved, page by page, while it is in use."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal
from uuid import UUID

import asyncpg
import structlog

from subgraphs.bank import metrics
from subgraphs.bank.repository.proof import KEYS, TRANSFERS, WALKS, Law, Page, Proof, Violation, Walk
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_PAGE: Final = 2_000
_REPORTED: Final = 100
_PARTS: Final = 16**3
_NAMED: Final = 100_000
"""How many ids may be held in memory, to name the transfers that have not one key."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk has come: every row of the table up to this one, `rows` in all, has been checked."""

    walk: str
    verified_up_to: str
    rows: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a proof ended.

    Attributes:
        verdict: `sound` only of a ledger that was seen whole; `unavailable`: the database went away before the end, and
            nothing wrong had been found.
        rows: how many were checked, by table.
        violations: how many were found; `broken` has them by law.
        seconds: how long it took.
    """

    verdict: Literal["sound", "broken", "unavailable"]
    rows: Mapping[str, int]
    violations: int
    broken: Mapping[Law, int]
    seconds: float


Report = Progress | Violation | Verdict


class Integrity:
    """Proves the ledger's laws (`Law`). One proof at a time.

    What it cannot prove, because nothing else in the ledger says it: that an account without entries has not vanished,
    or changed its opening balance with its balance; that a key is its caller's, and its fingerprint the request's; that
    what has left the outbox was published. That a transfer has one key is proved of those that had been committed
    before the oldest transaction that was running when the proof began.
    """

    def __init__(self, pool: asyncpg.Pool, page: int = _PAGE) -> None:
        """Args:
        pool: of connections to the ledger's database; one is held while proving.
        page: rows a statement.
        """
        self._pool = pool
        self._page = page
        self._proving = asyncio.Lock()

    @property
    def is_proving(self) -> bool:
        """Whether a proof is running; another one would wait for its end."""
        return self._proving.locked()

    async def prove(self) -> AsyncGenerator[Report, None]:
        """Progress after each page and violations as they are found, at most `_REPORTED` of a law, and the verdict.
        Closing it ends the proof.
        """
        async with self._proving:
            run = _Run(started=time.monotonic())
            finished = False
            try:
                async with Proof.begin(self._pool) as proof:
                    async for report in self._reports(proof, run):
                        yield report
                finished = True
            except (Unavailable, asyncpg.PostgresError) as error:
                log.warning("the ledger could not be proved", error=f"{type(error).__name__}: {error}")
            verdict = run.verdict(finished=finished)
            if finished:
                metrics.INTEGRITY_VIOLATIONS.set(verdict.violations)
                metrics.INTEGRITY_FINISHED.set_to_current_time()
            yield verdict

    async def _reports(self, proof: Proof, run: "_Run") -> AsyncGenerator[Report, None]:
        made, remembered = Tally(), Tally()
        tallies = {TRANSFERS.table: made, KEYS.table: remembered}
        for walk in WALKS:
            async for page in self._pages(proof, walk):
                if walk.pairs:
                    tallies[walk.table].add(page.pairs)
                run.rows[walk.table] += page.rows
                for violation in run.reported(page.violations):
                    yield violation
                yield Progress(walk.table, page.verified_up_to, run.rows[walk.table])
        for violation in run.reported(await proof.totals()):
            yield violation
        differing = made.differing(remembered)
        if differing:
            async for report in self._unpaired(proof, run, differing):
                yield report

    async def _unpaired(
        self, proof: Proof, run: "_Run", differing: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[Report, None]:
        """The transfers that have no key or several. Both sides are walked again, for the parts in which they differ;
        of transfers that would not fit in memory, only the numbers are told.
        """
        room, named, counted = _NAMED, set[int](), list[Violation]()
        for part, (made, remembered) in differing.items():
            room -= made + remembered
            if room >= 0:
                named.add(part)
            else:
                counted.append(_one_key(f"…{part:03x}", remembered, made))
        keys = Counter[UUID]()
        for walk in (TRANSFERS, KEYS) if named else ():
            rows = 0
            async for page in self._pages(proof, walk):
                ids = [id_ for id_ in page.pairs if part_of(id_) in named]
                keys.update(ids if walk is KEYS else dict.fromkeys(ids, 0))
                rows += page.rows
                yield Progress(walk.table, page.verified_up_to, rows)
        unpaired = (_one_key(str(id_), count, 1) for id_, count in sorted(keys.items()) if count != 1)
        for violation in run.reported(chain(unpaired, counted)):
            yield violation

    async def _pages(self, proof: Proof, walk: Walk) -> AsyncGenerator[Page, None]:
        """A page that is not full is the last: another one would find what was committed since, and so for ever."""
        page = await proof.page(walk, None, self._page)
        while page:
            yield page
            page = await proof.page(walk, page.mark, self._page) if page.rows == self._page else None


def part_of(id_: UUID) -> int:
    """The part of all ids that this one is in: its last three digits, which are random in an id of ours."""
    return id_.int % _PARTS


class Tally:
    """Ids in whatever order they come, remembered in constant memory: by part, how many and their exclusive or.

    Two tallies of the same many ids, one of them without an id or with another instead, are the same by a chance of
    1 in 2¹¹⁰ (the random bits of an id in its part).
    """

    def __init__(self) -> None:
        self._parts = [(0, 0)] * _PARTS

    def add(self, ids: Iterable[UUID]) -> None:
        """Counts ids."""
        for id_ in ids:
            part = part_of(id_)
            count, bits = self._parts[part]
            self._parts[part] = count + 1, bits ^ id_.int

    def differing(self, other: "Tally") -> dict[int, tuple[int, int]]:
        """The parts in which the two were not given the same, with how many ids each was given."""
        pairs = zip(self._parts, other._parts, strict=True)  # noqa: SLF001  of its own class
        return {part: (mine[0], theirs[0]) for part, (mine, theirs) in enumerate(pairs) if mine != theirs}


@dataclass(slots=True)
class _Run:
    """What a proof has seen so far."""

    started: float
    rows: Counter[str] = field(default_factory=lambda: Counter({walk.table: 0 for walk in WALKS}))
    broken: Counter[Law] = field(default_factory=Counter)

    def reported(self, violations: Iterable[Violation]) -> list[Violation]:
        """Counts them; those that are still few enough to be told."""
        told = []
        for violation in violations:
            self.broken[violation.law] += 1
            if self.broken[violation.law] <= _REPORTED:
                told.append(violation)
        return told

    def verdict(self, *, finished: bool) -> Verdict:
        """A ledger with a violation is broken, even if not all of it was seen."""
        verdict: Literal["sound", "broken", "unavailable"]
        verdict = "broken" if self.broken else "sound" if finished else "unavailable"
        seconds = round(time.monotonic() - self.started, 3)
        return Verdict(verdict, dict(self.rows), self.broken.total(), dict(self.broken), seconds)


def _one_key(transfer_id: str, keys: int, transfers: int) -> Violation:
    expected = "1 key" if transfers == 1 else f"a key for each of {transfers} transfers"
    return Violation(Law.TRANSFER_HAS_ONE_KEY, {"transfer_id": transfer_id}, f"{keys} keys", expected)
