"""Arrival times of requests: closed loop and open loop."""

import time

import gevent
import pytest
from gevent.event import AsyncResult, Event

from loadtests.arrivals import ClosedLoop, OpenLoop

TEST_TIMEOUT_SECONDS = 10.0


def test_open_loop_hands_out_arrivals_at_a_constant_rate() -> None:
    arrivals, dues = OpenLoop(200, lambda _: None), list[float]()

    def user() -> None:
        for _ in range(5):
            dues.append(arrivals.wait())

    users, running = [gevent.spawn(user) for _ in range(4)], gevent.spawn(arrivals.run)
    gevent.joinall(users, timeout=TEST_TIMEOUT_SECONDS)
    running.kill()
    places = [(due - dues[0]) * 200 for due in dues]
    assert len(dues) == 20
    assert places == pytest.approx([round(place) for place in places], abs=1e-6)  # exact, however late users wake up


def test_open_loop_drops_and_counts_arrivals_while_all_users_are_busy() -> None:
    dropped, enough = list[float](), Event()

    def drop(due: float) -> None:
        dropped.append(due)
        if len(dropped) == 10:
            enough.set()

    arrivals, sent = OpenLoop(200, drop), list[float]()

    def busy_user() -> None:
        sent.append(arrivals.wait())
        enough.wait()
        sent.append(arrivals.wait())

    user = gevent.spawn(busy_user)
    gevent.sleep(0)  # the user waits for the first arrival
    running = gevent.spawn(arrivals.run)
    user.join(timeout=TEST_TIMEOUT_SECONDS)
    running.kill()
    assert len(dropped) >= 10
    first, last = sent
    while_busy = [due for due in dropped if due < last]
    places = [(due - first) * 200 for due in [*while_busy, last]]
    assert places == pytest.approx(range(1, len(places) + 1), abs=1e-6)  # no due time is missing or shifted


def test_open_loop_drops_arrivals_of_a_killed_user() -> None:
    dropped = AsyncResult()
    arrivals = OpenLoop(100, dropped.set)
    user = gevent.spawn(arrivals.wait)
    gevent.sleep(0)
    user.kill()
    running = gevent.spawn(arrivals.run)
    assert dropped.get(timeout=TEST_TIMEOUT_SECONDS)
    running.kill()


def test_stopped_open_loop_ends_all_users_and_drops_nothing() -> None:
    dropped: list[float] = []
    arrivals = OpenLoop(100, dropped.append)
    user, running = gevent.spawn(arrivals.wait), gevent.spawn(arrivals.run)
    gevent.sleep(0)
    arrivals.stop()
    late = gevent.spawn(arrivals.wait)
    gevent.joinall([user, running, late], timeout=TEST_TIMEOUT_SECONDS)
    assert all(greenlet.dead for greenlet in (user, running, late))
    assert dropped == []


def test_closed_loop_does_not_wait() -> None:
    before = time.monotonic()
    assert before <= ClosedLoop().wait() <= time.monotonic()
