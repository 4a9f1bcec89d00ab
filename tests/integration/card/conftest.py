"""Fixtures: a bank, a card service and an environment that tests share; databases and environments for one test."""

from collections.abc import AsyncIterator

import pytest

from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.databases import CleanDatabases
from tests.integration.bank.harness import RunningBank, run_bank_without_relay
from tests.integration.card.card_process import RunningCard, card_settings, run_card
from tests.integration.card.environment import CardEnvironment, card_environment
from tests.integration.sandbox import running as sandbox


@pytest.fixture(scope="session")
async def bank(
    ledgers: CleanDatabases, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBank]:
    async with (
        ledgers.one() as url,
        run_bank_without_relay(keys, tmp_path_factory.mktemp("bank"), url) as bank,
    ):
        yield bank


@pytest.fixture(scope="session")
async def card_databases(postgres: Postgres) -> AsyncIterator[CleanDatabases]:
    async with CleanDatabases.create(postgres, "subgraphs.card.service.migrations") as databases:
        yield databases


@pytest.fixture
async def card_url(card_databases: CleanDatabases) -> AsyncIterator[str]:
    """URL of an empty, migrated database for one test."""
    async with card_databases.one() as url:
        yield url


@pytest.fixture
async def env(bank: RunningBank, card_url: str) -> AsyncIterator[CardEnvironment]:
    """Environment with its own database for one test."""
    async with card_environment(bank, card_url) as env:
        yield env


@pytest.fixture(scope="session")
async def card(
    bank: RunningBank, card_databases: CleanDatabases, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningCard]:
    """Card service that most tests share, with a sandbox that sends webhooks for all changes."""
    folder = tmp_path_factory.mktemp("card")
    async with card_databases.one() as url:
        settings = card_settings(keys, folder, url, bank, "set below")
        webhook_url = f"http://{settings['card_webhook_listen']}/webhooks/acquirer"
        async with sandbox.running(
            folder, sandbox_webhook_url=webhook_url, sandbox_timeout_seconds=60, sandbox_late_seconds=0.5
        ) as merchant:
            settings["acquirer_url"] = str(merchant.http.base_url)
            async with run_card(bank, merchant, settings) as card:
                yield card


@pytest.fixture(scope="session")
async def shared_env(bank: RunningBank, card_databases: CleanDatabases) -> AsyncIterator[CardEnvironment]:
    """Environment that tests share. Each test calls `with_new_acquirer` for its own acquirer and caller."""
    async with card_databases.one() as url, card_environment(bank, url) as env:
        yield env
