"""Options and errors that all PostgreSQL pools share."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest
from structlog.testing import capture_logs

from kit.db import postgres
from kit.db.postgres import (
    ClockSkew,
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
    assert connect_options("bank")["server_settings"] == {"application_name": "bank"}


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
