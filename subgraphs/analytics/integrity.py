"""The history proved against the ledger, page by page, while both are in use."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal

import structlog

from subgraphs.analytics import metrics
from subgraphs.analytics.clickhouse import History, Window
from subgraphs.analytics.comparison import Checked, Comparison, Difference, Strange, packs
from subgraphs.analytics.domain import Row
from subgraphs.analytics.ledger import Ledger
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

_REPORTED: Final = 100
_MOST_MISSING: Final = 50_000
"""Stretches of missing operations that may wait in memory to be looked at again."""
_OPERATIONS: Final = "operations"
_ACCOUNTS: Final = "stored accounts"


class Law(StrEnum):
    """What holds of the history at every moment. Together they say that it is the ledger's, no less and no more."""

    OPERATION_IS_STORED = "OPERATION_IS_STORED"
    """Of every account, versions 1 to the ledger's are there."""
    COPY_IS_LEDGERS = "COPY_IS_LEDGERS"
    """Every copy of an operation says in all what the ledger says, and so no two of them differ."""
    VERSION_IS_LEDGERS = "VERSION_IS_LEDGERS"
    """Nothing is stored of an account beyond the version that it has in the ledger."""
    ACCOUNT_IS_LEDGERS = "ACCOUNT_IS_LEDGERS"
    """Nothing is stored of an account that the ledger does not know."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An operation that breaks a law."""

    law: Law
    row: Mapping[str, str | int]
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk has come: `rows` in all have been checked, up to this account."""

    walk: str
    verified_up_to: str
    rows: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a proof ended.

    Attributes:
        verdict: `sound` only of a history that was compared whole; `unavailable`: ClickHouse or the bank went away
            before the end, and nothing wrong had been found.
        rows: how many were checked: operations of the ledger, accounts of the history.
        behind: operations of the ledger that were not stored yet and are so recent that they may be on their way.
        violations: how many were found; `broken` has them by law.
        seconds: how long it took.
    """

    verdict: Literal["sound", "broken", "unavailable"]
    rows: Mapping[str, int]
    behind: int
    violations: int
    broken: Mapping[Law, int]
    seconds: float


Report = Progress | Violation | Verdict


class Integrity:
    """Proves that the stored history is the ledger's. One proof at a time.

    Each account is compared up to the version that the ledger has when the account's page is read; what happens later
    is the next proof's. An operation that is not stored then is looked at again after a wait. If it still is not, it is
    a violation, or, where it is younger than any way of coming may take, `behind`.
    """

    def __init__(self, history: History, ledger: Ledger, *, wait_seconds: float, on_its_way_seconds: float) -> None:
        """Args:
        history: what is proved.
        ledger: what it is held against.
        wait_seconds: before what is missing is looked at again.
        on_its_way_seconds: how old an operation may be that has not come yet, by the bank's clock and this one.
        """
        self._comparison = Comparison(history, ledger)
        self._ledger = ledger
        self._wait = wait_seconds
        self._on_its_way = timedelta(seconds=on_its_way_seconds)
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
                async for report in self._operations(run):
                    yield report
                async for report in self._strangers(run):
                    yield report
                finished = True
            except WalletError as error:
                log.warning("the history could not be proved", error=f"{type(error).__name__}: {error}")
            verdict = run.verdict(finished=finished)
            if finished:
                metrics.INTEGRITY_VIOLATIONS.set(verdict.violations)
                metrics.INTEGRITY_BEHIND.set(verdict.behind)
                metrics.INTEGRITY_FINISHED.set_to_current_time()
            yield verdict

    async def _operations(self, run: "_Run") -> AsyncGenerator[Report, None]:
        missing: list[Window] = []
        async for versions in self._ledger.all_versions():
            for pack in packs(Window(account_id, 0, version) for account_id, version in versions.items()):
                differences = await self._comparison.differences(pack)
                for violation in run.reported(_wrong(differences)):
                    yield violation
                _add(missing, differences)
                run.rows[_OPERATIONS] += sum(window.up_to - window.after for window in pack)
                yield Progress(_OPERATIONS, str(pack[-1].account_id), run.rows[_OPERATIONS])
                if len(missing) >= _MOST_MISSING:
                    async for report in self._again(run, missing):
                        yield report
                    missing.clear()
        async for report in self._again(run, missing):
            yield report

    async def _again(self, run: "_Run", missing: list[Window]) -> AsyncGenerator[Report, None]:
        """What was missing, after the wait."""
        if not missing:
            return
        await asyncio.sleep(self._wait)
        looked_at = 0
        for pack in packs(missing):
            differences = await self._comparison.differences(pack)
            recent = datetime.now(UTC) - self._on_its_way
            for violation in run.reported(_wrong(differences)):
                yield violation
            lost = []
            for each in differences:
                if each.wrong:
                    continue
                if each.expected and each.expected.occurred_at > recent:
                    run.behind += 1
                else:
                    lost.append(each)
            for violation in run.reported(map(_missing, lost)):
                yield violation
            looked_at += sum(window.up_to - window.after for window in pack)
            yield Progress("operations that were missing", str(pack[-1].account_id), looked_at)

    async def _strangers(self, run: "_Run") -> AsyncGenerator[Report, None]:
        async for page in self._comparison.strangers():
            match page:
                case Strange():
                    for violation in run.reported(_strange(page)):
                        yield violation
                case Checked():
                    run.rows[_ACCOUNTS] += page.accounts
                    yield Progress(_ACCOUNTS, str(page.up_to), run.rows[_ACCOUNTS])


@dataclass(slots=True)
class _Run:
    """What a proof has seen so far."""

    started: float
    rows: Counter[str] = field(default_factory=lambda: Counter({_OPERATIONS: 0, _ACCOUNTS: 0}))
    broken: Counter[Law] = field(default_factory=Counter)
    behind: int = 0

    def reported(self, violations: Iterable[Violation]) -> list[Violation]:
        """Counts them; those that are still few enough to be told."""
        told = []
        for violation in violations:
            self.broken[violation.law] += 1
            if self.broken[violation.law] <= _REPORTED:
                told.append(violation)
        return told

    def verdict(self, *, finished: bool) -> Verdict:
        """A history with a violation is broken, even if not all of it was seen."""
        verdict: Literal["sound", "broken", "unavailable"]
        verdict = "broken" if self.broken else "sound" if finished else "unavailable"
        seconds = round(time.monotonic() - self.started, 3)
        return Verdict(verdict, dict(self.rows), self.behind, self.broken.total(), dict(self.broken), seconds)


def _add(missing: list[Window], differences: Iterable[Difference]) -> None:
    """Adds the operations of which nothing is stored; neighbours are one window."""
    for each in differences:
        if each.wrong:
            continue
        last = missing[-1] if missing else None
        if last and (last.account_id, last.up_to) == (each.account_id, each.version - 1):
            missing[-1] = Window(each.account_id, last.after, each.version)
        else:
            missing.append(Window(each.account_id, each.version - 1, each.version))


def _wrong(differences: Iterable[Difference]) -> Iterator[Violation]:
    for each in differences:
        for copy in each.wrong:
            found, expected = _told(copy.row, each.expected)
            yield Violation(Law.COPY_IS_LEDGERS, _place(copy.row), found, expected)


def _missing(difference: Difference) -> Violation:
    row: dict[str, str | int] = {"account_id": str(difference.account_id), "version": difference.version}
    expected = difference.expected
    told = _text(expected) if expected else "an operation that the ledger counts, and does not have either"
    return Violation(Law.OPERATION_IS_STORED, row, "nothing", told)


def _strange(page: Strange) -> Iterator[Violation]:
    if page.version is None:
        law, expected = Law.ACCOUNT_IS_LEDGERS, "nothing: the ledger has no such account"
    else:
        law, expected = Law.VERSION_IS_LEDGERS, f"nothing: in the ledger the account is at version {page.version}"
    for copy in page.copies:
        yield Violation(law, _place(copy.row), _text(copy.row), expected)


def _place(row: Row) -> dict[str, str | int]:
    return {"account_id": str(row.account_id), "version": row.account_version}


def _told(found: Row, expected: Row | None) -> tuple[str, str]:
    """What the two do not agree on."""
    if expected is None:
        return _text(found), "an operation that the ledger counts, and does not have"
    mine, theirs = _values(found), _values(expected)
    names = [name for name in mine if mine[name] != theirs[name]]
    return _listed({name: mine[name] for name in names}), _listed({name: theirs[name] for name in names})


def _text(row: Row) -> str:
    return _listed(_values(row))


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _values(row: Row) -> dict[str, str]:
    return {
        "operation_id": str(row.operation_id),
        "type": row.type.value,
        "direction": row.direction.value,
        "amount": _plain(row.amount),
        "currency": row.currency,
        "balance_after": _plain(row.balance_after),
        "counterparty_id": str(row.counterparty_id),
        "occurred_at": row.occurred_at.isoformat(),
    }


def _plain(amount: Decimal) -> str:
    """The same text for the same number, however many zeros it came with."""
    return f"{amount.normalize():f}"
