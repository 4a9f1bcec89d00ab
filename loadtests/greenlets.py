"""Concurrent requests of one user, and the clock of gevent's timers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import gevent


@contextmanager
def run_concurrently(functions: Iterable[Callable[[], None]]) -> Iterator[None]:
    """Run the functions while the block runs, and wait for them at its end.

    If the block raises or its greenlet is killed, the functions are killed, and the context ends after their cleanup.
    """
    greenlets = [gevent.spawn(function) for function in functions]
    try:
        yield
        gevent.joinall(greenlets)
    finally:
        gevent.killall(greenlets)


def refresh_timers() -> None:
    """Let timers that start now count from now.

    They count from the last turn of gevent's loop. Locust sets the timer of `--run-time` after imports that take
    seconds on a busy machine, and without this call the run would be shorter by these seconds.
    """
    gevent.get_hub().loop.update_now()
