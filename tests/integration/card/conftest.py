"""A bank that all tests share, and databases of top-ups for single tests."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from kit.db.migrations import upgrade
from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, clone_database, run_bank
from tests.integration.card.card_process import RunningCard, card_settings, run_card
from tests.integration.card.environment import CardEnvironment, card_environment
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
    """Name of a migrated database without top-ups, for clones."""
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute("CREATE DATABASE card_template")
    await admin.close()
    await asyncio.to_thread(upgrade, "subgraphs.card.service.migrations", postgres.dsn("postgres", "card_template"))
    return "card_template"


@pytest.fixture
async def card_url(postgres: Postgres, card_template: str) -> AsyncIterator[str]:
    """URL of a database that one test uses."""
    async with clone_database(postgres, card_template) as url:
        yield url


@pytest.fixture
async def env(bank: RunningBank, card_url: str) -> AsyncIterator[CardEnvironment]:
    """Environment of one test."""
    async with card_environment(bank, card_url) as env:
        yield env


@pytest.fixture(scope="session")
async def card(
    bank: RunningBank, postgres: Postgres, card_template: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningCard]:
    """Card service that most tests share, with a sandbox that sends webhooks for all changes."""
    folder = tmp_path_factory.mktemp("card")
    async with clone_database(postgres, card_template) as url:
        settings = card_settings(keys, folder, url, bank, "set below")
        webhook_url = f"http://{settings['card_webhook_listen']}/webhooks/acquirer"
        async with sandbox.running(
            folder, sandbox_webhook_url=webhook_url, sandbox_timeout_seconds=60, sandbox_late_seconds=0.5
        ) as merchant:
            settings["acquirer_url"] = str(merchant.http.base_url)
            async with run_card(bank, merchant, settings) as card:
                yield card


@pytest.fixture(scope="session")
async def shared_env(bank: RunningBank, postgres: Postgres, card_template: str) -> AsyncIterator[CardEnvironment]:
    """Environment of many tests. Each takes its own acquirer and caller (`with_new_acquirer`)."""
    async with clone_database(postgres, card_template) as url, card_environment(bank, url) as env:
        yield env
