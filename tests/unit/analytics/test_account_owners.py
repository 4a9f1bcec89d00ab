from typing import cast
from uuid import UUID, uuid4

import pytest

from kit.auth.principal import Principal, Role
from subgraphs.analytics.service.application import access
from subgraphs.analytics.service.application.access import Access
from subgraphs.bank.client import BankClient
from wallet.errors import AccountNotFound

ALICE = Principal("https://users.test", "alice", is_service=False, expires_at=0)
BOB = Principal("https://users.test", "bob", is_service=False, expires_at=0)
OPERATOR = Principal("https://users.test", "operator", False, 0, frozenset({Role.OPERATOR}))
ACCOUNT, STRANGE = uuid4(), uuid4()


class FakeBank:
    def __init__(self) -> None:
        self.asked = 0

    async def account(self, account_id: UUID) -> None:
        self.asked += 1
        if account_id == STRANGE:
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
def guard(bank: FakeBank, clock: FakeClock) -> Access:
    return Access(cast("BankClient", bank), clock)


class TestAccess:
    async def test_the_bank_is_asked_once_a_minute(self, guard: Access, bank: FakeBank, clock: FakeClock) -> None:
        await guard.check(ALICE, ACCOUNT)
        clock.now += 59
        await guard.check(ALICE, ACCOUNT)
        assert bank.asked == 1
        clock.now += 2
        await guard.check(ALICE, ACCOUNT)
        assert bank.asked == 2

    async def test_one_owners_yes_is_no_others(self, guard: Access, bank: FakeBank) -> None:
        await guard.check(ALICE, ACCOUNT)
        await guard.check(BOB, ACCOUNT)
        assert bank.asked == 2

    async def test_a_no_is_asked_for_again(self, guard: Access, bank: FakeBank) -> None:
        for _ in range(2):
            with pytest.raises(AccountNotFound):
                await guard.check(ALICE, STRANGE)
        assert bank.asked == 2

    async def test_an_operator_reads_no_account_that_is_not_there(self, guard: Access, bank: FakeBank) -> None:
        await guard.check(OPERATOR, ACCOUNT)
        with pytest.raises(AccountNotFound):
            await guard.check(OPERATOR, STRANGE)

    async def test_remembers_so_many_and_no_more(
        self, guard: Access, bank: FakeBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access, "_REMEMBERED", 2)
        accounts = [uuid4() for _ in range(3)]
        for account_id in accounts:
            await guard.check(ALICE, account_id)
        await guard.check(ALICE, accounts[2])
        assert bank.asked == 3
        await guard.check(ALICE, accounts[0])
        assert bank.asked == 4
