import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from stack.engines.children import ClickHouse
from stack.ports import free_ports
from subgraphs.analytics.service.adapters.clickhouse.connection import open_client
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.clickhouse.table import COLUMNS
from subgraphs.analytics.service.domain.model import Direction, OperationType, Row
from subgraphs.analytics.service.migrations.schema import (
    MIGRATIONS,
    Migration,
    SchemaMismatch,
    SchemaMissing,
    upgrade,
    upgrade_schema,
    verify_schema,
)
from wallet.errors import Unavailable

ROW = Row(
    account_id=UUID(int=7),
    account_version=1,
    operation_id=UUID(int=1),
    type=OperationType.TOP_UP,
    direction=Direction.IN,
    amount=Decimal("10.25"),
    currency="RUB",
    balance_after=Decimal("10.25"),
    counterparty_id=UUID(int=9),
    occurred_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
)
ADDED = Migration(3, "note", "added", ("ALTER TABLE operations ADD COLUMN IF NOT EXISTS note String",))
NEWER = (*MIGRATIONS, ADDED)

LEGACY_TABLE = """
    CREATE TABLE operations (
        account_id UUID, account_version Int64, operation_id UUID,
        type Enum8('TRANSFER' = 1, 'TOP_UP' = 2), direction Enum8('IN' = 1, 'OUT' = 2),
        amount {amount}, currency LowCardinality(String), balance_after Decimal(22, 4),
        counterparty_id UUID, occurred_at DateTime64(6, 'UTC')
    ) ENGINE = ReplacingMergeTree ORDER BY ({key}) SETTINGS index_granularity = 1024
"""
"""The table as releases without migrations created it when they first used a database."""


@pytest.fixture
def name() -> str:
    """The name of a database that does not exist."""
    return f"migrated_{uuid.uuid4().hex}"


@pytest.fixture
async def client(clickhouse: ClickHouse) -> AsyncIterator[AsyncClient]:
    client = await open_client(clickhouse.url, 10)
    yield client
    await client.close()


async def rows(client: AsyncClient, statement: str) -> list[Sequence[Any]]:
    return list((await client.query(statement)).result_rows)


async def columns(client: AsyncClient, name: str) -> dict[str, str]:
    described = await rows(
        client,
        f"SELECT name, type FROM system.columns WHERE database = '{name}' AND table = 'operations' ORDER BY position",
    )
    return {str(column): str(kind) for column, kind in described}


async def create_legacy_table(
    client: AsyncClient, name: str, *, amount: str = "Decimal(22, 4)", key: str = "account_id, account_version"
) -> None:
    await client.command(f"CREATE DATABASE {name}")
    client.database = name
    await client.command(LEGACY_TABLE.format(amount=amount, key=key))


class TestUpgrade:
    async def test_new_database_gets_the_columns_that_the_code_reads_and_writes(
        self, client: AsyncClient, name: str
    ) -> None:
        assert await upgrade_schema(client, name) == list(MIGRATIONS)
        assert await columns(client, name) == COLUMNS
        await verify_schema(client, name)

    async def test_applied_migrations_are_recorded_with_name_checksum_and_time(
        self, client: AsyncClient, name: str
    ) -> None:
        before = datetime.now(UTC)
        await upgrade_schema(client, name)
        recorded = await rows(
            client, "SELECT number, name, checksum, applied_at FROM schema_migrations ORDER BY number"
        )
        assert [tuple(row[:3]) for row in recorded] == [(each.number, each.name, each.checksum) for each in MIGRATIONS]
        assert all(before <= row[3] <= datetime.now(UTC) for row in recorded)

    async def test_second_run_applies_nothing(self, client: AsyncClient, name: str) -> None:
        await upgrade_schema(client, name)
        assert await upgrade_schema(client, name) == []

    async def test_newer_release_applies_only_its_new_migrations(self, client: AsyncClient, name: str) -> None:
        await upgrade_schema(client, name)
        assert await upgrade_schema(client, name, NEWER) == [ADDED]
        assert (await columns(client, name))["note"] == "String"

    async def test_concurrent_runs_all_succeed(self, clickhouse: ClickHouse, name: str) -> None:
        clients = [await open_client(clickhouse.url, 10) for _ in range(8)]
        await asyncio.gather(*(upgrade_schema(client, name, NEWER) for client in clients))
        await verify_schema(clients[0], name, NEWER)
        await asyncio.gather(*(client.close() for client in clients))

    async def test_interrupted_migration_is_completed_by_the_next_run(self, client: AsyncClient, name: str) -> None:
        broken = replace(ADDED, statements=(*ADDED.statements, "SELECT throwIf(true)"))
        with pytest.raises(Exception, match="throwIf"):
            await upgrade_schema(client, name, (*MIGRATIONS, broken))
        with pytest.raises(SchemaMismatch, match="lacks migrations 0003_note"):
            await verify_schema(client, name, NEWER)
        assert await upgrade_schema(client, name, NEWER) == [ADDED]

    async def test_every_migration_can_be_repeated_without_a_change(
        self, client: AsyncClient, database: Database
    ) -> None:
        await History(database).insert([ROW])
        client.database = database._name
        for statement in (statement for migration in MIGRATIONS for statement in migration.statements):
            await client.command(statement)
        assert await columns(client, database._name) == COLUMNS
        assert await History(database).list_after(ROW.account_id, 0, 10) == [ROW]

    async def test_changed_migration_is_refused(self, client: AsyncClient, name: str) -> None:
        await upgrade_schema(client, name)
        changed = (replace(MIGRATIONS[0], checksum="another"), *MIGRATIONS[1:])
        with pytest.raises(SchemaMismatch, match="0001_operations was changed after it was applied"):
            await upgrade_schema(client, name, changed)
        with pytest.raises(SchemaMismatch, match="0001_operations was changed after it was applied"):
            await verify_schema(client, name, changed)

    async def test_migration_of_a_newer_release_is_refused(self, client: AsyncClient, name: str) -> None:
        await upgrade_schema(client, name, NEWER)
        with pytest.raises(SchemaMismatch, match="0003_note, which this release does not have"):
            await upgrade_schema(client, name)

    async def test_dropped_table_is_created_again_although_its_migration_is_recorded(
        self, client: AsyncClient, name: str
    ) -> None:
        await upgrade_schema(client, name)
        await client.command("DROP TABLE operations")
        assert await upgrade_schema(client, name) == list(MIGRATIONS)
        await verify_schema(client, name)


class TestAdoption:
    async def test_table_of_an_earlier_release_is_adopted_with_its_rows(
        self, client: AsyncClient, clickhouse: ClickHouse, name: str
    ) -> None:
        await create_legacy_table(client, name)
        await client.command("INSERT INTO operations (account_id, account_version) VALUES (generateUUIDv4(), 1)")
        assert await upgrade_schema(client, name, NEWER) == [*MIGRATIONS[1:], ADDED]
        await verify_schema(client, name, NEWER)
        assert await rows(client, "SELECT count() FROM operations") == [(1,)]

    async def test_table_with_other_columns_is_refused_and_stays_as_it_is(self, client: AsyncClient, name: str) -> None:
        await create_legacy_table(client, name, amount="Decimal(18, 2)")
        with pytest.raises(SchemaMismatch, match=r"is not the one that earlier releases created .*Decimal\(18, 2\)"):
            await upgrade_schema(client, name)
        assert (await columns(client, name))["amount"] == "Decimal(18, 2)"
        assert await rows(client, "SELECT number FROM schema_migrations") == []

    async def test_table_with_another_sorting_key_is_refused(self, client: AsyncClient, name: str) -> None:
        await create_legacy_table(client, name, key="account_id")
        with pytest.raises(SchemaMismatch, match="engine and sorting key"):
            await upgrade_schema(client, name)


class TestService:
    async def test_database_without_schema_is_refused(self, clickhouse: ClickHouse, name: str) -> None:
        async with Database.connect(clickhouse.dsn(name)) as database:
            with pytest.raises(Unavailable):
                await History(database).insert([ROW])
            with pytest.raises(SchemaMissing, match=r"run `python -m subgraphs\.analytics\.service\.migrations`"):
                await database.ping()

    async def test_table_that_is_not_adopted_yet_is_refused(
        self, client: AsyncClient, clickhouse: ClickHouse, name: str
    ) -> None:
        await create_legacy_table(client, name)
        async with Database.connect(clickhouse.dsn(name)) as database:
            with pytest.raises(Unavailable):
                await History(database).insert([ROW])
            with pytest.raises(SchemaMismatch, match="has no applied migrations"):
                await database.ping()

    async def test_schema_of_a_newer_release_is_refused(
        self, client: AsyncClient, clickhouse: ClickHouse, name: str
    ) -> None:
        await upgrade_schema(client, name, NEWER)
        async with Database.connect(clickhouse.dsn(name)) as database:
            with pytest.raises(SchemaMismatch, match="0003_note"):
                await database.ping()

    async def test_refused_database_is_used_after_the_job_has_run(self, clickhouse: ClickHouse, name: str) -> None:
        async with Database.connect(clickhouse.dsn(name)) as database:
            with pytest.raises(SchemaMissing):
                await database.ping()
            await upgrade(clickhouse.dsn(name))
            await History(database).insert([ROW])
            assert await History(database).list_after(ROW.account_id, 0, 10) == [ROW]

    @pytest.mark.parametrize("lost", ["TABLE operations", "DATABASE {name}"])
    async def test_schema_that_is_lost_at_run_time_is_created_again(
        self, client: AsyncClient, database: Database, lost: str
    ) -> None:
        history = History(database)
        await history.insert([ROW])
        client.database = database._name
        await client.command(f"DROP {lost.format(name=database._name)}")
        with pytest.raises(Unavailable):
            await history.insert([ROW])
        await history.insert([ROW])
        assert await history.list_after(ROW.account_id, 0, 10) == [ROW]
        await verify_schema(client, database._name)

    async def test_older_schema_that_replaces_the_current_one_is_refused(
        self, client: AsyncClient, database: Database
    ) -> None:
        history = History(database)
        await history.insert([ROW])
        client.database = database._name
        await client.command("DROP TABLE operations")
        await client.command("DROP TABLE schema_migrations")
        await client.command(LEGACY_TABLE.format(amount="Decimal(22, 4)", key="account_id, account_version"))
        await client.command("ALTER TABLE operations DROP COLUMN currency")
        with pytest.raises(Unavailable):
            await history.insert([ROW])
        with pytest.raises(SchemaMismatch, match="has no applied migrations"):
            await database.ping()

    async def test_concurrent_first_pings_succeed(self, database: Database) -> None:
        await asyncio.gather(*(database.ping() for _ in range(10)))


@pytest.mark.slow
class TestJob:
    def run(self, dsn: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "subgraphs.analytics.service.migrations"],
            env={"CLICKHOUSE_DSN": dsn},
            capture_output=True,
            text=True,
            check=False,
        )

    async def test_job_upgrades_the_database(self, client: AsyncClient, clickhouse: ClickHouse, name: str) -> None:
        done = await asyncio.to_thread(self.run, clickhouse.dsn(name))
        assert done.returncode == 0, done.stderr
        await verify_schema(client, name)

    async def test_job_exits_with_the_reason_if_a_table_is_refused(
        self, client: AsyncClient, clickhouse: ClickHouse, name: str
    ) -> None:
        await create_legacy_table(client, name, amount="Decimal(18, 2)")
        done = await asyncio.to_thread(self.run, clickhouse.dsn(name))
        assert done.returncode == 1
        entry = json.loads(done.stderr)
        assert entry["event"] == "job failed"
        assert entry["error"].startswith(f"table operations in database {name} is not the one")

    async def test_job_without_a_server_exits_with_the_name_of_the_setting_and_without_the_password(self) -> None:
        done = await asyncio.to_thread(self.run, f"http://wallet:s3cret@127.0.0.1:{free_ports(1)[0]}/wallet")
        assert (done.returncode, done.stdout) == (1, "")
        entry = json.loads(done.stderr)
        assert entry["error"].startswith("CLICKHOUSE_DSN: cannot upgrade ClickHouse; check that the server runs")
        assert "s3cret" not in done.stderr
