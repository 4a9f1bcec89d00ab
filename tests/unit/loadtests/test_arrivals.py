"""Arrival times of requests: closed loop and open loop."""

import time

import gevent
import pytest

from loadtests.arrivals import ClosedLoop, OpenLoop


def test_open_loop_hands_out_arrivals_at_a_constant_rate() -> None:
    arrivals, dues = OpenLoop(200, lambda _: None), list[float]()

    def user() -> None:
        while True:
            dues.append(arrivals.wait())

    greenlets = [gevent.spawn(user) for _ in range(4)] + [gevent.spawn(arrivals.run)]
    gevent.sleep(0.2)
    gevent.killall(greenlets)
    places = [(due - dues[0]) * 200 for due in dues]
    assert len(dues) > 10
    assert places == pytest.approx([round(place) for place in places], abs=1e-6)  # exact, however late users wake up


def test_open_loop_drops_and_counts_arrivals_while_all_users_are_busy() -> None:
    dropped: list[float] = []
    arrivals, sent = OpenLoop(200, dropped.append), list[float]()

    def slow_user() -> None:
        while True:
            sent.append(arrivals.wait())
            gevent.sleep(0.05)

    greenlets = [gevent.spawn(slow_user), gevent.spawn(arrivals.run)]
    gevent.sleep(0.3)
    gevent.killall(greenlets)
    assert 0 < len(sent) < 10
    assert len(dropped) > 3 * len(sent)


def test_open_loop_drops_arrivals_of_a_killed_user() -> None:
    dropped: list[float] = []
    arrivals = OpenLoop(100, dropped.append)
    user = gevent.spawn(arrivals.wait)
    gevent.sleep(0)
    user.kill()
    running = gevent.spawn(arrivals.run)
    gevent.sleep(0.05)
    running.kill()
    assert dropped


def test_stopped_open_loop_ends_all_users_and_drops_nothing() -> None:
    dropped: list[float] = []
    arrivals = OpenLoop(100, dropped.append)
    user, running = gevent.spawn(arrivals.wait), gevent.spawn(arrivals.run)
    gevent.sleep(0)
    late = gevent.spawn(lambda: (gevent.sleep(0.05), arrivals.wait()))
    arrivals.stop()
    gevent.joinall([user, running, late], timeout=2)
    assert all(greenlet.dead for greenlet in (user, running, late))
    assert dropped == []


def test_closed_loop_does_not_wait() -> None:
    before = time.monotonic()
    assert before <= ClosedLoop().wait() <= time.monotonic()
