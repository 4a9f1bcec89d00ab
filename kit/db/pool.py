"""asyncpg pools of services that send their SQL themselves: connections, transactions and the readiness check."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from kit.db.postgres import (
    CONNECT_TIMEOUT_SECONDS,
    READ_ONLY_ERRORS,
    SESSION_SETTINGS,
    UNAVAILABLE_ERRORS,
    ReadOnlyDatabase,
    SessionCheck,
    SharedSessions,
    check_clock,
    close_pool,
    connect_options,
    set_session_statement,
    unavailable,
    utc_now,
)

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
"""A connection acquired from the pool."""


async def _prepare_nothing(_: asyncpg.Connection) -> None:
    """Leave a new connection as it is."""


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    service: str,
    max_size: int,
    settings: Mapping[str, str] = SESSION_SETTINGS,
    prepare: Callable[[asyncpg.Connection], Awaitable[None]] = _prepare_nothing,
    shares_sessions: bool = False,
) -> AsyncIterator[asyncpg.Pool]:
    """Open a pool. It connects at first use, so that the service can start before its database.

    Args:
        url: `postgresql://…`.
        service: name of the service, as `pg_stat_activity` shows it.
        max_size: maximum number of connections.
        settings: settings of each session.
        prepare: called with each new connection, before its first use. It must not change the session.
        shares_sessions: the URL leads to a pooler in transaction mode. Then the connections execute no SET and prepare
            no statements, and the settings must be defaults of the role. Otherwise no connection opens through such a
            pooler: `connection` raises Unavailable.
    """
    sessions = SessionCheck(url)

    async def prepare_session(new: asyncpg.Connection) -> None:
        await prepare(new)
        if not shares_sessions:
            await sessions.check()
            await new.execute(set_session_statement(settings))

    options = connect_options(url, service)
    if shares_sessions:
        options["statement_cache_size"] = 0
    pool = await asyncpg.create_pool(min_size=0, max_size=max_size, init=prepare_session, reset=_skip_reset, **options)
    try:
        yield pool
    finally:
        await close_pool(pool.close())


async def _skip_reset(connection: asyncpg.Connection) -> None:
    """Skip asyncpg's reset, a round trip after every use, because no code changes the state of a pooled session."""


@asynccontextmanager
async def connection(pool: asyncpg.Pool, label: str) -> AsyncIterator[Connection]:
    """Acquire a connection for the duration of the body. A cancellation or a time-out in the body closes it.

    If the session refuses writes, the pool replaces all connections: sessions that began on a read-only server may stay
    read-only when the server accepts writes again.

    Args:
        pool: a pool of `open_pool`.
        label: name of the database in error messages.

    Raises:
        Unavailable: the database is unreachable or refuses writes, or the connection was lost. It is then unknown
            whether a COMMIT succeeded, unless the server refused a statement (`REFUSED_ERRORS`).
    """
    try:
        acquired = await pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            yield acquired
        except (asyncio.CancelledError, TimeoutError):
            # `UncancelledConnection` closes the connection a moment later, while the pool releases it. The pool's error
            # would replace the cancellation.
            terminate(acquired)
            raise
        finally:
            await pool.release(acquired)
    except SharedSessions as error:
        raise unavailable(label, error) from error
    except READ_ONLY_ERRORS as error:
        await pool.expire_connections()
        if isinstance(error, UNAVAILABLE_ERRORS):
            raise unavailable(label, error) from error
        raise
    except UNAVAILABLE_ERRORS as error:
        raise unavailable(label, error) from error


@asynccontextmanager
async def transaction(session: Connection, first: str = "") -> AsyncIterator[None]:
    """Run the body as one transaction: commit at its end, roll back on an error.

    asyncpg's own transaction would roll back on a closed connection, too. That raises an error, which hides the
    original error.
    On a cancellation, this function closes the connection instead of rolling back: a cancelled task must not wait for
    another statement.

    Args:
        session: connection of the transaction.
        first: first statement of the transaction, without parameters. It takes no round trip of its own.
    """
    try:
        await session.execute(f"BEGIN; {first}")
        yield
    except Exception:
        if not session.is_closed():
            await session.execute("ROLLBACK;")
        raise
    except BaseException:
        terminate(session)
        raise
    await session.execute("COMMIT;")


def terminate(session: Connection) -> None:
    """Close a connection at once, so that it does not return to the pool. It may be closed already."""
    with suppress(asyncpg.InterfaceError):
        session.terminate()


async def ping(pool: asyncpg.Pool, label: str, statement: str) -> None:
    """Check that the database has its tables, accepts writes, and has the same time as this process.

    Args:
        pool: a pool of `open_pool`.
        label: name of the database in error messages.
        statement: requests row locks of a table, but locks no row, so that it fails only in a read-only session.

    Raises:
        Unavailable: the database is unreachable.
        ReadOnlyDatabase: the database refuses writes.
        ClockSkew: the clocks of the database and of this process differ by more than 5 s.
    """
    async with connection(pool, label) as session:
        asked_at = utc_now()
        check_clock(await session.fetchval("SELECT clock_timestamp()"), asked_at)
        try:
            await session.execute(statement)
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise ReadOnlyDatabase from error


def connections_in_use(pool: asyncpg.Pool) -> int:
    """Return the number of connections in use."""
    return pool.get_size() - pool.get_idle_size()
