"""When requests are due."""

import time
from collections import deque
from collections.abc import Callable
from itertools import count

import gevent
from gevent.event import AsyncResult


class AtOnce:
    """Each user asks again as soon as they are answered."""

    def next(self) -> float:
        """When the caller's next request is due: now."""
        return time.monotonic()


class Open:
    """A constant rate of arrivals, whatever becomes of those before: a system that stalls is not asked less.

    A request that is due while every user is busy is dropped, and counted: nobody pretends later that it was made. What
    waits is no request but users. The time of an answer counts from when its request was due.
    """

    def __init__(self, rate: float, dropped: Callable[[float], None]) -> None:
        """Args:
        rate: requests a second.
        dropped: called with the time of each that nobody could make.
        """
        self._rate = rate
        self._dropped = dropped
        self._idle: deque[AsyncResult] = deque()
        self._is_over = False

    def next(self) -> float:
        """When the caller's next request is due; returns at that time.

        Raises:
            GreenletExit: never again.
        """
        if self._is_over:
            raise gevent.GreenletExit
        turn = AsyncResult()
        self._idle.append(turn)
        try:
            due: float = turn.get()
        except BaseException:
            if turn in self._idle:
                self._idle.remove(turn)
            raise
        return due

    def stop(self) -> None:
        """Nothing is due any more; whoever waits is sent home."""
        self._is_over = True
        while self._idle:
            self._idle.popleft().set_exception(gevent.GreenletExit())

    def run(self) -> None:
        """Hands out one turn after the other, until it is stopped."""
        began = time.monotonic()
        for number in count():
            due = began + number / self._rate
            gevent.sleep(max(0.0, due - time.monotonic()))
            if self._is_over:
                return
            if self._idle:
                self._idle.popleft().set(due)
            else:
                self._dropped(due)


Arrivals = AtOnce | Open
