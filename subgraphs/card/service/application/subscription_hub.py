"""Streams of top-up changes. The database notifies every replica of each saved change."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.domain.top_up import TopUp
from wallet.errors import TopUpNotFound, Unavailable

POLL_SECONDS: Final = 2.0
"""Interval at which subscribed top-ups are read even if no notification arrives."""


class SubscriptionHub:
    """Open streams of this replica. Subscribed top-ups are also read periodically, in case a notification is lost."""

    def __init__(self, repository: Repository, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._repository = repository
        self._poll_seconds = poll_seconds
        self._subscriptions: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._is_closed = False

    async def run_listener(self) -> None:
        """Listen for changes until the connection to the database is lost.

        Raises:
            Unavailable: the connection is lost.
        """
        await self._repository.listen(self._notify, self._notify_all)

    def close(self) -> None:
        """End all current and later streams with Unavailable, so that subscribers reconnect to another replica."""
        self._is_closed = True
        self._notify_all()

    async def watch(
        self, id_: UUID, check: Callable[[TopUp], Awaitable[None]] | None = None
    ) -> AsyncGenerator[TopUp, None]:
        """Yield the current state of a top-up, then each change of its status or failure, until the top-up is final.

        Args:
            id_: id of the top-up.
            check: called with the top-up after each read, before a change is yielded. If it raises an error, the stream
                ends with this error.

        Raises:
            TopUpNotFound: the top-up does not exist.
            Unavailable: the database is unavailable, or this process stops. A retry is safe.
        """
        last_visible: object = None
        with self._subscribe(id_) as changed:
            while not self._is_closed:
                changed.clear()  # before the query, so that no change is missed
                top_up = (await self._repository.get([id_])).get(id_)
                if top_up is None:
                    raise TopUpNotFound(str(id_))
                if check is not None:
                    await check(top_up)
                visible = (top_up.status, top_up.failure)
                if visible != last_visible:
                    last_visible = visible
                    yield top_up
                if top_up.is_final:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await changed.wait()
        raise Unavailable("the card service")

    @contextmanager
    def _subscribe(self, id_: UUID) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._subscriptions[id_].add(changed)
        metrics.TOP_UP_STREAMS.inc()
        try:
            yield changed
        finally:
            metrics.TOP_UP_STREAMS.dec()
            self._subscriptions[id_].discard(changed)
            if not self._subscriptions[id_]:
                del self._subscriptions[id_]

    def _notify(self, id_: UUID) -> None:
        for changed in self._subscriptions.get(id_, ()):
            changed.set()

    def _notify_all(self) -> None:
        for subscriptions in self._subscriptions.values():
            for changed in subscriptions:
                changed.set()
