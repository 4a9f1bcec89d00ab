"""Pools of SQLAlchemy on a real server: read-only sessions, time-outs and cancellations."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest
from sqlalchemy import Integer, column, insert, table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db.database import Database
from kit.db.postgres import ClockSkew, ReadOnlyDatabase
from tests.integration.kit.sessions import find_waiter, hold, set_read_only
from tests.postgres_proxy import record_cancel_requests
from tests.waiting import until
from wallet.errors import Unavailable

NOTES = table("notes", column("id", Integer))
SIZE = 3

Begin = Callable[[Database], AbstractAsyncContextManager[AsyncConnection]]

open_database = partial(Database.open, service="test", label="the notes' database", max_connections=SIZE)


async def add_note(database: Database, id_: int) -> None:
    async with database.statement() as sql:
        await sql.execute(insert(NOTES).values(id=id_))


async def open_all_connections(database: Database) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(SIZE):
            sql = await stack.enter_async_context(database.statement())
            await sql.execute(text("SELECT 1"))


async def set_statement_timeout(session: AsyncConnection, seconds: float) -> None:
    """Set the time-out of further statements on this connection."""
    driver = (await session.get_raw_connection()).driver_connection
    assert driver is not None
    driver._config = driver._config._replace(command_timeout=seconds)


class TestReadOnly:
    async def test_one_refused_write_replaces_all_read_only_connections(
        self, url: str, sql: asyncpg.Connection
    ) -> None:
        await set_read_only(sql, "on")
        async with open_database(url) as database:
            await open_all_connections(database)
            await set_read_only(sql, "off")
            with pytest.raises(Unavailable):
                await add_note(database, 0)
            for id_ in range(SIZE):
                await add_note(database, id_)

    async def test_check_replaces_all_read_only_connections(self, url: str, sql: asyncpg.Connection) -> None:
        await set_read_only(sql, "on")
        async with open_database(url) as database:
            await open_all_connections(database)
            with pytest.raises(ReadOnlyDatabase):
                await database.check(NOTES)
            await set_read_only(sql, "off")
            await database.check(NOTES)
            for id_ in range(SIZE):
                await add_note(database, id_)


class TestCheck:
    async def test_missing_table_fails_the_check(self, url: str) -> None:
        async with open_database(url) as database:
            with pytest.raises(Exception, match="does not exist"):
                await database.check(table("elsewhere", column("id")))

    async def test_wrong_clock_fails_the_check(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kit.db.database.utc_now", lambda: datetime.now(UTC) + timedelta(days=400))
        async with open_database(url) as database:
            with pytest.raises(ClockSkew):
                await database.check(NOTES)


class TestCancellation:
    """A statement that may be committing is never cancelled: its connection is closed and the server completes it."""

    async def test_statement_that_times_out_is_completed_by_the_server(self, url: str, sql: asyncpg.Connection) -> None:
        async def add() -> None:
            async with database.statement() as session:
                await session.execute(insert(NOTES).values(id=0))  # prepares the statement
                await set_statement_timeout(session, 0.2)
                await session.execute(insert(NOTES).values(id=1))

        async with record_cancel_requests(url) as proxy, open_database(proxy.url(url)) as database:
            async with hold(url, "INSERT INTO notes VALUES (1)"):
                with pytest.raises(Unavailable):
                    await add()
            await until(lambda: sql.fetchval("SELECT count(*) FROM notes WHERE id = 1"))
            await add_note(database, 2)
        assert proxy.cancel_requests == 0

    @pytest.mark.parametrize("begin", [Database.statement, Database.transaction], ids=["statement", "transaction"])
    async def test_statement_of_a_cancelled_task_is_left_to_the_server(
        self, url: str, sql: asyncpg.Connection, begin: Begin
    ) -> None:
        async def add() -> None:
            async with begin(database) as session:
                await session.execute(insert(NOTES).values(id=1))

        async with record_cancel_requests(url) as proxy, open_database(proxy.url(url)) as database:
            async with hold(url, "INSERT INTO notes VALUES (1)"):
                adding = asyncio.create_task(add())
                waiter = await until(lambda: find_waiter(sql))
                adding.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await adding
                assert await find_waiter(sql) == waiter
            await add_note(database, 2)
        assert proxy.cancel_requests == 0

    async def test_commit_that_times_out_is_completed_by_the_server(self, url: str, sql: asyncpg.Connection) -> None:
        await sql.execute("""
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION hold();
        """)

        async def add() -> None:
            async with database.transaction() as session:
                await session.execute(insert(NOTES).values(id=1))
                await set_statement_timeout(session, 0.2)

        async with record_cancel_requests(url) as proxy, open_database(proxy.url(url)) as database:
            async with hold(url, "SELECT pg_advisory_xact_lock(42)"):
                with pytest.raises(Unavailable):
                    await add()
            await until(lambda: sql.fetchval("SELECT count(*) FROM notes"))
        assert proxy.cancel_requests == 0
