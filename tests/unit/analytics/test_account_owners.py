import asyncio
from collections.abc import Sequence
from typing import cast
from uuid import UUID, uuid4

import pytest

from kit.auth.principal import Principal, Role
from subgraphs.analytics.service.application import account_owners
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.analytics.service.domain.model import AccountPosition
from subgraphs.bank.client import Balance, BankClient
from wallet.errors import AccountNotFound, DeadlineExceeded, RateLimited, ResourceExhausted, Unavailable, WalletError
from wallet.money import Money

ALICE = Principal("https://users.test", "alice", is_service=False, expires_at=0)
BOB = Principal("https://users.test", "bob", is_service=False, expires_at=0)
OPERATOR = Principal("https://users.test", "operator", False, 0, frozenset({Role.OPERATOR}))
ACCOUNT, UNKNOWN_ACCOUNT = uuid4(), uuid4()
EPOCH = str(uuid4())


class FakeBank:
    def __init__(self) -> None:
        self.calls = 0
        self.problem: Exception | None = None

    async def batch_get_balances(self, ids: Sequence[UUID]) -> dict[UUID, Balance | WalletError]:
        self.calls += 1
        if self.problem is not None:
            raise self.problem
        balance = Balance(Money.parse("1.00"), 7, EPOCH)
        return {each: AccountNotFound(str(each)) if each == UNKNOWN_ACCOUNT else balance for each in ids}


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


async def test_position_is_read_from_the_bank_each_time(owners: AccountOwners, bank: FakeBank) -> None:
    assert [await owners.read_position(ALICE, ACCOUNT) for _ in range(2)] == [AccountPosition(7, EPOCH)] * 2
    assert bank.calls == 2


@pytest.mark.parametrize(
    "problem", [Unavailable("the bank"), DeadlineExceeded("the bank"), ResourceExhausted(), RateLimited("calls", "1")]
)
async def test_cached_permission_is_used_for_a_minute_while_the_bank_gives_no_decision(
    owners: AccountOwners, bank: FakeBank, clock: FakeClock, problem: Exception
) -> None:
    await owners.read_position(ALICE, ACCOUNT)
    bank.problem = problem
    clock.now += 59
    assert await owners.read_position(ALICE, ACCOUNT) is None
    clock.now += 2
    with pytest.raises(type(problem)):
        await owners.read_position(ALICE, ACCOUNT)


async def test_caller_with_cached_permission_does_not_wait_for_a_hanging_bank(
    owners: AccountOwners, bank: FakeBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owners.read_position(ALICE, ACCOUNT)
    monkeypatch.setattr(account_owners, "_VERSION_TIMEOUT_SECONDS", 0)
    monkeypatch.setattr(bank, "batch_get_balances", lambda _: asyncio.Event().wait())
    assert await owners.read_position(ALICE, ACCOUNT) is None


async def test_cached_permission_is_not_used_for_another_caller(owners: AccountOwners, bank: FakeBank) -> None:
    await owners.read_position(ALICE, ACCOUNT)
    bank.problem = Unavailable("the bank")
    with pytest.raises(Unavailable):
        await owners.read_position(BOB, ACCOUNT)


async def test_refusal_removes_the_cached_permission(owners: AccountOwners, bank: FakeBank) -> None:
    await owners.read_position(ALICE, ACCOUNT)
    for problem, error in ((AccountNotFound(str(ACCOUNT)), AccountNotFound), (Unavailable("the bank"), Unavailable)):
        bank.problem = problem
        with pytest.raises(error):
            await owners.read_position(ALICE, ACCOUNT)


async def test_operator_may_not_read_an_account_that_does_not_exist(owners: AccountOwners) -> None:
    await owners.read_position(OPERATOR, ACCOUNT)
    with pytest.raises(AccountNotFound):
        await owners.read_position(OPERATOR, UNKNOWN_ACCOUNT)


async def test_cache_has_a_maximum_size(bank: FakeBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_owners, "_CACHE_SIZE", 2)
    owners = AccountOwners(cast("BankClient", bank))
    accounts = [uuid4() for _ in range(3)]
    for account_id in accounts:
        await owners.read_position(ALICE, account_id)
    bank.problem = Unavailable("the bank")
    assert await owners.read_position(ALICE, accounts[2]) is None
    with pytest.raises(Unavailable):
        await owners.read_position(ALICE, accounts[0])


async def test_positions_of_several_accounts_are_one_call(owners: AccountOwners, bank: FakeBank) -> None:
    positions = await owners.read_positions(ALICE, [ACCOUNT, UNKNOWN_ACCOUNT, ACCOUNT])
    assert positions == {ACCOUNT: AccountPosition(7, EPOCH), UNKNOWN_ACCOUNT: AccountNotFound(str(UNKNOWN_ACCOUNT))}
    assert bank.calls == 1


async def test_cached_permissions_of_some_accounts_are_used_while_the_bank_is_unavailable(
    owners: AccountOwners, bank: FakeBank
) -> None:
    other = uuid4()
    await owners.read_position(ALICE, ACCOUNT)
    bank.problem = Unavailable("the bank")
    assert await owners.read_positions(ALICE, [ACCOUNT, other]) == {ACCOUNT: None, other: bank.problem}
