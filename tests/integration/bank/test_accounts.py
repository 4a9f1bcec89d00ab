"""Opening, closing and listing of accounts."""

import asyncio
from uuid import UUID, uuid4

import pytest

from subgraphs.bank.client import Account
from tests.idempotency_keys import earlier_release
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


async def list_all(bank: RunningBank, caller: Caller, owner: str = "", page_size: int = 1_000) -> list[Account]:
    """List all accounts of an owner, page by page."""
    accounts: list[Account] = []
    while True:
        after = accounts[-1].id if accounts else None
        page = await caller(bank.client.list_accounts(owner, limit=page_size, after=after))
        accounts += page.accounts
        if not page.has_more:
            return accounts


class TestOpen:
    async def test_opened_account_is_empty_and_belongs_to_the_caller(self, bank: RunningBank, alice: Caller) -> None:
        opened = (await alice(bank.client.open_account("JPY", str(uuid4())))).account
        assert (opened.owner_id, opened.status, opened.version) == ("alice", "OPEN", 0)
        assert opened.balance == Money.parse("0", "JPY")
        assert await alice(bank.client.get_account(opened.id)) == opened

    async def test_default_currency_of_an_account_is_the_rouble(self, bank: RunningBank, alice: Caller) -> None:
        assert (await alice(bank.client.open_account("", str(uuid4())))).account.balance == rub("0")

    async def test_concurrent_requests_with_one_key_open_one_account(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        opened = await asyncio.gather(*(alice(bank.client.open_account("RUB", key)) for _ in range(10)))
        assert len({each.account for each in opened}) == 1
        assert sorted(each.is_replay for each in opened) == [False] + [True] * 9

    async def test_replayed_key_returns_the_current_state_of_the_account(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        key, source = str(uuid4()), await bank.open("alice")
        opened = await alice(bank.client.open_account("RUB", key))
        await alice(bank.client.transfer(source, opened.account.id, rub("1"), key))
        again = await alice(bank.client.open_account("RUB", key))
        assert (again.account.id, again.account.balance) == (opened.account.id, rub("1"))
        assert (opened.is_replay, again.is_replay) == (False, True)

    async def test_account_of_an_earlier_release_is_found_by_the_quoted_key(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        key = str(uuid4())
        with earlier_release():
            earlier = await alice(bank.client.open_account("RUB", f'"{key}"'))
        again = await alice(bank.client.open_account("RUB", key, raw_idempotency_key=f'"{key}"'))
        assert (again.account, again.is_replay) == (earlier.account, True)

    async def test_quoted_key_finds_its_own_account_before_that_of_the_bare_key(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        key = str(uuid4())
        with earlier_release():
            earlier = await alice(bank.client.open_account("USD", f'"{key}"'))
        bare = await alice(bank.client.open_account("RUB", key))
        again = await alice(bank.client.open_account("USD", key, raw_idempotency_key=f'"{key}"'))
        assert again.account == earlier.account
        assert (await alice(bank.client.open_account("RUB", key))).account == bare.account
        with pytest.raises(IdempotencyConflict):
            await alice(bank.client.open_account("RUB", key, raw_idempotency_key=f'"{key}"'))

    async def test_account_of_a_text_with_quotation_marks_is_not_found_by_the_quoted_key(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        key = str(uuid4())
        text = await alice(bank.client.open_account("RUB", f'"{key}"', raw_idempotency_key=rf'"\"{key}\""'))
        quoted = await alice(bank.client.open_account("RUB", key, raw_idempotency_key=f'"{key}"'))
        bare = await alice(bank.client.open_account("RUB", key))
        again = await alice(bank.client.open_account("RUB", f'"{key}"'))
        assert [each.is_replay for each in (text, quoted, bare, again)] == [False, False, True, True]
        assert (bare.account, again.account) == (quoted.account, text.account)

    async def test_account_that_an_earlier_release_opened_with_a_grpc_key_is_found(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        key = f'"{uuid4()}"'
        with earlier_release():
            earlier = await alice(bank.client.open_account("RUB", key))
        again = await alice(bank.client.open_account("RUB", key))
        assert (again.account, again.is_replay) == (earlier.account, True)

    async def test_new_quoted_key_opens_the_account_of_the_bare_key(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        quoted = await alice(bank.client.open_account("RUB", key, raw_idempotency_key=f'"{key}"'))
        bare = await alice(bank.client.open_account("RUB", key))
        assert (bare.account, quoted.is_replay, bare.is_replay) == (quoted.account, False, True)

    async def test_key_with_another_currency_is_a_conflict(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        await alice(bank.client.open_account("RUB", key))
        with pytest.raises(IdempotencyConflict):
            await alice(bank.client.open_account("USD", key))

    async def test_two_callers_with_one_key_open_two_accounts(self, bank: RunningBank, alice: Caller) -> None:
        key = str(uuid4())
        mine = await alice(bank.client.open_account("RUB", key))
        bobs = await bank.user("bob")(bank.client.open_account("RUB", key))
        assert mine.account.id != bobs.account.id

    async def test_admin_opens_an_account_for_a_named_owner(self, bank: RunningBank, admin: Caller) -> None:
        opened = (await admin(bank.client.open_account("RUB", str(uuid4()), owner_id="carol"))).account
        assert await bank.user("carol")(bank.client.get_account(opened.id)) == opened
        assert (await admin(bank.client.open_account("RUB", str(uuid4())))).account.owner_id == "admin"
        with pytest.raises(InvalidInput):
            await admin(bank.client.open_account("RUB", str(uuid4()), owner_id="x" * 256))

    async def test_customer_opens_accounts_only_for_themselves(self, bank: RunningBank, alice: Caller) -> None:
        opened = await alice(bank.client.open_account("RUB", str(uuid4()), owner_id="alice"))
        assert opened.account.owner_id == "alice"
        with pytest.raises(PermissionDenied):
            await alice(bank.client.open_account("RUB", str(uuid4()), owner_id="bob"))

    @pytest.mark.parametrize(("currency", "key"), [("XXX", "k"), ("rub", "k"), ("RUB", ""), ("RUB", "k" * 256)])
    async def test_open_account_refuses_an_invalid_currency_or_key(
        self, bank: RunningBank, alice: Caller, currency: str, key: str
    ) -> None:
        with pytest.raises(InvalidInput):
            await alice(bank.client.open_account(currency, key))


class TestClose:
    async def test_empty_account_is_closed_permanently(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "0"), await bank.open("alice")
        closed = await alice(bank.client.close_account(account))
        assert (closed.id, closed.status) == (account, "CLOSED")
        assert await alice(bank.client.close_account(account)) == closed
        for sender, recipient in ((account, other), (other, account)):
            with pytest.raises(AccountClosed):
                await alice(bank.client.transfer(sender, recipient, rub("1"), f"from {sender}"))

    async def test_account_with_money_is_not_closed(self, bank: RunningBank, alice: Caller) -> None:
        account = await bank.open("alice", "0.01")
        with pytest.raises(AccountNotEmpty):
            await alice(bank.client.close_account(account))
        assert (await alice(bank.client.get_account(account))).status == "OPEN"

    async def test_emptied_account_is_closed(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "5"), await bank.open("alice")
        await alice(bank.client.transfer(account, other, rub("5"), f"empty {account}"))
        closed = await alice(bank.client.close_account(account))
        assert (closed.status, closed.version) == ("CLOSED", 1)

    async def test_accounts_of_others_and_clearing_accounts_are_not_closed(
        self, bank: RunningBank, alice: Caller, admin: Caller
    ) -> None:
        for caller, account in (
            (alice, await bank.open("bob", "0")),
            (alice, uuid4()),
            (admin, clearing_account("USD")),
        ):
            with pytest.raises(AccountNotFound):
                await caller(bank.client.close_account(account))

    async def test_concurrent_transfer_and_closing_leave_no_money_on_a_closed_account(
        self, own_bank: RunningBank
    ) -> None:
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
    async def test_owner_lists_all_their_accounts_page_by_page(self, own_bank: RunningBank) -> None:
        mine = {await own_bank.open("alice", "0", status=status) for status in ("OPEN", "CLOSED", "OPEN", "OPEN")}
        await own_bank.open("bob")
        for page_size in (1, 2, 4, 1000):
            accounts = await list_all(own_bank, own_bank.user("alice"), page_size=page_size)
            assert [account.id for account in accounts] == sorted(mine)

    async def test_accounts_are_listed_backward(self, bank: RunningBank, operator: Caller) -> None:
        owner = str(uuid4())
        ids = sorted([await bank.open(owner) for _ in range(5)])
        listed: list[UUID] = []
        before, has_more = UUID(int=2**128 - 1), True
        while has_more:
            page = await operator(bank.client.list_accounts(owner, limit=2, before=before))
            listed = [each.id for each in page.accounts] + listed
            before, has_more = listed[0], page.has_more
        assert listed == ids
        page = await operator(bank.client.list_accounts(owner, limit=2, before=ids[0]))
        assert (page.accounts, page.has_more) == ((), False)
        with pytest.raises(InvalidInput):
            await operator(bank.client.list_accounts(owner, after=ids[0], before=ids[4]))

    async def test_customer_cannot_list_accounts_of_others(self, bank: RunningBank, alice: Caller) -> None:
        with pytest.raises(PermissionDenied):
            await list_all(bank, alice, "bob")
        assert await list_all(bank, bank.user("nobody yet")) == []

    async def test_operator_and_admin_list_accounts_of_a_named_owner(
        self, bank: RunningBank, operator: Caller, admin: Caller
    ) -> None:
        account = await bank.open("dave")
        for caller in (operator, admin):
            assert [each.id for each in await list_all(bank, caller, "dave")] == [account]
        assert {each.owner_id for each in await list_all(bank, operator)} <= {"operator"}
