"""Top-ups as they change, whichever replica changes them: the database tells."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.domain.top_up import TopUp
from wallet.errors import TopUpNotFound, Unavailable


class Watch:
    """Who watches which top-up. What the database's notifications miss, a slow poll sees."""

    def __init__(self, repository: Repository, *, poll_seconds: float = 2.0) -> None:
        self._repository = repository
        self._poll_seconds = poll_seconds
        self._watchers: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._is_closed = False

    async def run(self) -> None:
        """Listens until the connection to the database is lost.

        Raises:
            Unavailable: it is.
        """
        await self._repository.listen(self._changed, self._all_changed)

    def close(self) -> None:
        """Ends every stream with Unavailable, those that are opened later, too: readers go to another replica."""
        self._is_closed = True
        self._all_changed()

    async def top_up(
        self, id_: UUID, check: Callable[[TopUp], Awaitable[None]] | None = None
    ) -> AsyncGenerator[TopUp, None]:
        """The top-up as it is now, then as it is after changes that can be seen from outside, until it is final.

        Args:
            id_: whose states.
            check: is shown each state before the reader, and at every poll; what it raises ends the stream.

        Raises:
            TopUpNotFound: there is none.
            Unavailable: the database does not answer, or this process stops. The reader may come back.
        """
        seen: object = None
        with self._watching(id_) as changed:
            while not self._is_closed:
                changed.clear()  # before the question: nothing falls between the two
                top_up = (await self._repository.get([id_])).get(id_)
                if top_up is None:
                    raise TopUpNotFound(str(id_))
                if check is not None:
                    await check(top_up)
                shown = (top_up.status, top_up.failure)
                if shown != seen:
                    seen = shown
                    yield top_up
                if top_up.is_final:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await changed.wait()
        raise Unavailable("the card service")

    @contextmanager
    def _watching(self, id_: UUID) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._watchers[id_].add(changed)
        metrics.WATCHERS.inc()
        try:
            yield changed
        finally:
            metrics.WATCHERS.dec()
            self._watchers[id_].discard(changed)
            if not self._watchers[id_]:
                del self._watchers[id_]

    def _changed(self, id_: UUID) -> None:
        for changed in self._watchers.get(id_, ()):
            changed.set()

    def _all_changed(self) -> None:
        for watchers in self._watchers.values():
            for changed in watchers:
                changed.set()
