"""Accounts are opened once, closed when empty, listed to their owner."""

import asyncio
from uuid import uuid4

import pytest

from subgraphs.bank.client import Account
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants, clearing_account, rub
from wallet.errors import (
    AccountClosed,
    AccountNotEmpty,
    AccountNotFound,
    IdempotencyConflict,
    InvalidInput,
    PermissionDenied,
    WalletError,
)
from wallet.money import Money


async def listed(bank: RunningBank, caller: Caller, owner: str = "", page_size: int = 1_000) -> list[Account]:
    """All of them, page by page."""
    found: list[Account] = []
    while True:
        after = found[-1].id if found else None
        page = await caller(bank.client.list_accounts(owner, limit=page_size, after=after))
        found += page.accounts
        if not page.has_more:
            return found


class TestOpen:
    async def test_it_is_empty_and_the_callers(self, bank: RunningBank, alice: Caller) -> None:
        opened = await alice(bank.client.open_account("JPY", str(uuid4())))
        assert (opened.owner_id, opened.status, opened.version) == ("alice", "OPEN", 0)
        assert opened.balance == Money.parse("0", "JPY")
        assert await alice(bank.client.get_account(opened.id)) == opened

    async def test_roubles_unless_said_otherwise(self, bank: RunningBank, alice: Caller) -> None:
        assert (await alice(bank.client.open_account("", str(uuid4())))).balance == rub("0")

    async def test_the_same_key_opens_the_same_account_whoever_is_first(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        opened = await asyncio.gather(*(alice(bank.client.open_account("RUB", key)) for _ in range(10)))
        assert len(set(opened)) == 1

    async def test_the_same_key_answers_with_what_became_of_it(self, bank: RunningBank, alice: Caller) -> None:
        key, source = str(uuid4()), await bank.open("alice")
        opened = await alice(bank.client.open_account("RUB", key))
        await alice(bank.client.transfer(source, opened.id, rub("1"), key))
        again = await alice(bank.client.open_account("RUB", key))
        assert (again.id, again.balance) == (opened.id, rub("1"))

    async def test_the_same_key_for_another_currency_is_a_conflict(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        await alice(bank.client.open_account("RUB", key))
        with pytest.raises(IdempotencyConflict):
            await alice(bank.client.open_account("USD", key))

    async def test_keys_are_each_callers_own(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        mine = await alice(bank.client.open_account("RUB", key))
        bobs = await bank.user("bob")(bank.client.open_account("RUB", key))
        assert mine.id != bobs.id

    async def test_an_admin_opens_for_the_owner_they_name(self, bank: RunningBank, admin: Caller) -> None:
        opened = await admin(bank.client.open_account("RUB", str(uuid4()), owner_id="carol"))
        assert await bank.user("carol")(bank.client.get_account(opened.id)) == opened
        assert (await admin(bank.client.open_account("RUB", str(uuid4())))).owner_id == "admin"
        with pytest.raises(InvalidInput):
            await admin(bank.client.open_account("RUB", str(uuid4()), owner_id="x" * 256))

    async def test_a_customer_opens_for_nobody_else(self, bank: RunningBank, alice: Caller) -> None:
        assert (await alice(bank.client.open_account("RUB", str(uuid4()), owner_id="alice"))).owner_id == "alice"
        with pytest.raises(PermissionDenied):
            await alice(bank.client.open_account("RUB", str(uuid4()), owner_id="bob"))

    @pytest.mark.parametrize(("currency", "key"), [("XXX", "k"), ("rub", "k"), ("RUB", ""), ("RUB", "k" * 256)])
    async def test_what_it_cannot_be_opened_with(
        self, bank: RunningBank, alice: Caller, currency: str, key: str
    ) -> None:
        with pytest.raises(InvalidInput):
            await alice(bank.client.open_account(currency, key))


class TestClose:
    async def test_an_empty_one_is_closed_for_good(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "0"), await bank.open("alice")
        closed = await alice(bank.client.close_account(account))
        assert (closed.id, closed.status) == (account, "CLOSED")
        assert await alice(bank.client.close_account(account)) == closed
        for sender, recipient in ((account, other), (other, account)):
            with pytest.raises(AccountClosed):
                await alice(bank.client.transfer(sender, recipient, rub("1"), f"from {sender}"))

    async def test_one_with_money_stays_as_it_is(self, bank: RunningBank, alice: Caller) -> None:
        account = await bank.open("alice", "0.01")
        with pytest.raises(AccountNotEmpty):
            await alice(bank.client.close_account(account))
        assert (await alice(bank.client.get_account(account))).status == "OPEN"

    async def test_one_that_was_emptied_can_be_closed(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "5"), await bank.open("alice")
        await alice(bank.client.transfer(account, other, rub("5"), f"empty {account}"))
        closed = await alice(bank.client.close_account(account))
        assert (closed.status, closed.version) == ("CLOSED", 1)

    async def test_another_users_and_the_ledgers_own_are_not_there(
        self, bank: RunningBank, alice: Caller, admin: Caller
    ) -> None:
        for caller, account in (
            (alice, await bank.open("bob", "0")),
            (alice, uuid4()),
            (admin, clearing_account("USD")),
        ):
            with pytest.raises(AccountNotFound):
                await caller(bank.client.close_account(account))

    async def test_money_on_its_way_and_a_closing_do_not_miss_each_other(self, own_bank: RunningBank) -> None:
        alice = own_bank.user("alice")
        for n in range(20):
            source, account = await own_bank.open("alice"), await own_bank.open("alice", "0")
            paid, closed = await asyncio.gather(
                alice(own_bank.client.transfer(source, account, rub("1"), str(n))),
                alice(own_bank.client.close_account(account)),
                return_exceptions=True,
            )
            row = await own_bank.row(account)
            if isinstance(closed, WalletError):
                assert (row["status"], row["balance"]) == ("OPEN", 1)
            else:
                assert isinstance(paid, AccountClosed)
                assert (row["status"], row["balance"]) == ("CLOSED", 0)
        await assert_ledger_invariants(own_bank.sql)


class TestList:
    async def test_an_owner_sees_all_of_their_own_page_by_page(self, own_bank: RunningBank) -> None:
        mine = {await own_bank.open("alice", "0", status=status) for status in ("OPEN", "CLOSED", "OPEN", "OPEN")}
        await own_bank.open("bob")
        for page_size in (1, 2, 4, 1000):
            accounts = await listed(own_bank, own_bank.user("alice"), page_size=page_size)
            assert [account.id for account in accounts] == sorted(mine)

    async def test_a_customer_sees_nobody_elses(self, bank: RunningBank, alice: Caller) -> None:
        with pytest.raises(PermissionDenied):
            await listed(bank, alice, "bob")
        assert await listed(bank, bank.user("nobody yet")) == []

    async def test_an_operator_and_an_admin_name_the_owner(
        self, bank: RunningBank, operator: Caller, admin: Caller
    ) -> None:
        account = await bank.open("dave")
        for caller in (operator, admin):
            assert [each.id for each in await listed(bank, caller, "dave")] == [account]
        assert {each.owner_id for each in await listed(bank, operator)} <= {"operator"}
