"""Identity services and databases: one shared service, and one for each test that counts rows or damages data."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from kit.db.migrations import upgrade
from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.integration.bank.harness import clone_database
from tests.integration.identity.harness import RunningIdentity, build_settings, running


@pytest.fixture(scope="session")
async def identity_template(postgres: Postgres) -> str:
    """Create a migrated database without users, as a template."""
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute("CREATE DATABASE identity_template")
    await admin.close()
    url = postgres.dsn("postgres", "identity_template")
    await asyncio.to_thread(upgrade, "subgraphs.identity.service.migrations", url)
    return "identity_template"


@pytest.fixture
async def identity_url(postgres: Postgres, identity_template: str) -> AsyncIterator[str]:
    """Create a database for one test."""
    async with clone_database(postgres, identity_template) as url:
        yield url


@pytest.fixture(scope="session")
async def identity(
    postgres: Postgres, identity_template: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIdentity]:
    """Run the shared service; each test registers its own users."""
    async with (
        clone_database(postgres, identity_template) as url,
        running(keys, build_settings(keys, tmp_path_factory.mktemp("identity"), url)) as identity,
    ):
        yield identity


@pytest.fixture
async def own_identity(keys: Keys, tmp_path: Path, identity_url: str) -> AsyncIterator[RunningIdentity]:
    """Run a service with a database for one test."""
    async with running(keys, build_settings(keys, tmp_path, identity_url)) as identity:
        yield identity
