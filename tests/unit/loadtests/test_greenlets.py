import time

import gevent
from gevent.event import Event

from loadtests.greenlets import refresh_timers, run_concurrently


def test_functions_run_while_the_block_runs_and_end_before_it() -> None:
    ended = list[str]()
    started, block_runs = Event(), Event()

    def function() -> None:
        started.set()
        block_runs.wait()
        ended.append("function")

    with run_concurrently([function]):
        started.wait()
        block_runs.set()
    assert ended == ["function"]


def test_killed_block_ends_after_the_cleanup_of_its_functions() -> None:
    started, ended = list[int](), list[int]()
    all_started = Event()

    def send(number: int) -> None:
        started.append(number)
        if len(started) == 3:
            all_started.set()
        try:
            Event().wait()  # a response that does not arrive
        finally:
            gevent.sleep(0)
            ended.append(number)

    def act() -> None:
        with run_concurrently([lambda: send(1), lambda: send(2)]):
            send(3)

    user = gevent.spawn(act)
    all_started.wait()
    user.kill()
    assert sorted(ended) == [1, 2, 3]


def test_timers_count_from_the_time_of_the_refresh() -> None:
    loop = gevent.get_hub().loop
    gevent.sleep(0)  # a turn of the loop
    before = loop.now()
    end = time.monotonic() + 0.02
    while time.monotonic() < end:  # as imports do, without a turn of the loop
        pass
    assert loop.now() == before
    refresh_timers()
    assert loop.now() > before
