"""An identity service that most tests share, each with users of its own; databases for a test that counts or breaks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from kit.db.migrations import upgrade
from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.integration.bank.harness import clone_database
from tests.integration.identity.harness import RunningIdentity, running, settings_of


@pytest.fixture(scope="session")
async def identity_template(postgres: Postgres) -> str:
    """A migrated database without users, to clone."""
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute("CREATE DATABASE identity_template")
    await admin.close()
    url = postgres.dsn("postgres", "identity_template")
    await asyncio.to_thread(upgrade, "subgraphs.identity.service.migrations", url)
    return "identity_template"


@pytest.fixture
async def identity_url(postgres: Postgres, identity_template: str) -> AsyncIterator[str]:
    """A database of the test's own."""
    async with clone_database(postgres, identity_template) as url:
        yield url


@pytest.fixture(scope="session")
async def identity(
    postgres: Postgres, identity_template: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIdentity]:
    """The shared service."""
    async with (
        clone_database(postgres, identity_template) as url,
        running(keys, settings_of(keys, tmp_path_factory.mktemp("identity"), url)) as identity,
    ):
        yield identity


@pytest.fixture
async def own(keys: Keys, tmp_path: Path, identity_url: str) -> AsyncIterator[RunningIdentity]:
    """A service with a database of the test's own."""
    async with running(keys, settings_of(keys, tmp_path, identity_url)) as identity:
        yield identity
