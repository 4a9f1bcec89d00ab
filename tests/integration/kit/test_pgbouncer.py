"""Pools of SQLAlchemy behind PgBouncer."""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import Integer, column, insert, table, text

from kit.db.database import Database
from kit.db.migrations import run_upgrade, upgrade
from kit.db.postgres import SESSION_SETTINGS, SharedSessions, check_sessions
from kit.runtime.job import JobError
from provisioning.certificates import ensure_certificates
from tests.pgbouncer import run_pgbouncer
from wallet.errors import Unavailable

NOTES = table("notes", column("id", Integer))


def open_notes(url: str) -> AbstractAsyncContextManager[Database]:
    return Database.open(url, service="test", label="the notes' database", max_connections=2)


async def test_session_mode_keeps_the_settings_of_the_session(url: str) -> None:
    async with (
        run_pgbouncer(url, "session") as pooled,
        open_notes(pooled) as database,
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
        open_notes(pooled) as database,
    ):
        with pytest.raises(SharedSessions, match="not in session mode"):
            await database.check(NOTES)


async def test_pool_behind_transaction_mode_leaves_no_settings_in_shared_sessions(url: str) -> None:
    async with (
        run_pgbouncer(url, "transaction") as pooled,
        open_notes(pooled) as database,
    ):
        with pytest.raises(Unavailable, match="the notes' database"):
            async with database.statement():
                pass
        client = await asyncpg.connect(pooled, statement_cache_size=0)
        values = [await client.fetchval(f"SHOW {name}") for name in SESSION_SETTINGS]
        await client.close()
        assert values == ["0", "0"]


class TestTLS:
    @pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
    async def test_services_and_migrations_connect_with_tls(self, url: str, mode: str, tmp_path: Path) -> None:
        authority, pair = ensure_certificates(tmp_path, ["pgbouncer"], datetime.now(UTC))
        async with run_pgbouncer(url, "session", pair) as pooled:
            encrypted = f"{pooled}?sslmode={mode}&sslrootcert={authority.certificate}"
            async with open_notes(encrypted) as database:
                await database.check(NOTES)
            await asyncio.to_thread(upgrade, "subgraphs.identity.service.migrations", encrypted)

    @pytest.mark.parametrize("query", ["sslmode=disable", "sslmode=verify-ca&sslrootcert={other}"])
    async def test_connection_without_tls_or_with_another_authority_is_refused(
        self, url: str, query: str, tmp_path: Path
    ) -> None:
        _, pair = ensure_certificates(tmp_path / "own", ["pgbouncer"], datetime.now(UTC))
        other, _ = ensure_certificates(tmp_path / "other", ["pgbouncer"], datetime.now(UTC))
        async with run_pgbouncer(url, "session", pair) as pooled:
            refused = f"{pooled}?{query.format(other=other.certificate)}"
            async with open_notes(refused) as database:
                with pytest.raises((Unavailable, asyncpg.PostgresError)):
                    await database.check(NOTES)
            with pytest.raises(JobError, match="EXAMPLE_DATABASE_URL: cannot connect"):
                await asyncio.to_thread(
                    run_upgrade, "subgraphs.identity.service.migrations", "EXAMPLE_DATABASE_URL", SecretStr(refused)
                )


async def test_connections_without_pooler_have_their_own_sessions(url: str) -> None:
    await check_sessions(url)
