"""Live streams of an account's operations: history, then what happens, in version order, no gap and no repeat."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.model import Event, Row, StreamStart
from subgraphs.analytics.service.domain.rows import rows_of
from subgraphs.bank.client import BankClient
from wallet.errors import DeadlineExceeded, SubscriberTooSlow, Unavailable

log = structlog.get_logger(__name__)

_WHAT: Final = "the operation feed"
_PAGE: Final = 1_000
_NOTHING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Attributes:
    patience_seconds: how long a missing operation may be on its way before it is fetched.
    check_seconds: how often watched accounts are compared with the bank, for whatever the topic has lost for good.
    access_seconds: how often a reader's right to read is asked for again.
    room: operations that wait for one reader.
    """

    patience_seconds: float = 0.25
    check_seconds: float = 5.0
    access_seconds: float = 60.0
    room: int = 1_000


class _Subscription:
    """One reader's place in an account's history, and what has arrived beyond it.

    `known` is the greatest version that is known to exist, `last` the one that the reader has got.
    """

    def __init__(self, room: int) -> None:
        self.last = 0
        self.known = 0
        self.is_closed = False
        self.is_live = False
        self.is_delivering = False
        self.is_overrun = False
        self._room = room
        self._arrived: dict[int, Row] = {}
        self._changed = asyncio.Event()

    def expect(self, version: int) -> None:
        self.known = max(self.known, version)
        self._changed.set()

    def offer(self, row: Row) -> None:
        if row.account_version <= self.last or self.is_overrun:
            return
        self.expect(row.account_version)
        if len(self._arrived) < self._room:
            self._arrived[row.account_version] = row
        elif self.is_live and self.is_delivering:
            # The reader holds us up. While we are the slow ones, what finds no room is fetched in its turn.
            self.is_overrun = True
            self._arrived.clear()

    def close(self) -> None:
        self.is_closed = True
        self._changed.set()

    def begin(self, after: int) -> None:
        self.last = after
        self._arrived = {version: row for version, row in self._arrived.items() if version > after}

    def take(self) -> Row | None:
        """The next row, if it has arrived."""
        return self._arrived.get(self.last + 1)

    def advance(self, version: int) -> None:
        self.last = version
        self._arrived.pop(version, None)

    async def change(self, until: float | None = None) -> None:
        """Returns when something has changed, or at a moment of the loop's clock."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()

    async def next_arrives(self, within_seconds: float) -> bool:
        try:
            async with asyncio.timeout(within_seconds):
                while self.take() is None and not (self.is_closed or self.is_overrun):
                    await self.change()
        except TimeoutError:
            return False
        return True


class Watch:
    """The open streams. `publish` feeds them what is live; history and whatever is missing they fetch themselves."""

    def __init__(self, history: History, ledger: Ledger, bank: BankClient, repair: Repair, timing: Timing) -> None:
        """Args:
        history: where operations are fetched from first.
        ledger: where they are fetched from if they are not stored.
        bank: asked in the caller's name.
        repair: told of what is not stored.
        timing: of patience.
        """
        self._history = history
        self._ledger = ledger
        self._bank = bank
        self._repair = repair
        self._timing = timing
        self._subscriptions: defaultdict[UUID, set[_Subscription]] = defaultdict(set)
        self._check_now = asyncio.Event()
        self._is_closed = False

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches anything."""
        return bool(self._subscriptions)

    def publish(self, event: Event) -> None:
        """Hands an event to those who watch either side of it. Never blocks."""
        for row in rows_of(event):
            for subscription in self._subscriptions.get(row.account_id, ()):
                subscription.offer(row)

    def check_soon(self) -> None:
        """Says that events may have been missed: every stream is compared with the bank now. Never blocks."""
        self._check_now.set()

    async def check(self) -> None:
        """Compares watched accounts with the bank, every so often, until something fails, which it raises."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.check_seconds):
                    await self._check_now.wait()
            self._check_now.clear()
            for account_id, version in (await self._ledger.versions(list(self._subscriptions))).items():
                for subscription in self._subscriptions.get(account_id, ()):
                    subscription.expect(version)

    def close(self) -> None:
        """Ends every stream with Unavailable, those that are opened later, too: readers go to another replica."""
        self._is_closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()

    async def operations(self, account_id: UUID, after_version: int | None) -> AsyncGenerator[Row | StreamStart, None]:
        """The account's operations after a version (None: from now on), then the live ones, in version order, each
        once.

        Raises:
            AccountNotFound: there is none, or it is not for the caller to read; or it is no more.
            SubscriberTooSlow: the reader let too many wait. It may come back with the last version it saw.
            Unavailable: what comes next cannot be fetched now, or this process stops. The reader may come back, too.
        """
        # First the subscription, then the question where the account stands: nothing falls between the two.
        with self._subscribed(account_id) as subscription:
            clock = asyncio.get_running_loop().time
            current = (await self._bank.get_balance(account_id)).version
            check_at = clock() + self._timing.access_seconds
            subscription.begin(current if after_version is None else after_version)
            subscription.expect(current)
            if after_version is None:
                yield StreamStart(current)
            while not subscription.is_closed:
                if subscription.is_overrun:
                    raise SubscriberTooSlow
                if clock() >= check_at:
                    check_at = clock() + self._timing.access_seconds
                    with suppress(Unavailable, DeadlineExceeded):  # which says nothing of the right to read
                        subscription.expect((await self._bank.get_balance(account_id)).version)
                if (row := subscription.take()) is not None:
                    batch = [row]
                elif subscription.known <= subscription.last:
                    subscription.is_live = True
                    await subscription.change(until=check_at)
                    continue
                elif subscription.is_live and await subscription.next_arrives(self._timing.patience_seconds):
                    continue
                else:
                    subscription.is_live = False
                    batch = await self._fetch(account_id, subscription.last)
                for row in batch:
                    subscription.advance(row.account_version)
                    subscription.is_delivering = True
                    yield row
                    subscription.is_delivering = False
            raise Unavailable(_WHAT)

    async def _fetch(self, account_id: UUID, after: int) -> list[Row]:
        """The account's next operations, without a gap, from the history or else from the ledger."""
        try:
            stored = await self._history.after(account_id, after, _PAGE)
        except Unavailable:
            stored = []
        if rows := list(_consecutive(stored, after)):
            return rows
        self._repair.suspect(account_id)
        try:
            events = await self._ledger.events(account_id, after)
        except (Unavailable, DeadlineExceeded):
            raise Unavailable(_WHAT) from None
        rows = [row for event in events for row in rows_of(event) if row.account_id == account_id]
        if not rows:
            log.error("the ledger lacks what it counts", account_id=str(account_id), after_version=after)
            await asyncio.sleep(_NOTHING_SECONDS)
        return list(_consecutive(rows, after))

    @contextmanager
    def _subscribed(self, account_id: UUID) -> Iterator[_Subscription]:
        subscription = _Subscription(self._timing.room)
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


def _consecutive(rows: Iterable[Row], after: int) -> Iterator[Row]:
    """The rows up to the first gap."""
    for version, row in enumerate(rows, after + 1):
        if row.account_version != version:
            return
        yield row
