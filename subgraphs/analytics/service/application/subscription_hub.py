"""Streams of an account's operations: stored ones, then new ones, in version order, without gaps or repeats.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from kit.rpc import request_context
from kit.runtime.fair_limit import FairLimit
from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.model import Event, Row, StreamStart
from subgraphs.analytics.service.domain.rows import rows_from_event
from subgraphs.bank.client import BankClient
from wallet.errors import TEMPORARY_ERRORS, LedgerRestored, SubscriberTooSlow, Unavailable

log = structlog.get_logger(__name__)

_RESOURCE: Final = "the operation subscription"
_BATCH_SIZE: Final = 32
_PAGE_SIZE: Final = 16 * _BATCH_SIZE
_CONCURRENT_READS: Final = 4
_MISSING_OPERATION_DELAY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Time and size limits of subscriptions.

    Attributes:
        gap_timeout_seconds: time that the topic has to deliver a missing operation, before it is fetched.
        check_interval_seconds: interval between comparisons of subscribed accounts with the bank, which find events
            that the topic has lost.
        access_interval_seconds: interval between checks of whether a subscriber may still read the account.
        buffer_size: maximum operations that wait for one subscriber.
    """

    gap_timeout_seconds: float = 0.25
    check_interval_seconds: float = 5.0
    access_interval_seconds: float = 60.0
    buffer_size: int = 1_000


class _Subscription:
    """A subscriber's position in an account's history, and the buffered operations above it.

    `last` is the account's version that was delivered last, `known` the highest version that is known to exist.
    """

    def __init__(self, buffer_size: int) -> None:
        self.last = 0
        self.known = 0
        self.is_closed = False
        self.is_epoch_over = False
        self.is_live = False
        self.is_delivering = False
        self.is_overrun = False
        self._buffer_size = buffer_size
        self._buffer: dict[int, Row] = {}
        self._changed = asyncio.Event()

    def expect(self, version: int) -> None:
        """Record that a version exists."""
        self.known = max(self.known, version)
        self._changed.set()

    def offer(self, row: Row) -> None:
        """Buffer a new operation."""
        if row.account_version <= self.last or self.is_overrun:
            return
        self.expect(row.account_version)
        if len(self._buffer) < self._buffer_size:
            self._buffer[row.account_version] = row
        elif self.is_live and self.is_delivering:
            # The buffer is full because the subscriber is too slow. In all other states the buffer is full because this
            # process is too slow; it drops the operation here and fetches it later.
            self.is_overrun = True
            self._buffer.clear()

    def close(self) -> None:
        """End the stream at its next step."""
        self.is_closed = True
        self._changed.set()

    def end_epoch(self) -> None:
        """End the stream at its next step: its positions belong to a previous epoch."""
        self.is_epoch_over = True
        self.close()

    def begin(self, after: int) -> None:
        """Start the delivery after a version. Buffered operations up to this version are dropped."""
        self.last = after
        self._buffer = {version: row for version, row in self._buffer.items() if version > after}

    def has_next_row(self) -> bool:
        """Return whether the next row is buffered."""
        return self.last + 1 in self._buffer

    def next_rows(self) -> list[Row]:
        """Return the next rows that are buffered, up to the first gap or the size of a batch."""
        rows = []
        for version in range(self.last + 1, self.last + 1 + _BATCH_SIZE):
            if (row := self._buffer.get(version)) is None:
                break
            rows.append(row)
        return rows

    def advance(self, rows: Iterable[Row]) -> None:
        """Record that the next rows are delivered."""
        for row in rows:
            self.last = row.account_version
            self._buffer.pop(self.last, None)

    async def wait_for_change(self, until: float | None = None) -> None:
        """Wait for a change, at most until a time of the loop's clock."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()

    async def wait_for_next_row(self, timeout_seconds: float) -> bool:
        """Return whether the next row arrived, or the stream ended, before the time-out."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not (self.has_next_row() or self.is_closed or self.is_overrun):
                    await self.wait_for_change()
        except TimeoutError:
            return False
        return True


class SubscriptionHub:
    """Open streams of this replica. `publish` passes events to the streams; each stream fetches the stored operations
    and the missing ones.
    """

    def __init__(
        self, history: History, ledger: BankLedger, bank: BankClient, repair: Repair, limits: HubLimits
    ) -> None:
        """Args:
        history: first source of stored operations.
        ledger: second source, for operations that the history lacks.
        bank: gRPC client of the bank; calls have the identity of the current caller.
        repair: compares an account with the bank after the history lacked one of its operations.
        limits: time and size limits.
        """
        self._history = history
        self._ledger = ledger
        self._bank = bank
        self._repair = repair
        self._epochs = repair.epochs
        self._limits = limits
        self._subscriptions: defaultdict[UUID, set[_Subscription]] = defaultdict(set)
        self._check_requested = asyncio.Event()
        self._reads = FairLimit(1, _CONCURRENT_READS)
        self._is_closed = False

    @property
    def has_subscriptions(self) -> bool:
        """Whether any stream is open."""
        return bool(self._subscriptions)

    def publish(self, event: Event) -> None:
        """Offer an event of the followed epoch to the subscribers of both accounts. Does not block."""
        if not self._epochs.is_followed(event.epoch):
            return
        for row in rows_from_event(event):
            for subscription in self._subscriptions.get(row.account_id, ()):
                subscription.offer(row)

    def request_check(self) -> None:
        """Compare all streams with the bank soon, because events may have been missed. Does not block."""
        self._check_requested.set()

    async def run_checks(self) -> None:
        """Compare subscribed accounts with the bank, periodically and on request. Raise the first error.

        A stream that has delivered a version above the ledger's ends with LedgerRestored: a restore has removed the
        operation.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.check_interval_seconds):
                    await self._check_requested.wait()
            self._check_requested.clear()
            # These versions are read before the ledger's, so only a restored ledger has a lower version.
            delivered = {each: each.last for subscriptions in self._subscriptions.values() for each in subscriptions}
            for account_id, version in (await self._ledger.get_versions(list(self._subscriptions))).items():
                for subscription in self._subscriptions.get(account_id, ()):
                    if delivered.get(subscription, 0) > version:
                        subscription.end_epoch()
                    else:
                        subscription.expect(version)

    def end_epoch(self) -> None:
        """End all open streams with LedgerRestored: their positions belong to the previous epoch."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.end_epoch()

    def close(self) -> None:
        """End all current and later streams with Unavailable, so that subscribers reconnect to another replica."""
        self._is_closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()

    async def subscribe(
        self, account_id: UUID, after_version: int | None, epoch: str = ""
    ) -> AsyncGenerator[Sequence[Row] | StreamStart, None]:
        """Yield a `StreamStart`, then an account's operations after a version, then new ones, in version order.

        Each operation is yielded once, in a batch of those that are available together.

        Args:
            account_id: id of the account.
            after_version: None: only new operations.
            epoch: epoch of the ledger that `after_version` belongs to.

        Raises:
            AccountNotFound: the account does not exist, or the caller may not read it (any more).
            LedgerRestored: the version does not belong to the ledger's epoch, or the epoch has changed.
            SubscriberTooSlow: the buffer is full. The subscriber may resume after the last version it received.
            Unavailable: the next operation cannot be fetched now, the history is being rebuilt, or this process stops.
                The subscriber may resume.
        """
        # The subscription is added before the account's version is read, so no operation is missed in between.
        with self._subscription(account_id) as subscription:
            clock = asyncio.get_running_loop().time
            current, epoch = await self._read_position(account_id, after_version, epoch)
            check_access_at = clock() + self._limits.access_interval_seconds
            subscription.begin(current if after_version is None else after_version)
            subscription.expect(current)
            yield StreamStart(subscription.last, epoch)
            while not subscription.is_closed:
                if subscription.is_overrun:
                    raise SubscriberTooSlow
                if clock() >= check_access_at:
                    check_access_at = clock() + self._limits.access_interval_seconds
                    with suppress(*TEMPORARY_ERRORS):  # the bank gave no decision, so access continues
                        subscription.expect((await self._bank.get_balance(account_id)).version)
                rows = subscription.next_rows()
                if not rows:
                    if subscription.known <= subscription.last:
                        subscription.is_live = True
                        await subscription.wait_for_change(until=check_access_at)
                        continue
                    if subscription.is_live and await subscription.wait_for_next_row(self._limits.gap_timeout_seconds):
                        continue
                    subscription.is_live = False
                    rows = await self._fetch(account_id, subscription.last, epoch)
                for start in range(0, len(rows), _BATCH_SIZE):
                    batch = rows[start : start + _BATCH_SIZE]
                    subscription.advance(batch)
                    subscription.is_delivering = True
                    yield batch
                    subscription.is_delivering = False
            if subscription.is_epoch_over:
                raise LedgerRestored
            raise Unavailable(_RESOURCE)

    async def _read_position(self, account_id: UUID, after_version: int | None, epoch: str) -> tuple[int, str]:
        """Return the account's version and the epoch in the ledger, after a check of the requested position."""
        balance = await self._bank.get_balance(account_id)
        # A version above the ledger's was in the ledger once, so a restore has removed it.
        if after_version is not None and (epoch != balance.epoch or after_version > balance.version):
            raise LedgerRestored
        await self._epochs.current()  # reads the epoch if it was never read
        if not self._epochs.is_followed(balance.epoch):
            raise Unavailable(_RESOURCE)  # until the history is rebuilt
        return balance.version, balance.epoch

    async def _fetch(self, account_id: UUID, after: int, epoch: str) -> list[Row]:
        """Return the account's next operations up to the first gap, from the history or else from the ledger."""
        stored = await self._list_stored(account_id, after, epoch)
        if rows := list(_take_consecutive(stored, after)):
            return rows
        self._repair.suspect(account_id)
        try:
            events = await self._ledger.list_events(account_id, after)
        except TEMPORARY_ERRORS:
            raise Unavailable(_RESOURCE) from None
        if any(event.epoch != epoch for event in events):
            raise LedgerRestored
        rows = [row for event in events for row in rows_from_event(event) if row.account_id == account_id]
        if not rows:
            log.error("ledger operations missing", account_id=str(account_id), after_version=after)
            await asyncio.sleep(_MISSING_OPERATION_DELAY_SECONDS)
        return list(_take_consecutive(rows, after))

    async def _list_stored(self, account_id: UUID, after: int, epoch: str) -> list[Row]:
        """Return a page of the account's stored operations; an empty one if ClickHouse or the epoch is unavailable.

        The pages of one caller are read one after another, with pauses that take as long as the reads.
        """
        place = self._reads.hold(request_context.current_principal().scope)
        await place.__aenter__()
        started = time.monotonic()
        try:
            stored = await self._history.list_after(account_id, after, _PAGE_SIZE)
            # The epoch is read after the rows, because a table of another epoch may have replaced the history
            # meanwhile.
            return stored if stored and await self._epochs.refresh() == epoch else []
        except Unavailable:
            return []
        finally:
            asyncio.get_running_loop().call_later(time.monotonic() - started, place.release)

    @contextmanager
    def _subscription(self, account_id: UUID) -> Iterator[_Subscription]:
        subscription = _Subscription(self._limits.buffer_size)
        subscription.is_closed = self._is_closed
        self._subscriptions[account_id].add(subscription)
        metrics.SUBSCRIBERS.inc()
        try:
            yield subscription
        finally:
            metrics.SUBSCRIBERS.dec()
            self._subscriptions[account_id].discard(subscription)
            if not self._subscriptions[account_id]:
                del self._subscriptions[account_id]


def _take_consecutive(rows: Iterable[Row], after: int) -> Iterator[Row]:
    """Yield the rows up to the first gap."""
    for version, row in enumerate(rows, after + 1):
        if row.account_version != version:
            return
        yield row
