import asyncio
import os
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest
from alembic import command
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs

from kit.db import migrations
from kit.db.migrations import config, upgrade
from stack.engines.postgres import Postgres
from stack.process import ROOT
from subgraphs.bank.service.adapters.tables import metadata
from tests.databases import CleanDatabases
from tests.integration.schema import read_schema
from tests.waiting import until
from wallet.accounts import clearing_account_id
from wallet.money import EXPONENTS

MIGRATIONS = "subgraphs.bank.service.migrations"


@pytest.fixture
async def sql(ledger_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(ledger_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def _kept(ledgers: CleanDatabases) -> AsyncIterator[asyncpg.Connection]:
    async with ledgers.one() as url:
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()


@pytest.fixture
async def rolled_back(_kept: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Empty ledger; the test's changes are rolled back."""
    transaction = _kept.transaction()
    await transaction.start()
    yield _kept
    await transaction.rollback()


class TestMigrations:
    async def test_migrations_create_the_tables_that_the_code_declares(self, ledger_url: str) -> None:
        await asyncio.to_thread(command.check, config(MIGRATIONS, ledger_url))

    async def test_migrations_create_the_declared_constraints_defaults_and_options(
        self, sql: asyncpg.Connection, postgres: Postgres
    ) -> None:
        admin = await asyncpg.connect(postgres.admin_dsn)
        try:
            await admin.execute("CREATE DATABASE from_tables")
            url = make_url(postgres.dsn("postgres", "from_tables"))
            engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
            await engine.dispose()
            created = await asyncpg.connect(postgres.dsn("postgres", "from_tables"))
            from_tables = await read_schema(created)
            await created.close()
        finally:
            await admin.execute("DROP DATABASE IF EXISTS from_tables WITH (FORCE)")
            await admin.close()
        assert await read_schema(sql) == from_tables

    async def test_migrations_can_be_downgraded_and_upgraded_again(
        self, ledger_url: str, sql: asyncpg.Connection
    ) -> None:
        before = await read_schema(sql)
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, ledger_url), "base")
        left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')"
        functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        assert await sql.fetchval(left) == 1  # Alembic's version table
        assert await sql.fetchval(functions) == 0
        await asyncio.to_thread(upgrade, MIGRATIONS, ledger_url)
        assert await read_schema(sql) == before
        assert await sql.fetchval("SELECT count(*) FROM accounts") == len(EXPONENTS)

    async def test_reads_do_not_wait_for_a_migration_that_waits_for_a_table(
        self, ledger_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "100ms")
        monkeypatch.setattr(migrations, "_FIRST_PAUSE_SECONDS", 0.1)
        monkeypatch.setattr(migrations, "_LONGEST_PAUSE_SECONDS", 0.1)
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, ledger_url), "0006")
        reader = await asyncpg.connect(ledger_url)
        try:
            async with sql.transaction():
                await sql.execute("SELECT * FROM ledger_epoch")  # the migration waits for the end of this transaction
                upgrading = asyncio.create_task(asyncio.to_thread(upgrade, MIGRATIONS, ledger_url))

                async def migration_waits() -> bool:
                    query = (
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'ledger_epoch'::regclass AND NOT granted)"
                    )
                    waits: bool = await sql.fetchval(query)
                    return waits

                await until(migration_waits, every=0.01)
                assert await reader.fetchval("SELECT epoch FROM ledger_epoch", timeout=30) == ""
                assert not upgrading.done()
            await upgrading
        finally:
            await reader.close()
        assert await sql.fetchval("SELECT version_num FROM alembic_version") == "0011"

    async def test_migration_without_its_lock_fails_and_changes_nothing(
        self, ledger_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "10ms")
        monkeypatch.setattr(migrations, "_ATTEMPTS", 2)
        monkeypatch.setattr(migrations, "_FIRST_PAUSE_SECONDS", 0.01)
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, ledger_url), "0006")
        before = await read_schema(sql)
        async with sql.transaction():
            await sql.execute("SELECT * FROM ledger_epoch")
            with capture_logs() as logs, pytest.raises(DBAPIError, match="lock timeout"):
                await asyncio.to_thread(upgrade, MIGRATIONS, ledger_url)
        assert [each["attempts_left"] for each in logs] == [1]
        assert await read_schema(sql) == before

    @pytest.mark.parametrize(("epoch", "past"), [("", []), ("019ad2b0-0000-7000-8000-000000000001", [""])])
    async def test_past_epochs_of_an_existing_ledger_are_those_before_its_epoch(
        self, ledger_url: str, sql: asyncpg.Connection, epoch: str, past: list[str]
    ) -> None:
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, ledger_url), "0007")
        await sql.execute("UPDATE ledger_epoch SET epoch = $1", epoch)
        await asyncio.to_thread(upgrade, MIGRATIONS, ledger_url)
        assert await sql.fetchval("SELECT past_epochs FROM ledger_epoch") == past

    @pytest.mark.slow
    async def test_migrations_can_run_repeatedly_and_concurrently(
        self, ledger_url: str, sql: asyncpg.Connection
    ) -> None:
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, ledger_url), "base")
        codes = await asyncio.gather(*(_upgrade_in_a_process(ledger_url) for _ in range(2)))
        assert codes == [0, 0]
        assert await sql.fetchval("SELECT count(*) FROM accounts") == len(EXPONENTS)


async def _upgrade_in_a_process(url: str) -> int:
    """Run the migrations in a process, as an operator does. Return the exit code."""
    environment = {**os.environ, "BANK_DATABASE_URL": url}
    migration = await asyncio.create_subprocess_exec(sys.executable, "-m", MIGRATIONS, env=environment, cwd=ROOT)
    return await migration.wait()


class TestAccounts:
    async def test_plain_insert_of_accounts_works(self, rolled_back: asyncpg.Connection) -> None:
        await rolled_back.execute("""
            INSERT INTO accounts (id, balance, created_at, updated_at) VALUES
            ('123e4567-e89b-12d3-a456-426614174000', 1000.00, NOW(), NOW()),
            ('987e6543-e21b-34d3-c456-426614174999', 500.00, NOW(), NOW());
        """)
        alice = await rolled_back.fetchrow(
            "SELECT * FROM accounts WHERE id = $1", UUID("123e4567-e89b-12d3-a456-426614174000")
        )
        assert alice is not None
        assert (alice["balance"], alice["opening_balance"]) == (Decimal("1000.00"), Decimal("1000.00"))
        assert (alice["currency"], alice["status"], alice["min_balance"]) == ("RUB", "OPEN", 0)
        assert (alice["version"], alice["owner_id"]) == (0, None)

    async def test_opening_balance_is_the_inserted_balance(self, rolled_back: asyncpg.Connection) -> None:
        row = await rolled_back.fetchrow(
            "INSERT INTO accounts (balance, opening_balance, version) VALUES (5, 7, 9) RETURNING *",
        )
        assert row is not None
        assert (row["opening_balance"], row["version"]) == (Decimal(5), 0)

    async def test_every_currency_has_a_clearing_account(self, rolled_back: asyncpg.Connection) -> None:
        rows = await rolled_back.fetch("SELECT * FROM accounts WHERE min_balance IS NULL")
        assert {(row["id"], row["currency"]) for row in rows} == {
            (clearing_account_id(code), code) for code in EXPONENTS
        }
        assert {(row["balance"], row["owner_id"], row["status"]) for row in rows} == {(Decimal(0), None, "OPEN")}

    @pytest.mark.parametrize(
        ("columns", "constraint"),
        [
            ("(balance) VALUES (-0.01)", "accounts_min_balance"),
            ("(balance, min_balance) VALUES (-10.01, -10)", "accounts_min_balance"),
            ("(status) VALUES ('FROZEN')", "accounts_status"),
            ("(currency) VALUES ('rub')", "accounts_currency"),
        ],
    )
    async def test_invalid_account_violates_a_constraint(
        self, rolled_back: asyncpg.Connection, columns: str, constraint: str
    ) -> None:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await rolled_back.execute(f"INSERT INTO accounts {columns}")
        assert caught.value.constraint_name == constraint

    async def test_update_below_the_minimum_balance_is_refused(self, rolled_back: asyncpg.Connection) -> None:
        id_ = await rolled_back.fetchval("INSERT INTO accounts (balance) VALUES (10) RETURNING id")
        await rolled_back.execute("UPDATE accounts SET balance = balance - 10 WHERE id = $1", id_)
        with pytest.raises(asyncpg.CheckViolationError, match="accounts_min_balance"):
            await rolled_back.execute("UPDATE accounts SET balance = balance - 0.01 WHERE id = $1", id_)


class TestHistory:
    @pytest.mark.parametrize("table", ["entries", "transfers"])
    @pytest.mark.parametrize("change", ["UPDATE {} SET amount = 0", "DELETE FROM {}", "TRUNCATE {}"])
    async def test_entries_and_transfers_are_append_only(
        self, rolled_back: asyncpg.Connection, table: str, change: str
    ) -> None:
        with pytest.raises(asyncpg.RestrictViolationError, match=f"{table} is append-only"):
            await rolled_back.execute(change.format(table))

    @pytest.mark.parametrize(
        ("values", "constraint"),
        [
            ("'GIFT', $1, $2, 1, 'COMPLETED'", "transfers_kind"),
            ("'TRANSFER', $1, $1, 1, 'COMPLETED'", "transfers_two_accounts"),
            ("'TRANSFER', $1, $2, 0, 'COMPLETED'", "transfers_amount"),
            ("'TRANSFER', $1, $2, 1, 'PENDING'", "transfers_status"),
        ],
    )
    async def test_invalid_transfer_violates_a_constraint(
        self, rolled_back: asyncpg.Connection, values: str, constraint: str
    ) -> None:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await rolled_back.execute(
                f"""
                INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, status, currency, created_at,
                                       idempotency_key, sender_version, recipient_version)
                SELECT uuidv7(), {values}, 'RUB', now(), 'k', 1, 1 FROM (VALUES ($1::uuid, $2::uuid)) AS given
                """,
                UUID(int=1),
                UUID(int=2),
            )
        assert caught.value.constraint_name == constraint

    @pytest.mark.parametrize("outcome", ["NULL, NULL", "uuidv7(), '{}'"])
    async def test_idempotency_key_has_exactly_one_outcome(self, rolled_back: asyncpg.Connection, outcome: str) -> None:
        with pytest.raises(asyncpg.CheckViolationError, match="idempotency_keys_outcome"):
            await rolled_back.execute(f"INSERT INTO idempotency_keys VALUES ('p', 'o', 'k', '', {outcome})")
