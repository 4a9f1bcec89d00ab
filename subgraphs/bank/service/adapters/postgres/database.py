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
    SESSION_SETTINGS,
    UNAVAILABLE_ERRORS,
    SessionCheck,
    SharedSessions,
    close_pool,
    connect_options,
    set_session_statement,
    unavailable,
)

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
"""A connection acquired from the pool."""

_PLANS: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""Settings that force index scans and generic plans. With PostgreSQL's defaults, the planner may choose a sequential
scan of a large table, because the statistics of a growing table are out of date.
"""
_SETTINGS: Final = {**SESSION_SETTINGS, **_PLANS}

_MISSING_SETTINGS: Final = """
    SELECT name, value FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE current_setting(name) <> value OR reset_val <> setting
"""
"""Query for the settings that a session lacks, or has only because of a SET. `reset_val` is the value that a new
session gets; the current value may come from a SET of another client of the pooler."""


class MissingRoleSettings(Exception):
    """A session of a shared pool lacks defaults that its role must have. The message has the statements to add them."""


@asynccontextmanager
async def open_pool(url: str, *, max_size: int, shares_sessions: bool = False) -> AsyncIterator[asyncpg.Pool]:
    """Open a pool. It connects at first use, so that the service can start before its database.

    Args:
        url: `postgresql://…`.
        max_size: maximum number of connections.
        shares_sessions: the URL leads to a pooler in transaction mode. Then the connections execute no SET and prepare
            no statements, and the settings must be defaults of the role; see `check_role_settings`. Otherwise no
            connection opens through such a pooler: `connection` raises Unavailable.
    """
    sessions = SessionCheck(url)

    async def prepare(connection: asyncpg.Connection) -> None:
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda value: b"\x01" + orjson.dumps(value),
            decoder=lambda data: orjson.loads(data[1:]),
        )
        if not shares_sessions:
            await sessions.check()
            await connection.execute(set_session_statement(_SETTINGS))

    options = connect_options(url, "bank")
    if shares_sessions:
        options["statement_cache_size"] = 0
    pool = await asyncpg.create_pool(min_size=0, max_size=max_size, init=prepare, reset=_skip_reset, **options)
    try:
        yield pool
    finally:
        await close_pool(pool.close())


async def _skip_reset(connection: asyncpg.Connection) -> None:
    """Skip asyncpg's reset, a round trip after every use, because no code changes the state of a pooled session."""


@asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """Acquire a connection for the duration of the body.

    If the session refuses writes, the pool replaces all connections: sessions that began on a read-only server may stay
    read-only when the server accepts writes again.

    Raises:
        Unavailable: the database is unreachable or refuses writes, or the connection was lost. It is then unknown
            whether a COMMIT succeeded, unless the server refused a statement (`REFUSED_ERRORS`).
    """
    try:
        async with pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS) as acquired:
            yield acquired
    except SharedSessions as error:
        raise unavailable("the ledger's database", error) from error
    except READ_ONLY_ERRORS as error:
        await pool.expire_connections()
        if isinstance(error, UNAVAILABLE_ERRORS):
            raise unavailable("the ledger's database", error) from error
        raise
    except UNAVAILABLE_ERRORS as error:
        raise unavailable("the ledger's database", error) from error


async def check_role_settings(pool: asyncpg.Pool) -> None:
    """Check that a session of the pool has the settings that the bank needs, and has them from the role's defaults.

    Raises:
        MissingRoleSettings: some settings are missing or have other values.
        Unavailable: the database is unreachable.
    """
    async with connection(pool) as session:
        missing = await session.fetch(_MISSING_SETTINGS, list(_SETTINGS), list(_SETTINGS.values()))
        role = await session.fetchval("SELECT quote_ident(current_user)")
    if missing:
        statements = "".join(f" ALTER ROLE {role} SET {name} = '{value}';" for name, value in missing)
        raise MissingRoleSettings(
            f"with BANK_DATABASE_DIRECT_URL the role needs settings:{statements} "
            "Then run RECONNECT in PgBouncer's console: its open sessions keep the settings of their start."
        )


@asynccontextmanager
async def transaction(session: Connection) -> AsyncIterator[None]:
    """Run the body as one transaction: commit at its end, roll back on an error.

    asyncpg's own transaction would roll back on a closed connection, too. That raises an error, which hides the
    original error.
    On a cancellation, this function closes the connection instead of rolling back: a cancelled task must not wait for
    another statement.
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
