"""Order in which the clients of a server are handled when many of them send at once."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable


class Turnstile:
    """Lets a few pieces of work start in each turn of the event loop. Addresses whose work waits take turns.

    Hundreds of requests may arrive at once on as many connections. Without this limit, the first steps of all of them
    would run before the next step of any other request.

    Attributes:
        per_turn: maximum number of pieces of work that start in one turn of the loop. It may be changed.
    """

    def __init__(self, per_turn: int) -> None:
        self.per_turn = per_turn
        self._started = 0  # in this turn
        self._waiting: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._is_scheduled = False

    def try_enter(self) -> bool:
        """Return whether work may start now. If not, it must wait with `enter_later`."""
        if self._started >= self.per_turn or self._waiting:
            return False
        self._started += 1
        self._schedule()
        return True

    def enter_later(self, address: str, start: Callable[[], None]) -> None:
        """Call `start` in a later turn of the loop.

        Args:
            address: key of the client's address.
            start: starts the work. It must not raise.
        """
        self._waiting.setdefault(address, deque()).append(start)
        self._schedule()

    async def enter(self, address: str) -> None:
        """Wait until work for this address may start."""
        if self.try_enter():
            return
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def start() -> None:
            if not started.done():  # it is done if it was cancelled
                started.set_result(None)

        self.enter_later(address, start)
        await started

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_scheduled = False
        self._started = 0
        while self._started < self.per_turn and self._waiting:
            address, works = self._waiting.popitem(last=False)
            start = works.popleft()
            if works:
                self._waiting[address] = works
            self._started += 1
            start()
        if self._started:
            self._schedule()
