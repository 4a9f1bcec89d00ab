"""An open loop: requests are due at their rate, whoever is there to make them."""

import time

import gevent
import pytest

from loadtests.arrivals import AtOnce, Open


def test_are_taken_in_turn_when_they_are_due() -> None:
    arrivals, dues = Open(200, lambda _: None), list[float]()

    def user() -> None:
        while True:
            dues.append(arrivals.next())

    greenlets = [gevent.spawn(user) for _ in range(4)] + [gevent.spawn(arrivals.run)]
    gevent.sleep(0.2)
    gevent.killall(greenlets)
    places = [(due - dues[0]) * 200 for due in dues]
    assert len(dues) > 10
    assert places == pytest.approx([round(place) for place in places], abs=1e-6)  # however late each was taken


def test_while_everybody_is_busy_are_dropped_and_counted() -> None:
    dropped: list[float] = []
    arrivals, made = Open(200, dropped.append), list[float]()

    def slow() -> None:
        while True:
            made.append(arrivals.next())
            gevent.sleep(0.05)

    greenlets = [gevent.spawn(slow), gevent.spawn(arrivals.run)]
    gevent.sleep(0.3)
    gevent.killall(greenlets)
    assert 0 < len(made) < 10
    assert len(dropped) > 3 * len(made)


def test_of_a_user_who_has_gone_are_nobodys() -> None:
    dropped: list[float] = []
    arrivals = Open(100, dropped.append)
    user = gevent.spawn(arrivals.next)
    gevent.sleep(0)
    user.kill()
    running = gevent.spawn(arrivals.run)
    gevent.sleep(0.05)
    running.kill()
    assert dropped


def test_that_are_stopped_send_everybody_home_and_drop_nothing_more() -> None:
    dropped: list[float] = []
    arrivals = Open(100, dropped.append)
    user, running = gevent.spawn(arrivals.next), gevent.spawn(arrivals.run)
    gevent.sleep(0)
    late = gevent.spawn(lambda: (gevent.sleep(0.05), arrivals.next()))
    arrivals.stop()
    gevent.joinall([user, running, late], timeout=2)
    assert all(greenlet.dead for greenlet in (user, running, late))
    assert dropped == []


def test_of_a_closed_loop_are_now() -> None:
    before = time.monotonic()
    assert before <= AtOnce().next() <= time.monotonic()
