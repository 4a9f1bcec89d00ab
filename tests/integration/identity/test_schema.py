"""Migrations match the tables of the code, and constraints protect the data."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from alembic import command
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from kit.db.migrations import config, upgrade
from stack.engines.postgres import Postgres
from stack.process import ROOT
from subgraphs.identity.service.adapters.tables import metadata
from tests.integration.schema import read_schema

MIGRATIONS = "subgraphs.identity.service.migrations"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$dGFn"
ADD = "INSERT INTO users (id, username, password_hash) VALUES ($1, $2, $3)"


@pytest.fixture
async def sql(identity_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(identity_url)
    yield connection
    await connection.close()


class TestMigrations:
    async def test_migrated_schema_matches_the_tables(self, identity_url: str) -> None:
        await asyncio.to_thread(command.check, config(MIGRATIONS, identity_url))

    async def test_migrated_schema_has_the_declared_constraints_and_defaults(
        self, sql: asyncpg.Connection, postgres: Postgres
    ) -> None:
        admin = await asyncpg.connect(postgres.admin_dsn)
        try:
            await admin.execute("CREATE DATABASE identity_from_tables")
            url = make_url(postgres.dsn("postgres", "identity_from_tables"))
            engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
            await engine.dispose()
            reference = await asyncpg.connect(postgres.dsn("postgres", "identity_from_tables"))
            from_tables = await read_schema(reference)
            await reference.close()
        finally:
            await admin.execute("DROP DATABASE IF EXISTS identity_from_tables WITH (FORCE)")
            await admin.close()
        assert await read_schema(sql) == from_tables

    @pytest.mark.slow
    async def test_migrations_can_be_downgraded_and_repeated(self, identity_url: str, sql: asyncpg.Connection) -> None:
        before = await read_schema(sql)
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, identity_url), "base")
        left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')"
        assert await sql.fetchval(left) == 1  # alembic_version
        environment = {**os.environ, "IDENTITY_DATABASE_URL": identity_url}
        upgrade_command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", MIGRATIONS, env=environment, cwd=ROOT
        )
        assert await upgrade_command.wait() == 0
        await asyncio.to_thread(upgrade, MIGRATIONS, identity_url)
        assert await read_schema(sql) == before

    async def test_names_survive_the_downgrade_in_lower_case(self, identity_url: str, sql: asyncpg.Connection) -> None:
        first, second = uuid.uuid4(), uuid.uuid4()
        await sql.execute(ADD, first, "McKinley", HASH)
        await sql.execute(ADD, second, "alice", HASH)
        names = "SELECT username FROM users ORDER BY username"
        await asyncio.to_thread(command.downgrade, config(MIGRATIONS, identity_url), "0002")
        assert [row["username"] for row in await sql.fetch(names)] == ["alice", "mckinley"]
        await asyncio.to_thread(upgrade, MIGRATIONS, identity_url)
        rows = await sql.fetch("SELECT id, username FROM users ORDER BY username")
        assert [tuple(row) for row in rows] == [(second, "alice"), (first, "mckinley")]


class TestTables:
    async def test_name_in_another_case_is_refused(self, sql: asyncpg.Connection) -> None:
        await sql.execute(ADD, uuid.uuid4(), "Alice", HASH)
        with pytest.raises(asyncpg.UniqueViolationError, match="users_username_folded"):
            await sql.execute(ADD, uuid.uuid4(), "aLICE", HASH)

    @pytest.mark.parametrize(
        ("username", "password_hash", "constraint"),
        [
            ("1Alice", HASH, "users_username_form"),
            ("\u00c4lice", HASH, "users_username_form"),
            ("alice\n", HASH, "users_username_form"),
            ("alice", "correct horse battery", "users_password_hash"),
            ("alice", HASH.replace("id", "i"), "users_password_hash"),
        ],
    )
    async def test_invalid_user_row_is_refused(
        self, sql: asyncpg.Connection, username: str, password_hash: str, constraint: str
    ) -> None:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await sql.execute(ADD, uuid.uuid4(), username, password_hash)
        assert caught.value.constraint_name == constraint

    async def test_unknown_role_is_refused(self, sql: asyncpg.Connection) -> None:
        await sql.execute(ADD, uuid.uuid4(), "alice", HASH)
        with pytest.raises(asyncpg.CheckViolationError, match="users_role"):
            await sql.execute("UPDATE users SET role = 'KING'")

    async def test_refresh_token_has_one_successor_and_one_predecessor(self, sql: asyncpg.Connection) -> None:
        user, sign_in, successor = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
        await sql.execute(ADD, user, "alice", HASH)
        await sql.execute(
            "INSERT INTO sign_ins (id, user_id, expires_at) VALUES ($1, $2, $3)", sign_in, user, datetime.now(UTC)
        )
        add = "INSERT INTO refresh_tokens (id, sign_in, replaced_by, replaced_at) VALUES ($1, $2, $3, $4)"
        await sql.execute(add, uuid.uuid4(), sign_in, successor, datetime.now(UTC))
        with pytest.raises(asyncpg.UniqueViolationError, match="refresh_tokens_successor"):
            await sql.execute(add, uuid.uuid4(), sign_in, successor, datetime.now(UTC))
        with pytest.raises(asyncpg.CheckViolationError, match="refresh_tokens_replaced"):
            await sql.execute(add, uuid.uuid4(), sign_in, uuid.uuid4(), None)
        await sql.execute("DELETE FROM sign_ins")
        assert await sql.fetchval("SELECT count(*) FROM refresh_tokens") == 0
