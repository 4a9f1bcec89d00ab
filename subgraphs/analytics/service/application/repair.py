"""Finds operations that the history lacks, and restores them from the ledger.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application.epoch import EpochFollower
from subgraphs.analytics.service.domain.model import HeldPosting
from subgraphs.analytics.service.domain.rows import rows_from_event

log = structlog.get_logger(__name__)

PERIOD_SECONDS: Final = 60.0
"""Interval between comparisons of all accounts."""

_PAGE_SIZE: Final = 1_000
_MAX_SUSPECTS: Final = 10_000
_LATE_SECONDS: Final = 5.0
"""Age of a message from which the topic delivers late."""
_LONGEST_DELIVERY_SECONDS: Final = 30.0
"""Longest time for which the repair lets a topic that delivers late catch up."""


class Repair:
    """Compares the history with the ledger, and inserts the missing operations.

    All accounts are compared at the start and once per period. Between these comparisons, accounts with a suspected gap
    are compared. Except at the start, a missing operation is read from the ledger only after the grace period, in which
    the topic may still deliver it.

    While the topic delivers messages that are more than five seconds old, the missing operations are probably among
    those that wait. To read them from the ledger would delay the topic further, so that the next operations would be
    missing, too, and a busy machine would never catch up. Then the repair waits, but at most half a minute.
    """

    def __init__(
        self,
        history: History,
        ledger: BankLedger,
        epochs: EpochFollower,
        *,
        grace_seconds: float,
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        """Args:
        history: the history to complete.
        ledger: source of the missing operations.
        epochs: compares the epochs of the history and the ledger.
        grace_seconds: time that the topic has to deliver a missing operation, before it is read from the ledger.
        period_seconds: interval between comparisons of all accounts.
        """
        self._history = history
        self._ledger = ledger
        self.epochs = epochs
        self._grace_seconds = grace_seconds
        self._period_seconds = period_seconds
        self._is_prompt = asyncio.Event()
        self._is_prompt.set()
        self._suspects: set[UUID] = set()
        self._are_all_suspected = False
        self._wake = asyncio.Event()
        self._is_first = True
        self._next_period: float | None = None

    def suspect(self, account_id: UUID) -> None:
        """Schedule a comparison of an account. Does not block."""
        if len(self._suspects) < _MAX_SUSPECTS:
            self._suspects.add(account_id)
        else:
            self._are_all_suspected = True
        self._wake.set()

    def suspect_all(self) -> None:
        """Schedule a comparison of all accounts. Does not block."""
        self._are_all_suspected = True
        self._wake.set()

    def note_delivery(self, seconds: float) -> None:
        """Note how old the oldest message was when a batch of the topic was stored. Does not block."""
        if seconds > _LATE_SECONDS:
            self._is_prompt.clear()
        else:
            self._is_prompt.set()

    async def run(self) -> None:
        """Repair until an error occurs, and raise it. The next run compares the suspected accounts again.

        While the history is rebuilt in another epoch, the repair waits.
        """
        await self.epochs.wait_until_following()
        clock = asyncio.get_running_loop().time
        if self._is_first:
            await self.repair_all(grace_seconds=0)
            self._is_first = False
        if self._next_period is None:
            self._next_period = clock() + self._period_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_period):
                    await self._wake.wait()
            if clock() >= self._next_period:  # also if accounts were suspected meanwhile
                self._are_all_suspected = True
            self._wake.clear()
            suspects, self._suspects = self._suspects, set()
            is_full, self._are_all_suspected = self._are_all_suspected, False
            try:
                if is_full:
                    await self.repair_all(grace_seconds=self._grace_seconds)
                    self._next_period = clock() + self._period_seconds
                else:
                    await self._repair(await self._ledger.get_versions(list(suspects)), self._grace_seconds)
            except BaseException:
                self._suspects |= suspects
                self._are_all_suspected |= is_full
                self._wake.set()
                raise

    async def repair_all(self, *, grace_seconds: float) -> None:
        """Insert the missing operations of all accounts.

        Args:
            grace_seconds: time that the topic has to deliver missing operations, before they are read from the ledger.
        """
        incomplete: dict[UUID, int] = {}
        async for versions in self._ledger.list_all_versions():
            incomplete |= await self.find_incomplete(versions)
            metrics.ACCOUNTS_INCOMPLETE.set(len(incomplete))
            if len(incomplete) >= _MAX_SUSPECTS:
                await self._repair(incomplete, grace_seconds)
                incomplete.clear()
        await self._repair(incomplete, grace_seconds)
        metrics.COMPARED.set_to_current_time()

    async def find_incomplete(self, versions: Mapping[UUID, int]) -> dict[UUID, int]:
        """Return the accounts whose history is not certainly complete up to the given version, with these versions.

        The newest stored operation of each account is compared with the ledger. If the ledger contradicts the stored
        operation, the bank begins a new epoch.

        Raises:
            EpochChanged: the ledger has another epoch than the history.
        """
        incomplete: dict[UUID, int] = {}
        ids = [account_id for account_id, version in versions.items() if version > 0]
        for start in range(0, len(ids), _PAGE_SIZE):
            coverages = await self._history.get_coverage(ids[start : start + _PAGE_SIZE])
            await self.epochs.verify(
                HeldPosting(id_, coverage.highest, coverage.operation_id)
                for id_, coverage in coverages.items()
                if coverage.operation_id is not None
            )
            for id_, coverage in coverages.items():
                if not coverage.is_complete_up_to(versions[id_]):
                    incomplete[id_] = versions[id_]
        return incomplete

    async def insert_missing(self, account_id: UUID, version: int) -> AsyncGenerator[int, None]:
        """Complete an account's history up to a version; yield the number of inserted operations after each insert."""
        total = 0
        reached = await self._history.get_complete_version(account_id)
        while reached < version:
            events = await self._ledger.list_events(account_id, reached)
            rows = [row for event in events for row in rows_from_event(event)]
            inserted = [row.account_version for row in rows if row.account_id == account_id]
            if not inserted or inserted != list(range(reached + 1, reached + 1 + len(inserted))):
                log.error("ledger operations missing", account_id=str(account_id), after_version=reached)
            if not inserted or inserted[-1] <= reached:
                break
            async with self.epochs.writing(events[0].epoch):
                await self._history.insert(rows)
            total += len(inserted)
            metrics.EVENTS_REPAIRED.inc(len(inserted))
            yield len(inserted)
            # Skips the stored operations above the gap. The search starts at the last inserted version: a search from
            # version 0 would never pass a gap of the ledger.
            reached = await self._history.get_complete_version(account_id, inserted[-1])
        if total:
            log.info("history repaired", account_id=str(account_id), events=total, version=reached)

    async def _repair(self, versions: Mapping[UUID, int], grace_seconds: float) -> None:
        """Complete each account's history up to the version, after the grace period."""
        if not versions:
            return
        if grace_seconds:
            await asyncio.sleep(grace_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_DELIVERY_SECONDS):
                    await self._is_prompt.wait()
        incomplete = await self.find_incomplete(versions)
        metrics.ACCOUNTS_INCOMPLETE.set(len(incomplete))
        for account_id, version in incomplete.items():
            async for _ in self.insert_missing(account_id, version):
                pass
            metrics.ACCOUNTS_INCOMPLETE.dec()
        if incomplete:  # operations that the ledger itself lacks are still missing
            metrics.ACCOUNTS_INCOMPLETE.set(len(await self.find_incomplete(incomplete)))
