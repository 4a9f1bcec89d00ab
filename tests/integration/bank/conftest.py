"""A bank that most tests share, each with accounts of its own; a bank for a test that counts or breaks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.auth.principal import Role
from stack.engines.postgres import Postgres
from tests.conftest import Keys
from tests.integration.bank.harness import Caller, RunningBank, clone_database, run_bank
from tests.integration.bank.small_ledger import SmallLedger, create_small_ledger


@pytest.fixture(scope="session")
async def bank(
    postgres: Postgres, ledger_template: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBank]:
    """The shared bank. It has no broker, so what is to be published stays where it can be looked at."""
    async with (
        clone_database(postgres, ledger_template) as url,
        run_bank(keys, tmp_path_factory.mktemp("bank"), url) as bank,
    ):
        yield bank


@pytest.fixture
async def own_bank(ledger_url: str, keys: Keys, tmp_path: Path) -> AsyncIterator[RunningBank]:
    """A bank with an empty ledger of the test's own, and no broker."""
    async with run_bank(keys, tmp_path, ledger_url) as bank:
        yield bank


@pytest.fixture(scope="session")
async def small_ledger(postgres: Postgres, ledger_template: str) -> AsyncIterator[SmallLedger]:
    """A small ledger that several tests prove. Each of them begins with `corrupt`, which first makes it as it was."""
    async with clone_database(postgres, ledger_template) as url, create_small_ledger(url) as ledger:
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
