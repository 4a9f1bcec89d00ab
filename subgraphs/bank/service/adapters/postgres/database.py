"""Connections to the ledger's database, and conversion of connection errors to `Unavailable`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from kit.db.postgres import (
    CONNECT_TIMEOUT_SECONDS,
    READ_ONLY_ERRORS,
    UNAVAILABLE_ERRORS,
    close_pool,
    connect_options,
    unavailable,
)

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
"""A connection acquired from the pool."""

_PLANS: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Settings that force index scans and generic plans. With the defaults, the planner has chosen a sequential scan of all
keys, because statistics lag behind a growing table.
"""


@asynccontextmanager
async def open_pool(url: str, *, max_size: int) -> AsyncIterator[asyncpg.Pool]:
    """Open a pool. It connects at first use, so that the service can start before its database."""

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
        reset=_skip_reset,
        **connect_options("bank", **_PLANS),
    )
    try:
        yield pool
    finally:
        await close_pool(pool.close())


async def _skip_reset(connection: asyncpg.Connection) -> None:
    """Skip asyncpg's reset, a round trip after every use: no code changes the state of a pooled session."""


@asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """Acquire a connection for the duration of the body.

    If the session refuses writes, the pool replaces all connections: they may be as old as this one, and stay read-only
    when the server is not.

    Raises:
        Unavailable: the database is unreachable or refuses writes, or the connection was lost. It is then unknown
            whether a COMMIT succeeded, unless the server refused a statement (`REFUSED_ERRORS`).
    """
    try:
        async with pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS) as acquired:
            yield acquired
    except READ_ONLY_ERRORS as error:
        await pool.expire_connections()
        if isinstance(error, UNAVAILABLE_ERRORS):
            raise unavailable("the ledger's database", error) from error
        raise
    except UNAVAILABLE_ERRORS as error:
        raise unavailable("the ledger's database", error) from error


@asynccontextmanager
async def transaction(session: Connection) -> AsyncIterator[None]:
    """Run the body as one transaction: commit at its end, roll back on an error.

    asyncpg's own transaction would roll back on a closed connection, which raises an error that hides the first one.
    A cancellation closes the connection instead: no statement may be sent or cancelled in a cancelled task.
    """
    await session.execute("BEGIN;")
    try:
        yield
    except Exception:
        if not session.is_closed():
            await session.execute("ROLLBACK;")
        raise
    except BaseException:
        session.terminate()
        raise
    await session.execute("COMMIT;")
