"""Fixtures: an identity service that tests share, and one with its own database for tests that count or damage rows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.databases import CleanDatabases
from tests.integration.identity.harness import RunningIdentity, build_settings, running


@pytest.fixture(scope="session")
async def identity_databases(postgres: Postgres) -> AsyncIterator[CleanDatabases]:
    async with CleanDatabases.create(postgres, "subgraphs.identity.service.migrations") as databases:
        yield databases


@pytest.fixture
async def identity_url(identity_databases: CleanDatabases) -> AsyncIterator[str]:
    """URL of an empty, migrated database for one test."""
    async with identity_databases.one() as url:
        yield url


@pytest.fixture(scope="session")
async def identity(
    identity_databases: CleanDatabases, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIdentity]:
    """Run the shared service; each test registers its own users."""
    async with (
        identity_databases.one() as url,
        running(keys, build_settings(keys, tmp_path_factory.mktemp("identity"), url)) as identity,
    ):
        yield identity


@pytest.fixture
async def own_identity(keys: Keys, tmp_path: Path, identity_url: str) -> AsyncIterator[RunningIdentity]:
    """Run a service with a database for one test."""
    async with running(keys, build_settings(keys, tmp_path, identity_url)) as identity:
        yield identity
