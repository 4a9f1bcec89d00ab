"""Fixtures: each test gets a new database with one table, and a connection to this database."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from stack.engines.postgres import Postgres


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    """URL of a new database with the empty table `notes`."""
    name = f"kit_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    connection = await asyncpg.connect(postgres.dsn("postgres", name))
    await connection.execute("CREATE TABLE notes (id int PRIMARY KEY)")
    await connection.close()
    yield postgres.dsn("postgres", name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def sql(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connection of the test itself, which is never read-only."""
    connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    yield connection
    await connection.close()
