from uuid import UUID, uuid4

import pytest

from subgraphs.bank.client import Account, AccountVersion
from tests.integration.bank.harness import Caller, RunningBank, clearing_account, rub
from wallet.errors import AccountNotFound, PermissionDenied, TransferNotFound
from wallet.money import EXPONENTS


class TestAccounts:
    async def test_owner_reads_balance_and_version(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "12.34"), await bank.open("bob")
        before = await alice(bank.client.get_balance(account))
        assert (before.amount, before.version) == (rub("12.34"), 0)
        await alice(bank.client.transfer(account, other, rub("0.34"), f"read-{account}"))
        after = await alice(bank.client.get_balance(account))
        assert (after.amount, after.version) == (rub("12"), 1)

    async def test_owner_reads_the_account(self, bank: RunningBank, alice: Caller) -> None:
        id_ = await bank.open("alice", "12.34")
        row = await bank.row(id_)
        account = await alice(bank.client.get_account(id_))
        assert account == Account(id_, "alice", rub("12.34"), 0, row["created_at"], row["updated_at"], "OPEN")

    async def test_batch_get_accounts_returns_a_result_for_each_id(self, bank: RunningBank, alice: Caller) -> None:
        mine, also_mine, bobs, nobodys = [await bank.open(owner) for owner in ("alice", "alice", "bob", None)]
        missing = uuid4()
        results = await alice(
            bank.client.batch_get_accounts([bobs, mine, missing, also_mine, mine, nobodys, clearing_account()])
        )
        assert {id_ for id_, account in results.items() if isinstance(account, Account)} == {mine, also_mine}
        for hidden in (bobs, missing, nobodys, clearing_account()):
            assert results[hidden] == AccountNotFound(str(hidden))

    async def test_account_of_another_user_looks_like_a_missing_one(self, bank: RunningBank, alice: Caller) -> None:
        bobs, missing = await bank.open("bob"), uuid4()
        for id_ in (bobs, missing):
            with pytest.raises(AccountNotFound) as balance:
                await alice(bank.client.get_balance(id_))
            with pytest.raises(AccountNotFound) as account:
                await alice(bank.client.get_account(id_))
            with pytest.raises(AccountNotFound) as transfer:
                await alice(bank.client.transfer(id_, await bank.open("alice"), rub("1"), f"steal-{id_}"))
            assert balance.value == account.value == transfer.value == AccountNotFound(str(id_))
        assert await bank.balance(bobs) == 1000

    @pytest.mark.parametrize("caller_name", ["card", "analytics", "operator", "admin"])
    async def test_services_operators_and_admins_read_every_account(
        self, bank: RunningBank, caller_name: str, request: pytest.FixtureRequest
    ) -> None:
        caller, bobs = request.getfixturevalue(caller_name), await bank.open("bob")
        assert (await caller(bank.client.get_account(bobs))).owner_id == "bob"
        assert (await caller(bank.client.get_account(clearing_account()))).owner_id == ""

    async def test_balances_of_a_batch_are_those_that_are_read_alone(self, bank: RunningBank, alice: Caller) -> None:
        mine, also_mine, bobs = await bank.open("alice", "5"), await bank.open("alice"), await bank.open("bob")
        await alice(bank.client.transfer(mine, bobs, rub("1"), "balances"))
        expected = {id_: await alice(bank.client.get_balance(id_)) for id_ in (mine, also_mine)}
        balances = await alice(bank.client.batch_get_balances([mine, bobs, also_mine]))
        assert balances == expected | {bobs: AccountNotFound(str(bobs))}
        assert await alice(bank.client.batch_get_balances([bobs])) == {bobs: AccountNotFound(str(bobs))}

    async def test_batch_get_accounts_of_no_ids_is_empty(self, bank: RunningBank, alice: Caller) -> None:
        assert await alice(bank.client.batch_get_accounts([])) == {}


class TestTransfers:
    async def test_transfer_is_readable_for_its_owners_and_privileged_callers_only(
        self, bank: RunningBank, card: Caller, operator: Caller
    ) -> None:
        sender, recipient = await bank.open("gina"), await bank.open("hugo")
        transfer = (await bank.user("gina")(bank.client.transfer(sender, recipient, rub("1"), "seen"))).transfer
        for owner in ("gina", "hugo"):
            assert await bank.user(owner)(bank.client.get_transfer(transfer.id)) == transfer
        for caller in (card, operator):
            assert await caller(bank.client.get_transfer(transfer.id)) == transfer
        with pytest.raises(TransferNotFound) as hidden:
            await bank.user("mallory")(bank.client.get_transfer(transfer.id))
        assert hidden.value == TransferNotFound(str(transfer.id))

    async def test_owner_reads_a_deposit(self, bank: RunningBank, card: Caller) -> None:
        account = await bank.open("hugo")
        transfer = (await card(bank.client.deposit(account, rub("1"), "seen deposit", {}))).transfer
        assert await bank.user("hugo")(bank.client.get_transfer(transfer.id)) == transfer

    async def test_missing_transfer_is_not_found(self, bank: RunningBank, alice: Caller) -> None:
        missing = uuid4()
        with pytest.raises(TransferNotFound, match=str(missing)):
            await alice(bank.client.get_transfer(missing))

    async def test_batch_get_transfers_returns_a_result_for_each_id(
        self, bank: RunningBank, alice: Caller, card: Caller, operator: Caller
    ) -> None:
        mine, bobs, carols = [await bank.open(owner) for owner in ("alice", "bob", "carol")]
        out = (await alice(bank.client.transfer(mine, bobs, rub("1"), f"out-{mine}"))).transfer
        back = (await bank.user("bob")(bank.client.transfer(bobs, mine, rub("2"), f"back-{mine}"))).transfer
        deposit = (await card(bank.client.deposit(mine, rub("3"), f"in-{mine}", {}))).transfer
        others = (await bank.user("bob")(bank.client.transfer(bobs, carols, rub("4"), f"others-{mine}"))).transfer
        missing = uuid4()

        results = await alice(
            bank.client.batch_get_transfers([others.id, back.id, missing, out.id, back.id, deposit.id])
        )

        assert results == {
            out.id: out,
            back.id: back,
            deposit.id: deposit,
            others.id: TransferNotFound(str(others.id)),
            missing: TransferNotFound(str(missing)),
        }
        assert await operator(bank.client.batch_get_transfers([others.id])) == {others.id: others}

    async def test_batch_get_transfers_of_no_ids_is_empty(self, bank: RunningBank, alice: Caller) -> None:
        assert await alice(bank.client.batch_get_transfers([])) == {}


class TestForServicesOnly:
    async def test_customer_may_not_read_events_and_versions(self, bank: RunningBank, alice: Caller) -> None:
        own = await bank.open("alice")
        with pytest.raises(PermissionDenied):
            await alice(bank.client.list_events(own, 0))
        with alice.calling(), pytest.raises(PermissionDenied):
            await anext(bank.client.list_account_versions())


class TestAccountVersions:
    @pytest.mark.parametrize("page_size", [7, 50, 10_000])
    async def test_account_versions_list_each_account_once(self, bank: RunningBank, page_size: int) -> None:
        with bank.service("analytics").calling():
            pages = [page async for page in bank.client.list_account_versions(page_size)]
        listed = [account.account_id for page in pages for account in page]
        assert listed == sorted(listed)
        rows = await bank.sql.fetch("SELECT id, version FROM accounts")
        assert [account for page in pages for account in page] == sorted(
            (AccountVersion(row["id"], row["version"]) for row in rows), key=lambda account: account.account_id
        )
        assert all(len(page) == page_size for page in pages[:-1])

    async def test_full_last_page_is_followed_by_an_empty_page(self, own_bank: RunningBank) -> None:
        with own_bank.service("analytics").calling():
            pages = [page async for page in own_bank.client.list_account_versions(len(EXPONENTS))]
        assert [len(page) for page in pages] == [len(EXPONENTS), 0]

    async def test_account_version_is_the_number_of_operations(self, bank: RunningBank, alice: Caller) -> None:
        busy, quiet = await bank.open("alice"), await bank.open("alice")
        for n in range(3):
            await alice(bank.client.transfer(busy, quiet, rub("1"), f"{busy}-{n}"))
        versions: dict[UUID, int] = {}
        with bank.service("analytics").calling():
            async for page in bank.client.list_account_versions():
                versions |= {account.account_id: account.version for account in page}
        assert (versions[busy], versions[quiet]) == (3, 3)


class TestEvents:
    async def test_events_have_both_postings_and_are_in_order(
        self, bank: RunningBank, alice: Caller, card: Caller
    ) -> None:
        mine, bobs = await bank.open("alice", "10.00"), await bank.open("bob", "10.00")
        deposit = await card(bank.client.deposit(mine, rub("5"), f"in-{mine}", {"topUpId": "t1"}))
        transfer = await alice(bank.client.transfer(mine, bobs, rub("7"), f"out-{mine}"))
        first, second = await bank.service("analytics")(bank.client.list_events(mine, 0))

        assert (first.transfer, first.recipient) == (deposit.transfer, deposit.posting)
        assert first.sender.account_id == clearing_account()
        assert first.descriptor == {"topUpId": "t1"}
        assert (second.transfer, second.sender, second.descriptor) == (transfer.transfer, transfer.posting, {})
        assert (second.recipient.account_id, second.recipient.version) == (bobs, 1)
        assert second.recipient.balance_after == rub("17")

    async def test_events_are_the_same_for_sender_and_recipient(self, bank: RunningBank, alice: Caller) -> None:
        mine, bobs = await bank.open("alice"), await bank.open("bob")
        await alice(bank.client.transfer(mine, bobs, rub("7"), f"sides-{mine}"))
        analytics = bank.service("analytics")
        assert await analytics(bank.client.list_events(mine, 0)) == await analytics(bank.client.list_events(bobs, 0))

    async def test_events_continue_after_a_version(self, bank: RunningBank, alice: Caller) -> None:
        mine, bobs = await bank.open("alice"), await bank.open("bob")
        for n in range(7):
            await alice(bank.client.transfer(mine, bobs, rub("1"), f"pages-{mine}-{n}"))
        pages, after = [], 0
        while page := await bank.service("analytics")(bank.client.list_events(mine, after, page_size=3)):
            pages.append([event.sender.version for event in page])
            after = page[-1].sender.version
        assert pages == [[1, 2, 3], [4, 5, 6], [7]]

    async def test_account_without_operations_has_no_events(self, bank: RunningBank) -> None:
        analytics = bank.service("analytics")
        assert await analytics(bank.client.list_events(await bank.open("alice"), 0)) == []
        assert await analytics(bank.client.list_events(uuid4(), 0)) == []
