"""Concurrent requests of one user."""

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
