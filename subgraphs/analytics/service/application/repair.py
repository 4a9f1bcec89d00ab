"""What the topic has lost, from the ledger: the history is complete however the events travelled."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final
from uuid import UUID

import structlog

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.domain.rows import rows_of

log = structlog.get_logger(__name__)

_PAGE: Final = 1_000
_MOST_SUSPECTS: Final = 10_000


class Repair:
    """Compares the history with the ledger, and pulls what is missing through the same insert that the topic takes.

    Compared are all accounts at the start and every so often, and single accounts as soon as one is suspected. What
    the ledger has had for less than the grace is taken to be on its way, but at the start.
    """

    def __init__(self, history: History, ledger: Ledger, *, period_seconds: float, grace_seconds: float) -> None:
        self._history = history
        self._ledger = ledger
        self._period = period_seconds
        self._grace = grace_seconds
        self._suspects: set[UUID] = set()
        self._all_suspect = False
        self._wake = asyncio.Event()
        self._is_first = True

    def suspect(self, account_id: UUID) -> None:
        """Says that something of the account seems to be missing. Never blocks."""
        if len(self._suspects) < _MOST_SUSPECTS:
            self._suspects.add(account_id)
        else:
            self._all_suspect = True
        self._wake.set()

    def suspect_all(self) -> None:
        """Says that anything might be missing. Never blocks."""
        self._all_suspect = True
        self._wake.set()

    async def run(self) -> None:
        """Repairs until something fails, which it raises; whatever was suspected is taken up again by the next run."""
        if self._is_first:
            await self.compare_all(grace_seconds=0)
            self._is_first = False
        while True:
            try:
                async with asyncio.timeout(self._period):
                    await self._wake.wait()
            except TimeoutError:
                self._all_suspect = True
            self._wake.clear()
            suspects, self._suspects = self._suspects, set()
            is_all, self._all_suspect = self._all_suspect, False
            try:
                if is_all:
                    await self.compare_all(grace_seconds=self._grace)
                else:
                    await self._mend(await self._ledger.versions(list(suspects)), self._grace)
            except BaseException:
                self._suspects |= suspects
                self._all_suspect |= is_all
                self._wake.set()
                raise

    async def compare_all(self, *, grace_seconds: float) -> None:
        """Pulls what is missing of any account.

        Args:
            grace_seconds: how long to wait for the topic to bring what is missing, before the ledger is asked for it.
        """
        lacking: dict[UUID, int] = {}
        async for versions in self._ledger.all_versions():
            lacking |= await self.lacking(versions)
            metrics.ACCOUNTS_INCOMPLETE.set(len(lacking))
            if len(lacking) >= _MOST_SUSPECTS:
                await self._mend(lacking, grace_seconds)
                lacking.clear()
        await self._mend(lacking, grace_seconds)
        metrics.COMPARED.set_to_current_time()

    async def _mend(self, versions: Mapping[UUID, int], grace_seconds: float) -> None:
        """Makes each account's history complete up to the version, after the grace."""
        if not versions:
            return
        await asyncio.sleep(grace_seconds)
        lacking = await self.lacking(versions)
        metrics.ACCOUNTS_INCOMPLETE.set(len(lacking))
        for account_id, version in lacking.items():
            async for _ in self.pull(account_id, version):
                pass
            metrics.ACCOUNTS_INCOMPLETE.dec()
        if lacking:  # what the ledger itself has not got is missing still
            metrics.ACCOUNTS_INCOMPLETE.set(len(await self.lacking(lacking)))

    async def lacking(self, versions: Mapping[UUID, int]) -> dict[UUID, int]:
        """Those of the accounts whose history is not known to be complete up to the version."""
        lacking: dict[UUID, int] = {}
        ids = [account_id for account_id, version in versions.items() if version > 0]
        for start in range(0, len(ids), _PAGE):
            coverage = await self._history.coverage(ids[start : start + _PAGE])
            lacking |= {id_: versions[id_] for id_, stored in coverage.items() if not stored.reaches(versions[id_])}
        return lacking

    async def pull(self, account_id: UUID, version: int) -> AsyncGenerator[int, None]:
        """Makes the account's history complete up to the version; after each insert, how many operations it was of."""
        pulled = 0
        # What is stored above a gap is skipped over, so that one lost event does not cost the whole history after it.
        reached = await self._history.prefix(account_id)
        while reached < version:
            rows = [row for event in await self._ledger.events(account_id, reached) for row in rows_of(event)]
            own = [row.account_version for row in rows if row.account_id == account_id]
            if not own or own != list(range(reached + 1, reached + 1 + len(own))):
                log.error("the ledger lacks what it counts", account_id=str(account_id), after_version=reached)
            if not own or own[-1] <= reached:
                break
            await self._history.insert(rows)
            pulled += len(own)
            metrics.EVENTS_REPAIRED.inc(len(own))
            yield len(own)
            # From what was pulled, not from what is now without a gap: one in the ledger would be pulled for ever.
            reached = await self._history.prefix(account_id, own[-1])
        if pulled:
            log.info("repaired", account_id=str(account_id), events=pulled, version=reached)
