"""Fixtures: a bank that most tests share, a bank with a new ledger for one test, a small ledger, and callers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.auth.principal import Role
from tests.conftest import Keys
from tests.databases import CleanDatabases
from tests.integration.bank.harness import Caller, RunningBank, run_bank, run_bank_without_relay
from tests.integration.bank.small_ledger import SmallLedger, create_small_ledger


@pytest.fixture(scope="session")
async def bank(
    ledgers: CleanDatabases, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBank]:
    """Shared bank without a relay: outbox rows stay in the outbox. Each test opens new accounts."""
    async with (
        ledgers.one() as url,
        run_bank_without_relay(keys, tmp_path_factory.mktemp("bank"), url) as bank,
    ):
        yield bank


@pytest.fixture
async def own_bank(ledger_url: str, keys: Keys, tmp_path: Path) -> AsyncIterator[RunningBank]:
    """Bank with a new, empty ledger and no broker."""
    async with run_bank(keys, tmp_path, ledger_url) as bank:
        yield bank


@pytest.fixture(scope="session")
async def small_ledger(ledgers: CleanDatabases) -> AsyncIterator[SmallLedger]:
    """Small ledger for integrity checks, shared by tests. Each test calls `corrupt`, which restores the rows first."""
    async with ledgers.one() as url, create_small_ledger(url) as ledger:
        yield ledger


@pytest.fixture
def alice(bank: RunningBank) -> Caller:
    return bank.user("alice")


@pytest.fixture
def card(bank: RunningBank) -> Caller:
    return bank.service("card")


@pytest.fixture
def analytics(bank: RunningBank) -> Caller:
    return bank.service("analytics")


@pytest.fixture
def operator(bank: RunningBank) -> Caller:
    return bank.user("operator", Role.OPERATOR)


@pytest.fixture
def admin(bank: RunningBank) -> Caller:
    return bank.user("admin", Role.ADMIN)
