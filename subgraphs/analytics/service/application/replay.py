"""The history made the ledger's again, by hand."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import structlog

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Copy, Window
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.application.comparison import Comparison, Strange, packs
from subgraphs.analytics.service.application.repair import Repair
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

_REMOVED_AT_ONCE: Final = 1_000
"""Rows. A removal costs ClickHouse as much for one as for many, and they are named in the request's address."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been done so far.

    Attributes:
        accounts: of the ledger that were checked.
        pulled: operations that were pulled from the bank and stored.
        removed: rows that were taken away, because they said something that the ledger does not.
        lacking: operations, or accounts with some, that the ledger counts and does not have.
    """

    accounts: int = 0
    pulled: int = 0
    removed: int = 0
    lacking: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a replay ended.

    Attributes:
        outcome: `complete`: everything that the ledger has was there at the end; `incomplete`: the ledger lacks what it
            counts; `unavailable`: ClickHouse or the bank went away. What was done is done: the next one goes on.
        seconds: how long it took.
    """

    outcome: Literal["complete", "incomplete", "unavailable"]
    accounts: int
    pulled: int
    removed: int
    lacking: int
    seconds: float


Report = Progress | Outcome


class Replay:
    """Pulls from the bank what the history lacks, through the same insert that the topic takes. One at a time.

    It may be ended at any moment and run again: each insert is whole, and a row that is stored twice counts once.
    """

    def __init__(self, history: History, copies: Copies, ledger: Ledger, repair: Repair) -> None:
        """Args:
        history: what is made complete.
        copies: the same, as it is stored.
        ledger: the truth.
        repair: knows how to fill gaps.
        """
        self._history = history
        self._copies = copies
        self._ledger = ledger
        self._repair = repair
        self._comparison = Comparison(copies, ledger)
        self._replaying = asyncio.Lock()

    @property
    def is_replaying(self) -> bool:
        """Whether one is running; another one would wait for its end."""
        return self._replaying.locked()

    async def replay(self, account_id: UUID | None, *, all_operations: bool) -> AsyncGenerator[Report, None]:
        """Progress after each page, and the outcome. Closing it ends the replay.

        Args:
            account_id: of one account, or None of all.
            all_operations: not only what is missing: what is stored is compared with the ledger, what differs is
                stored again as the ledger has it, and what the ledger does not have is removed.
        """
        async with self._replaying:
            run = _Run()
            started = time.monotonic()
            outcome: Literal["complete", "incomplete", "unavailable"]
            try:
                steps = self._rewrite(run, account_id) if all_operations else self._fill(run, account_id)
                async for _ in steps:
                    yield run.progress()
                outcome = "incomplete" if run.lacking else "complete"
            except WalletError as error:
                log.warning("the replay broke off", error=f"{type(error).__name__}: {error}")
                outcome = "unavailable"
            seconds = round(time.monotonic() - started, 3)
            log.info("replayed", outcome=outcome, accounts=run.accounts, pulled=run.pulled, removed=run.removed)
            yield Outcome(outcome, run.accounts, run.pulled, run.removed, run.lacking, seconds)

    async def _versions(self, account_id: UUID | None) -> AsyncIterator[dict[UUID, int]]:
        if account_id is not None:
            yield await self._ledger.versions([account_id])
            return
        async for versions in self._ledger.all_versions():
            yield versions

    async def _fill(self, run: "_Run", account_id: UUID | None) -> AsyncGenerator[None, None]:
        async for versions in self._versions(account_id):
            lacking = await self._repair.lacking(versions)
            for id_, version in lacking.items():
                async for pulled in self._repair.pull(id_, version):
                    run.pull(pulled)
                    yield
            for id_, version in (await self._repair.lacking(lacking)).items():
                # It may have all that the ledger has, and more.
                run.lacking += await self._history.prefix(id_) < version
            run.accounts += len(versions)
            yield

    async def _rewrite(self, run: "_Run", account_id: UUID | None) -> AsyncGenerator[None, None]:
        wrong: list[Copy] = []
        async for versions in self._versions(account_id):
            for pack in packs(Window(id_, 0, version) for id_, version in versions.items()):
                differences = await self._comparison.differences(pack)
                rows = [each.expected for each in differences if each.expected]
                # The row that was stored last is the one that is read, so there is no moment without the right one.
                if rows:
                    await self._history.insert(rows)
                    run.pull(len(rows))
                wrong += [copy for each in differences if each.expected for copy in each.wrong]
                if len(wrong) >= _REMOVED_AT_ONCE:
                    await self._remove(run, wrong)
                    wrong.clear()
                run.lacking += len(differences) - len(rows)
                yield
            run.accounts += len(versions)
            yield
        await self._remove(run, wrong)
        async for page in self._comparison.strangers(account_id):
            if isinstance(page, Strange):
                await self._remove(run, page.copies)
                yield

    async def _remove(self, run: "_Run", copies: Sequence[Copy]) -> None:
        for start in range(0, len(copies), _REMOVED_AT_ONCE):
            removed = copies[start : start + _REMOVED_AT_ONCE]
            await self._copies.remove(removed)
            metrics.REMOVED.inc(len(removed))
            run.removed += len(removed)


@dataclass(slots=True)
class _Run:
    accounts: int = 0
    pulled: int = 0
    removed: int = 0
    lacking: int = 0

    def pull(self, operations: int) -> None:
        metrics.REPLAYED.inc(operations)
        self.pulled += operations

    def progress(self) -> Progress:
        return Progress(self.accounts, self.pulled, self.removed, self.lacking)
