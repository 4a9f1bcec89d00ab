"""The migrations create the tables of the code, and the database enforces the rules of top-ups."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from alembic import command
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from kit.db.migrations import config, upgrade
from stack.engines.postgres import Postgres
from stack.process import ROOT
from subgraphs.card.service.adapters.tables import metadata
from tests.databases import CleanDatabases
from tests.integration.schema import read_schema

MIGRATIONS = "subgraphs.card.service.migrations"
FINAL: dict[str, dict[str, Any]] = {
    "COMPLETED": {"transfer_id": uuid.uuid4()},
    "DECLINED": {"failure": "DO_NOT_HONOR"},
    "VOIDED": {"failure": "AUTHORIZATION_UNKNOWN"},
    "REFUNDED": {"failure": "ACCOUNT_CLOSED"},
}


@pytest.fixture
async def sql(card_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(card_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def _migrated(card_databases: CleanDatabases) -> AsyncIterator[asyncpg.Connection]:
    async with card_databases.one() as url:
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()


@pytest.fixture
async def unchanged_database(_migrated: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Empty database; the test's changes are rolled back."""
    transaction = _migrated.transaction()
    await transaction.start()
    yield _migrated
    await transaction.rollback()


async def add(sql: asyncpg.Connection, **columns: Any) -> uuid.UUID:
    row = {
        "id": uuid.uuid4(),
        "principal": "issuer|alice",
        "idempotency_key": uuid.uuid4().hex,
        "fingerprint": b"f",
        "owner_id": "alice",
        "account_id": uuid.uuid4(),
        "amount": 1,
        "currency": "RUB",
        "card_token": "tok",
        "card_brand": "VISA",
        "card_last_four": "4242",
        **columns,
    }
    names, places = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
    id_: uuid.UUID = await sql.fetchval(f"INSERT INTO top_ups ({names}) VALUES ({places}) RETURNING id", *row.values())
    return id_


class TestMigrations:
    async def test_migrations_create_the_tables_that_the_code_declares(self, card_url: str) -> None:
        await asyncio.to_thread(command.check, config(MIGRATIONS, card_url))

    async def test_migrations_create_the_declared_constraints_defaults_and_options(
        self, sql: asyncpg.Connection, postgres: Postgres
    ) -> None:
        admin = await asyncpg.connect(postgres.admin_dsn)
        try:
            await admin.execute("CREATE DATABASE card_from_tables")
            url = make_url(postgres.dsn("postgres", "card_from_tables"))
            engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
            await engine.dispose()
            created = await asyncpg.connect(postgres.dsn("postgres", "card_from_tables"))
            from_tables = await read_schema(created)
            await created.close()
        finally:
            await admin.execute("DROP DATABASE IF EXISTS card_from_tables WITH (FORCE)")
            await admin.close()
        assert await read_schema(sql) == from_tables

    @pytest.mark.slow
    async def test_downgrade_removes_everything_and_the_command_upgrades_again(
        self, card_url: str, sql: asyncpg.Connection
    ) -> None:
        before = await read_schema(sql)
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, card_url), "base")
        relations = (
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')"
        )
        functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        assert await sql.fetchval(relations) == 1  # Alembic's table
        assert await sql.fetchval(functions) == 0
        environment = {**os.environ, "CARD_DATABASE_URL": card_url}
        migration = await asyncio.create_subprocess_exec(sys.executable, "-m", MIGRATIONS, env=environment, cwd=ROOT)
        assert await migration.wait() == 0
        await asyncio.to_thread(upgrade, MIGRATIONS, card_url)
        assert await read_schema(sql) == before


class TestTopUps:
    @pytest.mark.parametrize(
        ("columns", "constraint"),
        [
            ({"amount": 0}, "top_ups_amount"),
            ({"currency": "rub"}, "top_ups_currency"),
            ({"card_last_four": "42424"}, "top_ups_last_four"),
            ({"card_last_four": "4242424242424242"}, "top_ups_last_four"),
            ({"status": "LOST"}, "top_ups_status"),
            ({"status": "CREATED", "step": "CAPTURE"}, "top_ups_status"),
            ({"status": "CAPTURED", "step": "VOID"}, "top_ups_status"),
            ({"status": "COMPLETED", "step": None}, "top_ups_status"),
            ({"status": "VOIDED", "step": None}, "top_ups_status"),
            ({"status": "NEEDS_REVIEW", "step": "REFUND"}, "top_ups_status"),
        ],
    )
    async def test_invalid_row_is_refused(
        self, unchanged_database: asyncpg.Connection, columns: dict[str, Any], constraint: str
    ) -> None:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await add(unchanged_database, **columns)
        assert caught.value.constraint_name == constraint

    async def test_idempotency_key_has_one_row_for_each_principal(self, unchanged_database: asyncpg.Connection) -> None:
        await add(unchanged_database, idempotency_key="k")
        await add(unchanged_database, idempotency_key="k", principal="issuer|bob")
        with pytest.raises(asyncpg.UniqueViolationError, match="top_ups_key"):
            await add(unchanged_database, idempotency_key="k")

    @pytest.mark.parametrize("status", FINAL)
    @pytest.mark.parametrize(
        "change",
        [
            "status = 'CREATED', step = 'AUTHORIZE', failure = NULL, transfer_id = NULL",
            "status = 'REFUNDED', failure = 'OTHER', transfer_id = NULL",
            "failure = 'OTHER'",
            "transfer_id = gen_random_uuid()",
            "payment_id = 'another'",
        ],
    )
    async def test_final_top_up_cannot_be_changed(
        self, unchanged_database: asyncpg.Connection, status: str, change: str
    ) -> None:
        id_ = await add(unchanged_database, status=status, step=None, **FINAL[status])
        with pytest.raises(asyncpg.RestrictViolationError, match=f"a top-up that is {status} stays so"):
            await unchanged_database.execute(f"UPDATE top_ups SET {change} WHERE id = $1", id_)

    @pytest.mark.parametrize("status", FINAL)
    async def test_final_top_up_can_be_marked_for_review(
        self, unchanged_database: asyncpg.Connection, status: str
    ) -> None:
        id_ = await add(unchanged_database, status=status, step=None, **FINAL[status])
        await unchanged_database.execute(
            "UPDATE top_ups SET review = 'reason', next_attempt_at = now() WHERE id = $1", id_
        )

    async def test_completed_top_up_under_review_can_become_refunded(
        self, unchanged_database: asyncpg.Connection
    ) -> None:
        id_ = await add(unchanged_database, status="COMPLETED", step=None, review="reason", **FINAL["COMPLETED"])
        change = "status = 'REFUNDED', failure = 'DEPOSIT_LOST', transfer_id = NULL, review = NULL"
        await unchanged_database.execute(f"UPDATE top_ups SET {change} WHERE id = $1", id_)

    @pytest.mark.parametrize(
        "change", ["amount = 2", "account_id = gen_random_uuid()", "fingerprint = ''", "card_token = 'another'"]
    )
    async def test_request_columns_cannot_be_changed(self, unchanged_database: asyncpg.Connection, change: str) -> None:
        id_ = await add(unchanged_database)
        with pytest.raises(asyncpg.RestrictViolationError, match="what was asked for does not change"):
            await unchanged_database.execute(f"UPDATE top_ups SET {change} WHERE id = $1", id_)

    @pytest.mark.parametrize("removal", ["DELETE FROM top_ups", "TRUNCATE top_ups"])
    async def test_top_ups_cannot_be_deleted(self, unchanged_database: asyncpg.Connection, removal: str) -> None:
        with pytest.raises(asyncpg.RestrictViolationError, match="top_ups are never removed"):
            await unchanged_database.execute(removal)
