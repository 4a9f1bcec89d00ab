"""Limit of the work in progress, for each client and for all clients together."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


class FairLimit:
    """Limits the work in progress of each client, and of all clients together. Clients that wait take turns.

    Work has a size. The unit is the caller's choice, such as requests or bytes. The works of one client start in the
    order in which they arrived. The next work in the queue waits until it fits into the limits; then the next client
    has its turn. So a client with much waiting work delays the others by at most one of its works.
    """

    def __init__(self, per_client: int, total: int | None = None) -> None:
        """Args:
        per_client: maximum sum of the sizes of one client's works in progress.
        total: the same for all clients together; None: no such limit.
        """
        self._per_client = per_client
        self._total = total
        self._used = 0
        self._clients: dict[str, _Client] = {}
        self._turns: OrderedDict[str, None] = OrderedDict()  # clients whose first waiting work is within `per_client`

    def __len__(self) -> int:
        """Number of clients with work in progress or waiting."""
        return len(self._clients)

    def hold(
        self,
        client: str,
        size: int = 1,
        *,
        timeout_seconds: float | None = None,
        refusal: Callable[[], Exception] = TimeoutError,
    ) -> "Hold":
        """Return a context manager that waits until the work may start, and ends the work when its block ends.

        Args:
            client: key of the client.
            size: size of the work, at least 1. Larger work than one client may have counts as much as one client may
                have.
            timeout_seconds: maximum time to wait; None: no maximum.
            refusal: returns the error to raise after that time.
        """
        return Hold(self, client, max(1, min(size, self._per_client)), timeout_seconds, refusal)

    def try_enter(self, client: str, size: int) -> bool:
        """Start a work without waiting; return False if other work has to start or to end before it."""
        state = self._clients.get(client)
        if state is None:
            if self._turns or not self._fits(size):
                return False
            state = self._clients[client] = _Client()
        elif state.waiting or state.used + size > self._per_client or self._turns or not self._fits(size):
            return False
        state.used += size
        self._used += size
        return True

    async def enter(self, client: str, size: int) -> None:
        """Wait until a work may start. Every started work must be ended by `leave`."""
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = _Client()
        work = _Work(size, asyncio.get_running_loop().create_future())
        state.waiting.append(work)
        self._update_turn(client, state)
        try:
            await work.started
        except asyncio.CancelledError:
            if not work.started.cancelled():  # it started in the same turn of the loop
                self.leave(client, size)
            elif work in state.waiting:
                state.waiting.remove(work)
                self._update_turn(client, state)
                self._start_waiting()
            raise

    def leave(self, client: str, size: int) -> None:
        """End a work."""
        state = self._clients[client]
        state.used -= size
        self._used -= size
        self._update_turn(client, state)
        self._start_waiting()

    def _start_waiting(self) -> None:
        """Start waiting works, one of each client in turn, until the next one does not fit."""
        while self._turns:
            client = next(iter(self._turns))
            state = self._clients[client]
            work = state.waiting[0]
            if work.started.cancelled():  # its task has not continued yet
                state.waiting.popleft()
                self._update_turn(client, state)
                continue
            if not self._fits(work.size):
                return
            del self._turns[client]
            state.waiting.popleft()
            state.used += work.size
            self._used += work.size
            work.started.set_result(None)
            self._update_turn(client, state)

    def _fits(self, size: int) -> bool:
        return self._total is None or self._used + size <= self._total

    def _update_turn(self, client: str, state: "_Client") -> None:
        """Add the client to the queue, or remove it. A client that stays in the queue keeps its place.

        A client without work is forgotten.
        """
        if not state.used and not state.waiting:
            self._turns.pop(client, None)
            del self._clients[client]
        elif state.waiting and state.used + state.waiting[0].size <= self._per_client:
            self._turns.setdefault(client)
        else:
            self._turns.pop(client, None)


class Hold:
    """Work of a client in progress. It may be entered once; `release` may be called several times."""

    __slots__ = ("_client", "_is_held", "_limit", "_refusal", "_size", "_timeout_seconds")

    def __init__(
        self,
        limit: FairLimit,
        client: str,
        size: int,
        timeout_seconds: float | None,
        refusal: Callable[[], Exception],
    ) -> None:
        self._limit = limit
        self._client = client
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._refusal = refusal
        self._is_held = False

    async def __aenter__(self) -> Self:
        if not self._limit.try_enter(self._client, self._size):
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._limit.enter(self._client, self._size)
            except TimeoutError:
                raise self._refusal() from None
        self._is_held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """End the work before the end of the block. Does nothing if the work has ended."""
        if self._is_held:
            self._is_held = False
            self._limit.leave(self._client, self._size)


@dataclass(slots=True, eq=False)
class _Work:
    size: int
    started: asyncio.Future[None]


@dataclass(slots=True)
class _Client:
    used: int = 0
    waiting: deque[_Work] = field(default_factory=deque)
