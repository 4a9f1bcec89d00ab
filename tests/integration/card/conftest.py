"""A bank that all tests share, and top-ups' databases of the tests' own."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from kit.db.migrations import upgrade
from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, clone_database, run_bank
from tests.integration.card.card_process import RunningCard, settings_of
from tests.integration.card.card_process import running as running_card
from tests.integration.card.environment import World, world
from tests.integration.sandbox import running as sandbox


@pytest.fixture(scope="session")
async def bank(
    postgres: Postgres, ledger_template: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBank]:
    async with (
        clone_database(postgres, ledger_template) as url,
        run_bank(keys, tmp_path_factory.mktemp("bank"), url) as bank,
    ):
        yield bank


@pytest.fixture(scope="session")
async def card_template(postgres: Postgres) -> str:
    """A migrated database without top-ups, to clone."""
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute("CREATE DATABASE card_template")
    await admin.close()
    await asyncio.to_thread(upgrade, "subgraphs.card.service.migrations", postgres.dsn("postgres", "card_template"))
    return "card_template"


@pytest.fixture
async def card_url(postgres: Postgres, card_template: str) -> AsyncIterator[str]:
    """A database of the test's own."""
    async with clone_database(postgres, card_template) as url:
        yield url


@pytest.fixture
async def here(bank: RunningBank, card_url: str) -> AsyncIterator[World]:
    """The world of one test."""
    async with world(bank, card_url) as made:
        yield made


@pytest.fixture(scope="session")
async def card(
    bank: RunningBank, postgres: Postgres, card_template: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningCard]:
    """The card service that most tests share, and a sandbox that tells it of every change."""
    folder = tmp_path_factory.mktemp("card")
    async with clone_database(postgres, card_template) as url:
        settings = settings_of(keys, folder, url, bank, "to be known")
        told = f"http://{settings['card_webhook_listen']}/webhooks/acquirer"
        async with sandbox.running(
            folder, sandbox_webhook_url=told, sandbox_timeout_seconds=60, sandbox_late_seconds=0.5
        ) as merchant:
            settings["acquirer_url"] = str(merchant.http.base_url)
            async with running_card(bank, merchant, settings) as card:
                yield card


@pytest.fixture(scope="session")
async def shared(bank: RunningBank, postgres: Postgres, card_template: str) -> AsyncIterator[World]:
    """The world of many tests: each takes its own acquirer and caller (`anew`)."""
    async with clone_database(postgres, card_template) as url, world(bank, url) as made:
        yield made
