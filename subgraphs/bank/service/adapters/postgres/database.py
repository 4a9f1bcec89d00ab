"""Connections to the ledger's database, and what their failures mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from kit.db.postgres import CONNECT_TIMEOUT_SECONDS, close_pool, connect_options, raise_unavailable

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
"""A connection on loan from the pool."""

_PLANS: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Every statement looks rows up by index, and is planned once. Left to statistics, which lag behind a growing table, a
look-up of keys became a scan of all of them.
"""


@asynccontextmanager
async def open_pool(url: str, *, max_size: int) -> AsyncIterator[asyncpg.Pool]:
    """A pool that connects when first used, so that a service may start before its database."""

    async def prepare(connection: asyncpg.Connection) -> None:
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda value: b"\x01" + orjson.dumps(value),
            decoder=lambda data: orjson.loads(data[1:]),
        )

    pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_size,
        init=prepare,
        reset=_as_it_is,
        **connect_options("bank", **_PLANS),
    )
    try:
        yield pool
    finally:
        await close_pool(pool.close())


async def _as_it_is(connection: asyncpg.Connection) -> None:
    """Instead of asyncpg's reset, a round trip after every use: nobody leaves anything behind on a session."""


@asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """A connection, for as long as the body takes.

    Raises:
        Unavailable: the database is away, or went away in the middle; what was being committed may or may not be.
    """
    with raise_unavailable("the ledger's database"):
        async with pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS) as acquired:
            yield acquired
