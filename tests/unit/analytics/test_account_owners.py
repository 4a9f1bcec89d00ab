from typing import cast
from uuid import UUID, uuid4

import pytest

from kit.auth.principal import Principal, Role
from subgraphs.analytics.service.application import account_owners
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.bank.client import BankClient
from wallet.errors import AccountNotFound

ALICE = Principal("https://users.test", "alice", is_service=False, expires_at=0)
BOB = Principal("https://users.test", "bob", is_service=False, expires_at=0)
OPERATOR = Principal("https://users.test", "operator", False, 0, frozenset({Role.OPERATOR}))
ACCOUNT, UNKNOWN_ACCOUNT = uuid4(), uuid4()


class FakeBank:
    def __init__(self) -> None:
        self.calls = 0

    async def get_account(self, account_id: UUID) -> None:
        self.calls += 1
        if account_id == UNKNOWN_ACCOUNT:
            raise AccountNotFound(str(account_id))


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bank() -> FakeBank:
    return FakeBank()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def owners(bank: FakeBank, clock: FakeClock) -> AccountOwners:
    return AccountOwners(cast("BankClient", bank), clock)


async def test_bank_is_called_once_a_minute_per_account(
    owners: AccountOwners, bank: FakeBank, clock: FakeClock
) -> None:
    await owners.check(ALICE, ACCOUNT)
    clock.now += 59
    await owners.check(ALICE, ACCOUNT)
    assert bank.calls == 1
    clock.now += 2
    await owners.check(ALICE, ACCOUNT)
    assert bank.calls == 2


async def test_cached_answer_is_not_used_for_another_caller(owners: AccountOwners, bank: FakeBank) -> None:
    await owners.check(ALICE, ACCOUNT)
    await owners.check(BOB, ACCOUNT)
    assert bank.calls == 2


async def test_refusal_is_not_cached(owners: AccountOwners, bank: FakeBank) -> None:
    for _ in range(2):
        with pytest.raises(AccountNotFound):
            await owners.check(ALICE, UNKNOWN_ACCOUNT)
    assert bank.calls == 2


async def test_operator_may_not_read_an_account_that_does_not_exist(owners: AccountOwners) -> None:
    await owners.check(OPERATOR, ACCOUNT)
    with pytest.raises(AccountNotFound):
        await owners.check(OPERATOR, UNKNOWN_ACCOUNT)


async def test_cache_has_a_maximum_size(bank: FakeBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_owners, "_CACHE_SIZE", 2)
    owners = AccountOwners(cast("BankClient", bank))
    accounts = [uuid4() for _ in range(3)]
    for account_id in accounts:
        await owners.check(ALICE, account_id)
    await owners.check(ALICE, accounts[2])
    assert bank.calls == 3
    await owners.check(ALICE, accounts[0])
    assert bank.calls == 4
