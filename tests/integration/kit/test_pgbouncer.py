"""Pools of SQLAlchemy behind PgBouncer."""

import asyncpg
import pytest
from sqlalchemy import Integer, column, insert, table, text

from kit.db.database import Database
from kit.db.postgres import SESSION_SETTINGS, SharedSessions, check_sessions
from tests.pgbouncer import run_pgbouncer
from wallet.errors import Unavailable

NOTES = table("notes", column("id", Integer))


async def test_session_mode_keeps_the_settings_of_the_session(url: str) -> None:
    async with (
        run_pgbouncer(url, "session") as pooled,
        Database.open(pooled, service="test", label="the notes' database", max_connections=2) as database,
    ):
        await database.check(NOTES)
        async with database.transaction() as sql:
            await sql.execute(insert(NOTES).values(id=1))
        async with database.statement() as sql:
            for name, value in SESSION_SETTINGS.items():
                assert await sql.scalar(text(f"SHOW {name}")) == value
            assert await sql.scalar(text("SHOW application_name")) == "test"


async def test_transaction_mode_fails_the_check(url: str) -> None:
    async with (
        run_pgbouncer(url, "transaction") as pooled,
        Database.open(pooled, service="test", label="the notes' database", max_connections=2) as database,
    ):
        with pytest.raises(SharedSessions, match="not in session mode"):
            await database.check(NOTES)


async def test_pool_behind_transaction_mode_leaves_no_settings_in_shared_sessions(url: str) -> None:
    async with (
        run_pgbouncer(url, "transaction") as pooled,
        Database.open(pooled, service="test", label="the notes' database", max_connections=2) as database,
    ):
        with pytest.raises(Unavailable, match="the notes' database"):
            async with database.statement():
                pass
        client = await asyncpg.connect(pooled, statement_cache_size=0)
        values = [await client.fetchval(f"SHOW {name}") for name in SESSION_SETTINGS]
        await client.close()
        assert values == ["0", "0"]


async def test_connections_without_pooler_have_their_own_sessions(url: str) -> None:
    await check_sessions(url)
