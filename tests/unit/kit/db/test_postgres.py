"""Options and errors that all PostgreSQL pools share."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import asyncpg
import pytest
from structlog.testing import capture_logs

from kit.db import postgres
from kit.db.postgres import (
    ClockSkew,
    SharedSessions,
    check_sessions,
    close_pool,
    connect_options,
    log_failures,
    raise_unavailable,
    set_session_statement,
)
from wallet.errors import Unavailable


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.AdminShutdownError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.DiskFullError(),
        asyncpg.OutOfMemoryError(),
        asyncpg.PostgresIOError(),
        asyncpg.ReadOnlySQLTransactionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_of_an_unavailable_database_becomes_unavailable(error: Exception) -> None:
    with pytest.raises(Unavailable, match="the ledger") as caught, raise_unavailable("the ledger"):
        raise error
    assert caught.value.__cause__ is error


async def test_process_is_not_ready_for_ten_seconds_after_a_disk_error(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("kit.db.postgres.time.monotonic", lambda: now)
    monkeypatch.setattr(postgres._disk, "failed_at", float("-inf"))
    await postgres.check_disk()
    with pytest.raises(Unavailable), raise_unavailable("the ledger"):
        raise asyncpg.DiskFullError
    with pytest.raises(Unavailable):
        await postgres.check_disk()
    now += 10.0
    await postgres.check_disk()


@pytest.mark.parametrize("error", [asyncpg.UniqueViolationError(), KeyError()], ids=lambda error: type(error).__name__)
def test_other_error_is_raised_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)), raise_unavailable("the ledger"):
        raise error


def test_connection_starts_without_settings_that_poolers_refuse() -> None:
    assert connect_options("postgresql://host/bank", "bank")["server_settings"] == {"application_name": "bank"}


def test_application_name_of_the_url_replaces_the_name_of_the_service() -> None:
    url = "postgresql://host/bank?application_name=bank-eu"
    assert connect_options(url, "bank")["server_settings"] == {}


def test_statement_sets_each_setting_for_the_session() -> None:
    statement = set_session_statement({"transaction_timeout": "10s", "jit": "off"})
    assert statement == "SET transaction_timeout = '10s';SET jit = 'off';"


async def test_reason_of_a_failed_check_is_logged_once_until_it_changes() -> None:
    failures = [Unavailable("the ledger"), Unavailable("the ledger"), ClockSkew("+400 s"), None, None]
    failures[0].__cause__ = failures[1].__cause__ = OSError("refused")  # type: ignore[union-attr]

    async def check() -> None:
        if failure := failures.pop(0):
            raise failure

    logged_check = log_failures(check)
    with capture_logs() as logs:
        while failures:
            with suppress(Unavailable, ClockSkew):
                await logged_check()
    assert [(each["event"], each.get("error")) for each in logs] == [
        ("database not ready", "OSError: refused"),
        ("database not ready", "ClockSkew: +400 s"),
        ("database ready", None),
    ]


async def test_hanging_close_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CLOSE_TIMEOUT_SECONDS", 0.01)
    async with asyncio.timeout(30):
        await close_pool(asyncio.Event().wait())


class PooledConnection:
    """Fake connection through a pooler. Each query runs in the server process that the pooler chooses next."""

    def __init__(self, processes: Iterable[int]) -> None:
        self._processes = iter(processes)
        self.is_terminated = False

    async def fetchval(self, query: str) -> int:
        assert query == "SELECT pg_backend_pid()"
        return next(self._processes)

    def terminate(self) -> None:
        self.is_terminated = True


def connect_through_pooler(monkeypatch: pytest.MonkeyPatch, *processes: Iterable[int]) -> list[PooledConnection]:
    """Make the next connections run their queries in these server processes; return the connections."""
    connections = [PooledConnection(each) for each in processes]
    waiting = iter(connections)

    async def connect(**options: object) -> PooledConnection:
        assert options["statement_cache_size"] == 0  # a pooler in transaction mode breaks prepared statements
        return next(waiting)

    monkeypatch.setattr("kit.db.postgres.asyncpg.connect", connect)
    return connections


class TestCheckSessions:
    async def test_sessions_that_stay_apart_pass_after_twenty_rounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connections = connect_through_pooler(monkeypatch, [1] * 20, [2] * 20)
        await check_sessions("postgresql://pooler/bank")
        assert all(each.is_terminated for each in connections)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param([1] * 20, [1] * 20, id="one process"),
            pytest.param([1] * 19 + [3], [2] * 20, id="the first connection moves in the last round"),
            pytest.param([1] * 20, [2] * 19 + [3], id="the second connection moves in the last round"),
            pytest.param([1] * 10 + [2] * 10, [2] * 10 + [1] * 10, id="the connections change places"),
        ],
    )
    async def test_session_that_is_shared_in_any_round_fails(
        self, monkeypatch: pytest.MonkeyPatch, first: list[int], second: list[int]
    ) -> None:
        connections = connect_through_pooler(monkeypatch, first, second)
        with pytest.raises(SharedSessions, match="not in session mode"):
            await check_sessions("postgresql://pooler/bank")
        assert all(each.is_terminated for each in connections)

    async def test_failed_second_connection_closes_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = PooledConnection([])
        results: list[PooledConnection | OSError] = [opened, ConnectionRefusedError()]

        async def connect(**_: object) -> PooledConnection:
            result = results.pop(0)
            if isinstance(result, OSError):
                raise result
            return result

        monkeypatch.setattr("kit.db.postgres.asyncpg.connect", connect)
        with pytest.raises(ConnectionRefusedError):
            await check_sessions("postgresql://pooler/bank")
        assert opened.is_terminated
