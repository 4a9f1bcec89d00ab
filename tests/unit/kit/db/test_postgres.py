"""Options and errors that all PostgreSQL pools share."""

import asyncio

import asyncpg
import pytest

from kit.db import postgres
from kit.db.postgres import close_pool, connect_options, raise_unavailable
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
def test_connection_error_becomes_unavailable(error: Exception) -> None:
    with pytest.raises(Unavailable, match="the ledger") as caught, raise_unavailable("the ledger"):
        raise error
    assert caught.value.__cause__ is error


async def test_full_disk_is_not_ready_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_session_has_server_side_time_outs_and_the_given_settings() -> None:
    settings = connect_options("bank", enable_seqscan="off")["server_settings"]
    assert settings == {"application_name": "bank", "enable_seqscan": "off", **postgres.SESSION_SETTINGS}


async def test_hanging_close_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CLOSE_TIMEOUT_SECONDS", 0.01)
    async with asyncio.timeout(30):
        await close_pool(asyncio.Event().wait())
