"""Keeps the history in the ledger's epoch: rebuilds the history when the epoch changes. ADR 38 lists the states.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID

import structlog

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.epochs import EpochTables, StoredEpoch
from subgraphs.analytics.service.domain.model import HeldPosting, Row
from subgraphs.analytics.service.domain.rows import rows_from_event
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_CHECK_INTERVAL_SECONDS: Final = 5.0
_MAX_POSTINGS: Final = 1_000
_INSERT_ROWS: Final = 2_000
_CONCURRENT_BANK_CALLS: Final = 8


class EpochChanged(Exception):
    """The ledger and the history have different epochs. The history is being rebuilt."""


class EpochFollower:
    """Compares the epoch of the history with the ledger's, and rebuilds the history when they differ.

    `run` compares the epochs every five seconds, and at once when `verify` or `is_followed` has found an epoch that the
    history never had. If the epochs differ, `run` copies the ledger's operations into a new table, which then replaces
    the history. Reads use the old history until then.

    The followed epoch is the newest one that the history had. ClickHouse may lose the history, or may be restored from
    a backup. Then the history may belong to an earlier epoch than the followed one. An earlier epoch is followed only
    if the ledger has it.
    """

    def __init__(
        self, tables: EpochTables, ledger: BankLedger, *, interval_seconds: float = _CHECK_INTERVAL_SECONDS
    ) -> None:
        """Args:
        tables: stores the epoch and the history.
        ledger: source of the epoch and of the operations.
        interval_seconds: interval between comparisons of the epochs.
        """
        self._tables = tables
        self._ledger = ledger
        self._interval_seconds = interval_seconds
        self._stored: StoredEpoch | None = None
        self._followed: StoredEpoch | None = None
        self._incarnation: str | None = None
        self._is_following = asyncio.Event()
        self._is_following.set()
        self._wake = asyncio.Event()
        self._writers = 0
        self._is_replacing = False
        self._changed = asyncio.Condition()
        self.on_rebuilt: list[Callable[[], None]] = []
        """Functions that are called after this process or another one has replaced the history. They do not block."""
        self.on_restored: list[Callable[[], None]] = []
        """Functions that are called when another epoch is followed: the ledger was restored. They do not block."""
        self.on_new_incarnation: list[Callable[[], None]] = []
        """Functions that are called when the ledger's server has changed. They do not block."""

    async def current(self) -> str:
        """Return the history's epoch, as this process has read it last.

        Raises:
            Unavailable: ClickHouse does not respond, and the epoch was never read.
        """
        return (self._stored or await self._read()).id

    async def refresh(self) -> str:
        """Read the epoch of the history, because another process may have replaced the history, and return it.

        Raises:
            Unavailable: ClickHouse does not respond.
        """
        return (await self._read()).id

    @property
    def followed(self) -> str | None:
        """The followed epoch; None if the epoch of the history was never read."""
        return self._followed.id if self._followed else None

    def is_followed(self, epoch: str) -> bool:
        """Return whether the epoch is the followed one. An epoch that the history never had triggers a comparison."""
        if self._followed is None or self._followed.id == epoch:
            return self._followed is not None
        if epoch not in self._followed.past:
            self._wake.set()
        return False

    async def wait_until_following(self) -> None:
        """Wait while the ledger is known to have another epoch than the history."""
        await self._is_following.wait()

    async def verify(self, postings: Iterable[HeldPosting] = ()) -> None:
        """Compare the epoch and postings of the history with the ledger.

        The bank begins a new epoch if the ledger contradicts a posting.

        Raises:
            EpochChanged: the ledger has another epoch than the history.
            WalletError: one of `TEMPORARY_ERRORS`: the bank or ClickHouse gave no response.
        """
        stored, held = await self._read(), list(postings)
        for start in range(0, len(held) or 1, _MAX_POSTINGS):
            chunk = held[start : start + _MAX_POSTINGS]
            identity = await self._ledger.verify_history(stored.id, stored.past, chunk)
            if identity.epoch != stored.id:
                self._is_following.clear()
                self._wake.set()
                raise EpochChanged(f"the ledger is in epoch {identity.epoch!r}, the history in {stored.id!r}")
            self._follow(stored)
            if self._incarnation != identity.incarnation:
                if self._incarnation is not None:
                    log.warning("ledger server changed", was=self._incarnation, now=identity.incarnation)
                    for notify in self.on_new_incarnation:
                        notify()
                self._incarnation = identity.incarnation

    @asynccontextmanager
    async def writing(self, epoch: str) -> AsyncIterator[None]:
        """Prevent the replacement of the history while the body inserts rows of an epoch.

        Raises:
            EpochChanged: the history belongs to another epoch.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_replacing)
            if await self.current() != epoch:
                raise EpochChanged(f"the history is not in epoch {epoch!r}")
            self._writers += 1
        try:
            yield
        finally:
            async with self._changed:
                self._writers -= 1
                self._changed.notify_all()

    async def run(self) -> None:
        """Compare the epochs periodically, and rebuild the history when they differ. Raise the first error."""
        while True:
            try:
                await self.verify()
            except EpochChanged as error:
                log.error("ledger epoch changed", error=str(error))
                metrics.REBUILDING.set(1)
                await self.rebuild()
            self._is_following.set()
            metrics.REBUILDING.set(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._wake.wait()
            self._wake.clear()

    async def rebuild(self) -> None:
        """Copy the ledger's operations into a new table, and make this table the history, unless the epochs are equal.

        A retry copies all operations again.

        Raises:
            EpochChanged: the ledger began another epoch during the rebuild. The history is unchanged.
            WalletError: one of `TEMPORARY_ERRORS`: the bank or ClickHouse gave no response. The history is unchanged.
        """
        stored = await self._read()
        identity = await self._ledger.verify_history(stored.id, stored.past, ())
        epoch = identity.epoch
        if epoch == stored.id:
            return
        table = await self._tables.create(stored.next(epoch, identity.past_epochs))
        log.info("history rebuild started", epoch=epoch, table=table)
        copied = 0
        try:
            async for versions in self._ledger.list_all_versions():
                copied += await self._copy_accounts(versions, epoch, table)
            await self._replace(table)
        except BaseException:
            with suppress(Unavailable):
                await self._tables.drop(table)
            raise
        metrics.EPOCH_CHANGES.inc()
        log.warning("history rebuilt", epoch=epoch, rows=copied)

    async def _replace(self, table: str) -> None:
        async with self._changed:
            self._is_replacing = True
            try:
                await self._changed.wait_for(lambda: not self._writers)
                await self._tables.replace_history(table)
                self._follow(await self._read())
            finally:
                self._is_replacing = False
                self._changed.notify_all()

    async def _copy_accounts(self, versions: Mapping[UUID, int], epoch: str, table: str) -> int:
        """Copy all operations of the accounts, and return the number of rows."""
        slots, pending, copied = asyncio.Semaphore(_CONCURRENT_BANK_CALLS), list[Row](), 0

        async def flush(minimum: int) -> None:
            nonlocal copied
            if len(pending) >= minimum:
                rows, pending[:] = pending[:], []
                await self._tables.insert(table, rows)
                copied += len(rows)

        async def copy(account_id: UUID, version: int) -> None:
            reached = 0
            while reached < version:
                async with slots:
                    events = await self._ledger.list_events(account_id, reached)
                if any(event.epoch != epoch for event in events):
                    raise EpochChanged(f"the ledger left epoch {epoch!r} during the rebuild")
                rows = [row for event in events for row in rows_from_event(event) if row.account_id == account_id]
                if not rows or rows[-1].account_version <= reached:
                    log.error("ledger operations missing", account_id=str(account_id), after_version=reached)
                    return
                reached = rows[-1].account_version
                pending.extend(rows)
                await flush(_INSERT_ROWS)

        try:
            async with asyncio.TaskGroup() as tasks:
                for account_id, version in versions.items():
                    tasks.create_task(copy(account_id, version))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        await flush(1)
        return copied

    async def _read(self) -> StoredEpoch:
        stored, previous = await self._tables.read(), self._stored
        self._stored = stored
        if previous is not None and previous.id != stored.id:
            for notify in self.on_rebuilt:
                notify()
        if self._followed is None or stored.id not in self._followed.past:
            self._follow(stored)
        return stored

    def _follow(self, stored: StoredEpoch) -> None:
        previous, self._followed = self._followed, stored
        if previous is not None and previous.id != stored.id:
            for notify in self.on_restored:
                notify()
