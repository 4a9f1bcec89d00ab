"""Arrival times of requests: closed loop and open loop."""

import time
from collections import deque
from collections.abc import Callable
from itertools import count

import gevent
from gevent.event import AsyncResult


class ClosedLoop:
    """Closed loop without think time: each user sends its next request as soon as the last one has a response."""

    def wait(self) -> float:
        """Return the due time of the caller's next request: now."""
        return time.monotonic()


class OpenLoop:
    """Open loop: a constant arrival rate, independent of the responses, so a slow system does not receive less load.

    A request that is due while all users are busy is dropped and counted; it is not sent later. Users wait
    until a request is due; a due request never waits for a user. Latency counts from the due time.
    """

    def __init__(self, rate: float, on_dropped: Callable[[float], None]) -> None:
        """Args:
        rate: requests per second.
        on_dropped: called with the due time of each dropped request.
        """
        self._rate = rate
        self._on_dropped = on_dropped
        self._idle: deque[AsyncResult] = deque()
        self._is_stopped = False

    def wait(self) -> float:
        """Wait until the caller's next request is due, and return its due time.

        Raises:
            GreenletExit: the loop was stopped.
        """
        if self._is_stopped:
            raise gevent.GreenletExit
        arrival = AsyncResult()
        self._idle.append(arrival)
        try:
            due: float = arrival.get()
        except BaseException:
            if arrival in self._idle:
                self._idle.remove(arrival)
            raise
        return due

    def stop(self) -> None:
        """End the loop and the greenlets of all waiting users."""
        self._is_stopped = True
        while self._idle:
            self._idle.popleft().set_exception(gevent.GreenletExit())

    def run(self) -> None:
        """Wake one waiting user for each due request, until the loop is stopped."""
        began = time.monotonic()
        for number in count():
            due = began + number / self._rate
            gevent.sleep(max(0.0, due - time.monotonic()))
            if self._is_stopped:
                return
            if self._idle:
                self._idle.popleft().set(due)
            else:
                self._on_dropped(due)


Arrivals = ClosedLoop | OpenLoop
