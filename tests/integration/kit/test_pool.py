"""asyncpg pools on a real server: read-only sessions, readiness, transactions, cancellations and poolers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest

from kit.db import pool as pools
from kit.db.pool import Connection, connections_in_use, transaction
from kit.db.postgres import SESSION_SETTINGS, ClockSkew, ReadOnlyDatabase
from stack.ports import free_ports
from tests.integration.kit.sessions import find_waiter, hold, set_read_only
from tests.pgbouncer import run_pgbouncer
from tests.postgres_proxy import record_cancel_requests
from tests.waiting import until
from wallet.errors import Unavailable

SIZE = 3
LABEL = "the notes' database"
PROBE = "SELECT FROM notes LIMIT 0 FOR UPDATE"

Begin = Callable[[asyncpg.Pool], AbstractAsyncContextManager[Connection]]

open_pool = partial(pools.open_pool, service="test", max_size=SIZE)


def connection(pool: asyncpg.Pool) -> AbstractAsyncContextManager[Connection]:
    return pools.connection(pool, LABEL)


@asynccontextmanager
async def begin_transaction(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    async with connection(pool) as session, transaction(session):
        yield session


async def add_note(pool: asyncpg.Pool, id_: int) -> None:
    async with connection(pool) as session:
        await session.execute("INSERT INTO notes VALUES ($1)", id_)


async def count_notes(sql: asyncpg.Connection) -> int:
    count: int = await sql.fetchval("SELECT count(*) FROM notes")
    return count


async def open_all_connections(pool: asyncpg.Pool) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(SIZE):
            session = await stack.enter_async_context(connection(pool))
            await session.execute("SELECT 1")
        assert connections_in_use(pool) == SIZE
    assert connections_in_use(pool) == 0


class TestUnavailable:
    async def test_refused_connection_raises_unavailable_with_the_label(self) -> None:
        (port,) = free_ports(1)
        async with open_pool(f"postgresql://user@127.0.0.1:{port}/none") as pool:
            with pytest.raises(Unavailable, match=LABEL):
                await add_note(pool, 1)

    async def test_lost_session_raises_unavailable_and_is_replaced(self, url: str, sql: asyncpg.Connection) -> None:
        async with open_pool(url) as pool:
            with pytest.raises(Unavailable):  # noqa: PT012  the session is lost inside the block
                async with connection(pool) as session:
                    await sql.execute("SELECT pg_terminate_backend($1)", session.get_server_pid())
                    await session.execute("SELECT 1")
            await add_note(pool, 1)

    async def test_wait_for_a_free_connection_is_bounded(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pools, "CONNECT_TIMEOUT_SECONDS", 0.05)
        async with open_pool(url, max_size=1) as pool, pool.acquire():
            with pytest.raises(Unavailable):
                await add_note(pool, 1)

    async def test_error_of_a_statement_is_not_unavailability(self, url: str) -> None:
        async with open_pool(url) as pool:
            await add_note(pool, 1)
            with pytest.raises(asyncpg.UniqueViolationError):
                await add_note(pool, 1)


class TestReadOnly:
    async def test_one_refused_write_replaces_all_read_only_connections(
        self, url: str, sql: asyncpg.Connection
    ) -> None:
        await set_read_only(sql, "on")
        async with open_pool(url) as pool:
            await open_all_connections(pool)
            await set_read_only(sql, "off")
            with pytest.raises(Unavailable):
                await add_note(pool, 0)
            for id_ in range(SIZE):
                await add_note(pool, id_)

    async def test_ping_replaces_all_read_only_connections(self, url: str, sql: asyncpg.Connection) -> None:
        await set_read_only(sql, "on")
        async with open_pool(url) as pool:
            await open_all_connections(pool)
            with pytest.raises(ReadOnlyDatabase):
                await pools.ping(pool, LABEL, PROBE)
            await set_read_only(sql, "off")
            await pools.ping(pool, LABEL, PROBE)
            for id_ in range(SIZE):
                await add_note(pool, id_)


class TestPing:
    async def test_missing_table_fails_the_ping(self, url: str) -> None:
        async with open_pool(url) as pool:
            with pytest.raises(asyncpg.UndefinedTableError):
                await pools.ping(pool, LABEL, PROBE.replace("notes", "elsewhere"))

    async def test_wrong_clock_fails_the_ping(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pools, "utc_now", lambda: datetime.now(UTC) + timedelta(days=400))
        async with open_pool(url) as pool:
            with pytest.raises(ClockSkew):
                await pools.ping(pool, LABEL, PROBE)


class TestTransaction:
    async def test_error_in_the_block_rolls_back_and_keeps_the_connection(
        self, url: str, sql: asyncpg.Connection
    ) -> None:
        async with open_pool(url, max_size=1) as pool:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012  the error follows a statement
                async with begin_transaction(pool) as session:
                    pid = session.get_server_pid()
                    await session.execute("INSERT INTO notes VALUES (1)")
                    raise ZeroDivisionError
            assert await count_notes(sql) == 0
            async with connection(pool) as session:
                assert session.get_server_pid() == pid

    async def test_block_is_committed_at_its_end(self, url: str, sql: asyncpg.Connection) -> None:
        async with open_pool(url) as pool:
            async with begin_transaction(pool) as session:
                await session.execute("INSERT INTO notes VALUES (1)")
                assert await count_notes(sql) == 0
            assert await count_notes(sql) == 1


class TestCancellation:
    """A statement that may be committing is never cancelled: its connection is closed and the server completes it."""

    async def test_statement_that_times_out_is_completed_by_the_server(self, url: str, sql: asyncpg.Connection) -> None:
        async with record_cancel_requests(url) as proxy, open_pool(proxy.url(url)) as pool:
            async with hold(url, "INSERT INTO notes VALUES (1)"):
                with pytest.raises(Unavailable):
                    async with connection(pool) as session:
                        await session.execute("INSERT INTO notes VALUES ($1)", 1, timeout=0.2)
            await until(lambda: sql.fetchval("SELECT count(*) FROM notes WHERE id = 1"))
            await add_note(pool, 2)
        assert proxy.cancel_requests == 0

    @pytest.mark.parametrize("begin", [connection, begin_transaction], ids=["statement", "transaction"])
    async def test_statement_of_a_cancelled_task_is_left_to_the_server(
        self, url: str, sql: asyncpg.Connection, begin: Begin
    ) -> None:
        async def add() -> None:
            async with begin(pool) as session:
                await session.execute("INSERT INTO notes VALUES ($1)", 1)

        async with record_cancel_requests(url) as proxy, open_pool(proxy.url(url)) as pool:
            async with hold(url, "INSERT INTO notes VALUES (1)"):
                adding = asyncio.create_task(add())
                waiter = await until(lambda: find_waiter(sql))
                adding.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await adding
                assert await find_waiter(sql) == waiter
            await add_note(pool, 2)
        assert proxy.cancel_requests == 0


class TestPgBouncer:
    async def test_session_mode_keeps_the_settings_of_the_session(self, url: str) -> None:
        async with run_pgbouncer(url, "session") as pooled, open_pool(pooled) as pool:
            await pools.ping(pool, LABEL, PROBE)
            await add_note(pool, 1)
            async with connection(pool) as session:
                for name, value in SESSION_SETTINGS.items():
                    assert await session.fetchval(f"SHOW {name}") == value
                assert await session.fetchval("SHOW application_name") == "test"

    async def test_pool_behind_transaction_mode_leaves_no_settings_in_shared_sessions(self, url: str) -> None:
        async with run_pgbouncer(url, "transaction") as pooled:
            async with open_pool(pooled) as pool:
                with pytest.raises(Unavailable, match=LABEL):
                    await add_note(pool, 1)
            client = await asyncpg.connect(pooled, statement_cache_size=0)
            values = [await client.fetchval(f"SHOW {name}") for name in SESSION_SETTINGS]
            await client.close()
            assert values == ["0", "0"]

    async def test_pool_that_shares_sessions_works_behind_transaction_mode(self, url: str) -> None:
        async with (
            run_pgbouncer(url, "transaction") as pooled,
            open_pool(pooled, shares_sessions=True) as pool,
        ):
            await asyncio.gather(*(add_note(pool, id_) for id_ in range(4 * SIZE)))
            async with connection(pool) as session:
                assert await session.fetchval("SELECT count(*) FROM notes") == 4 * SIZE
