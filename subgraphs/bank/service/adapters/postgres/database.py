"""Connections to the ledger's database, and what their failures mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from kit.db.postgres import (
    CLOSE_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    SESSION_SETTINGS,
    STATEMENT_TIMEOUT_SECONDS,
    UNAVAILABLE_ERRORS,
)
from wallet.errors import Unavailable

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
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=STATEMENT_TIMEOUT_SECONDS,
        init=prepare,
        reset=_as_it_is,
        server_settings={
            "application_name": "bank",
            **_PLANS,
            **SESSION_SETTINGS,
        },
    )
    try:
        yield pool
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await pool.close()


async def _as_it_is(connection: asyncpg.Connection) -> None:
    """Instead of asyncpg's reset, a round trip after every use: nobody leaves anything behind on a session."""


@asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """A connection, for as long as the body takes.

    Raises:
        Unavailable: the database is away, or went away in the middle; what was being committed may or may not be.
    """
    try:
        async with pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS) as acquired:
            yield acquired
    except UNAVAILABLE_ERRORS as error:
        raise Unavailable("the ledger's database") from error
