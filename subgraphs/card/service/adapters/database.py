"""Pool of the top-ups' database (see `kit.db.pool`), and SQL that several repositories use."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import asyncpg

from kit.db import pool as pools
from kit.db.pool import Connection

LABEL: Final = "the top-ups' database"
"""Name of the database in error messages."""

open_pool: Final = partial(pools.open_pool, service="card")
"""Open the pool of the top-ups' database. Arguments: the URL and `max_size`."""

WITH_KEY: Final = "principal = $1 AND idempotency_key = ANY($2::text[])"
"""SQL condition for the top-ups of an idempotency key. Arguments: the principal and `stored_keys`."""


def connection(pool: asyncpg.Pool) -> AbstractAsyncContextManager[Connection]:
    """Acquire a connection of the top-ups' database; see `kit.db.pool.connection`."""
    return pools.connection(pool, LABEL)


def from_now(seconds: str) -> str:
    """Return an SQL expression: the database's current time plus a number of seconds.

    Args:
        seconds: placeholder of the number. If the number is null, the expression is null.
    """
    return f"clock_timestamp() + make_interval(secs => {seconds}::float8)"
