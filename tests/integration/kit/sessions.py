"""Other sessions of the database of a pool's test: they hold locks, find waiters, and make the database read-only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg


async def set_read_only(sql: asyncpg.Connection, value: str) -> None:
    """Make new sessions read-only (`on`) or not (`off`)."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")


@asynccontextmanager
async def hold(url: str, statement: str) -> AsyncIterator[None]:
    """Execute a statement, hold its locks during the block, then roll the statement back."""
    session = await asyncpg.connect(url)
    held = session.transaction()
    await held.start()
    await session.execute(statement)
    yield
    await held.rollback()
    await session.close()


async def find_waiter(sql: asyncpg.Connection) -> int | None:
    """Return the server process of the pool's session that waits for a lock; None if none waits."""
    pid: int | None = await sql.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'test' AND wait_event_type = 'Lock'"
    )
    return pid
