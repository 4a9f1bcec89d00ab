"""Changes of an account that are not operations, between the read and the write of a single transfer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from subgraphs.bank.service.adapters.postgres.batch import Conflict, optimistic_batch
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.domain import rules
from subgraphs.bank.service.domain.model import Command, IdempotencyKey, TransferKind
from tests.conftest import USERS
from tests.databases import CleanDatabases
from tests.integration.bank.harness import Caller, RunningBank, clearing_account, count_rows, rub
from wallet.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotEmpty,
    AccountNotFound,
    CurrencyMismatch,
    FloorAboveBalance,
    InsufficientFunds,
    InvalidInput,
    PermissionDenied,
)
from wallet.money import Money

CHANGES = {
    "closed": "UPDATE accounts SET status = 'CLOSED' WHERE id = $1",
    "closed and opened again": "UPDATE accounts SET status = status WHERE id = $1",
    "floor": "UPDATE accounts SET min_balance = -1 WHERE id = $1",
    "no floor": "UPDATE accounts SET min_balance = NULL WHERE id = $1",
    "owner": "UPDATE accounts SET owner_id = 'mallory' WHERE id = $1",
    "frozen": "UPDATE accounts SET frozen = 'ALL' WHERE id = $1",
    "thawed": "UPDATE accounts SET frozen = NULL WHERE id = $1",
    "purpose": "UPDATE accounts SET purpose = 'CLEARING' WHERE id = $1",
    "currency": "UPDATE accounts SET currency = 'USD' WHERE id = $1",
}
"""A change of each column that the rules of transfers read, apart from those that an operation changes."""


@pytest.fixture(scope="module")
async def pool(ledgers: CleanDatabases) -> AsyncIterator[asyncpg.Pool]:
    async with ledgers.one() as url, open_pool(url, max_size=2) as pool:
        yield pool


async def open_account(pool: asyncpg.Pool, owner: str, min_balance: int) -> UUID:
    statement = "INSERT INTO accounts (owner_id, min_balance) VALUES ($1, $2) RETURNING id"
    opened: UUID = await pool.fetchval(statement, owner, min_balance)
    return opened


async def commit_with_change(pool: asyncpg.Pool, command: Command, change: str, account_id: UUID) -> None:
    """Commit a transfer as a single command, and change an account between its read and its write."""
    async with optimistic_batch(pool) as batch:
        state = await batch.read([command])
        decision = rules.decide(state.accounts, state.records, [command], state.now)
        assert decision.transfers
        await pool.execute(change, account_id)
        await batch.write(decision)


class TestRevision:
    @pytest.mark.parametrize("changed", ["sender", "recipient"])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_change_between_read_and_write_is_a_conflict(
        self, pool: asyncpg.Pool, change: str, changed: str
    ) -> None:
        accounts = {
            "sender": await open_account(pool, "alice", -10),
            "recipient": await open_account(pool, "bob", 0),
        }
        command = Command(
            uuid7(),
            TransferKind.TRANSFER,
            accounts["sender"],
            accounts["recipient"],
            rub("1"),
            IdempotencyKey("alice", "transfer", str(uuid4())),
            "alice",
            {},
        )
        before = await count_rows(pool)
        with pytest.raises(Conflict):
            await commit_with_change(pool, command, CHANGES[change], accounts[changed])
        assert await count_rows(pool) == before

    async def test_operation_does_not_change_the_revision(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        await bank.user("alice")(bank.client.transfer(sender, recipient, rub("1"), str(uuid4())))
        assert [(await bank.row(each))["revision"] for each in (sender, recipient)] == [0, 0]

    async def test_closing_raises_the_revision(self, bank: RunningBank) -> None:
        account = await bank.open("alice", "0")
        await bank.user("alice")(bank.client.close_account(account))
        await bank.user("alice")(bank.client.close_account(account))
        assert (await bank.row(account))["revision"] == 1


class TestFreeze:
    @pytest.mark.parametrize(
        ("frozen", "can_pay", "can_be_paid"),
        [("OUTGOING", False, True), ("INCOMING", True, False), ("ALL", False, False)],
    )
    async def test_frozen_account_refuses_transfers_of_its_direction(
        self,
        bank: RunningBank,
        operator: Caller,
        card: Caller,
        frozen: Literal["OUTGOING", "INCOMING", "ALL"],
        can_pay: bool,
        can_be_paid: bool,
    ) -> None:
        account, other = await bank.open("alice"), await bank.open("bob")
        after = await operator(bank.client.freeze_account(account, frozen, "stolen phone"))
        assert (after.frozen, after.status) == (frozen, "OPEN")
        for caller, sides, is_possible in (
            ("alice", (account, other), can_pay),
            ("bob", (other, account), can_be_paid),
        ):
            transfer = bank.client.transfer(*sides, rub("1"), str(uuid4()))
            if is_possible:
                await bank.user(caller)(transfer)
            else:
                with pytest.raises(AccountFrozen, match=str(account)):
                    await bank.user(caller)(transfer)
        if not can_be_paid:
            with pytest.raises(AccountFrozen):
                await card(bank.client.deposit(account, rub("1"), str(uuid4()), {}))
        await operator(bank.client.thaw_account(account, "found"))
        for caller, sides in (("alice", (account, other)), ("bob", (other, account))):
            await bank.user(caller)(bank.client.transfer(*sides, rub("1"), str(uuid4())))

    async def test_refusal_of_a_frozen_account_is_replayed_after_the_thaw(
        self, bank: RunningBank, alice: Caller, operator: Caller
    ) -> None:
        account, other, key = await bank.open("alice"), await bank.open("bob"), str(uuid4())
        await operator(bank.client.freeze_account(account, "ALL", "stolen phone"))
        for _ in range(2):
            with pytest.raises(AccountFrozen):
                await alice(bank.client.transfer(account, other, rub("1"), key))
            await operator(bank.client.thaw_account(account, "found"))

    async def test_each_change_is_recorded_once_with_its_caller_and_reason(
        self, bank: RunningBank, alice: Caller, operator: Caller, admin: Caller
    ) -> None:
        account = await bank.open("alice", "0")
        for _ in range(2):
            await operator(bank.client.freeze_account(account, "ALL", "stolen phone"))
        with pytest.raises(AccountFrozen):
            await alice(bank.client.close_account(account))
        await operator(bank.client.freeze_account(account, "OUTGOING", "less"))
        for _ in range(2):
            await operator(bank.client.thaw_account(account, "found"))
        for _ in range(2):
            await alice(bank.client.close_account(account))
        changes = await admin(bank.client.list_account_changes(account))
        opened = {"status": "OPEN", "floor": "0"}
        assert [(each.revision, each.action, each.reason, each.before, each.after) for each in changes] == [
            (4, "CLOSE", "", opened, {"status": "CLOSED", "floor": "0"}),
            (3, "THAW", "found", opened | {"frozen": "OUTGOING"}, opened),
            (2, "FREEZE", "less", opened | {"frozen": "ALL"}, opened | {"frozen": "OUTGOING"}),
            (1, "FREEZE", "stolen phone", opened, opened | {"frozen": "ALL"}),
        ]
        assert [each.changed_by for each in changes] == [f"{USERS}|{name}" for name in ("alice", *["operator"] * 3)]
        assert await admin(bank.client.list_account_changes(account, limit=1, before=3)) == changes[2:3]
        with pytest.raises(AccountClosed):
            await operator(bank.client.freeze_account(account, "ALL", "late"))

    @pytest.mark.parametrize("reason", ["", " ", "x" * 201, "a\nb", "4242 4242 4242 4242"])
    async def test_invalid_reason_is_refused(self, bank: RunningBank, operator: Caller, reason: str) -> None:
        account = await bank.open("alice")
        for call in (bank.client.freeze_account(account, "ALL", reason), bank.client.thaw_account(account, reason)):
            with pytest.raises(InvalidInput, match="reason"):
                await operator(call)

    async def test_clearing_account_is_not_found(self, bank: RunningBank, admin: Caller) -> None:
        for call in (
            bank.client.freeze_account(clearing_account(), "ALL", "r"),
            bank.client.thaw_account(clearing_account(), "r"),
            bank.client.close_account(clearing_account()),
        ):
            with pytest.raises(AccountNotFound):
                await admin(call)

    async def test_transfer_that_arrives_during_the_closing_is_refused_or_keeps_the_account_open(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        for _ in range(10):
            account, other = await bank.open("alice", "0"), await bank.open("bob", "1")
            closing, paying = await asyncio.gather(
                alice(bank.client.close_account(account)),
                bank.user("bob")(bank.client.transfer(other, account, rub("1"), str(uuid4()))),
                return_exceptions=True,
            )
            row = await bank.row(account)
            if row["status"] == "CLOSED":
                assert isinstance(paying, AccountClosed)
                assert row["balance"] == 0
            else:
                assert isinstance(closing, AccountNotEmpty)
                assert row["balance"] == 1


class TestFloor:
    async def test_credit_line_can_be_spent_to_its_last_unit_and_no_further(
        self, bank: RunningBank, alice: Caller, admin: Caller
    ) -> None:
        account, other = await bank.open("alice", "10"), await bank.open("bob")
        after = await admin(bank.client.set_account_floor(account, rub("-5"), "contract"))
        assert (after.balance, after.floor, after.available) == (rub("10"), rub("-5"), rub("15"))
        with pytest.raises(InsufficientFunds) as refused:
            await alice(bank.client.transfer(account, other, rub("15.01"), str(uuid4())))
        assert refused.value.available == "15.00"
        receipt = await alice(bank.client.transfer(account, other, rub("15"), str(uuid4())))
        assert receipt.posting.balance_after == rub("-5")
        assert (await alice(bank.client.get_account(account))).available == rub("0")

    async def test_account_without_a_credit_line_has_no_floor_in_responses(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        found = await alice(bank.client.get_account(await bank.open("alice")))
        assert (found.floor, found.available) == (None, None)

    async def test_floor_above_the_balance_is_refused_and_not_recorded(
        self, bank: RunningBank, alice: Caller, admin: Caller
    ) -> None:
        account, other = await bank.open("alice", "0"), await bank.open("bob")
        await admin(bank.client.set_account_floor(account, rub("-5"), "contract"))
        await alice(bank.client.transfer(account, other, rub("3"), str(uuid4())))
        with pytest.raises(FloorAboveBalance):
            await admin(bank.client.set_account_floor(account, rub("-2.99"), "end of the contract"))
        after = await admin(bank.client.set_account_floor(account, rub("-3"), "end of the contract"))
        assert (after.floor, after.available) == (rub("-3"), rub("0"))
        changes = await admin(bank.client.list_account_changes(account))
        assert [(each.action, each.before["floor"], each.after["floor"]) for each in changes] == [
            ("SET_FLOOR", "-5", "-3"),
            ("SET_FLOOR", "0", "-5"),
        ]

    async def test_repeated_floor_is_recorded_once(self, bank: RunningBank, admin: Caller) -> None:
        account = await bank.open("alice")
        for _ in range(2):
            await admin(bank.client.set_account_floor(account, rub("-5.5"), "contract"))
        assert [each.revision for each in await admin(bank.client.list_account_changes(account))] == [1]
        assert (await bank.row(account))["revision"] == 1

    async def test_account_in_debt_cannot_be_closed(self, bank: RunningBank, alice: Caller, admin: Caller) -> None:
        account, other = await bank.open("alice", "0"), await bank.open("bob")
        await admin(bank.client.set_account_floor(account, rub("-5"), "contract"))
        await alice(bank.client.transfer(account, other, rub("5"), str(uuid4())))
        with pytest.raises(AccountNotEmpty):
            await alice(bank.client.close_account(account))

    async def test_frozen_account_gets_another_floor(self, bank: RunningBank, operator: Caller, admin: Caller) -> None:
        account = await bank.open("alice")
        await operator(bank.client.freeze_account(account, "ALL", "report"))
        after = await admin(bank.client.set_account_floor(account, rub("-5"), "contract"))
        assert (after.frozen, after.floor) == ("ALL", rub("-5"))

    @pytest.mark.parametrize("floor", ["0.01", "-1000000000000.01"])
    async def test_floor_out_of_range_is_refused(self, bank: RunningBank, admin: Caller, floor: str) -> None:
        account = await bank.open("alice")
        with pytest.raises(InvalidInput, match="floor"):
            await admin(bank.client.set_account_floor(account, rub(floor), "contract"))

    async def test_floor_of_another_currency_is_refused(self, bank: RunningBank, admin: Caller) -> None:
        account = await bank.open("alice")
        with pytest.raises(CurrencyMismatch):
            await admin(bank.client.set_account_floor(account, Money.parse("0", "USD"), "contract"))

    async def test_floor_needs_a_reason(self, bank: RunningBank, admin: Caller) -> None:
        account = await bank.open("alice")
        with pytest.raises(InvalidInput, match="reason"):
            await admin(bank.client.set_account_floor(account, rub("-1"), " "))

    async def test_floor_of_a_closed_account_is_refused(self, bank: RunningBank, alice: Caller, admin: Caller) -> None:
        account = await bank.open("alice", "0")
        await alice(bank.client.close_account(account))
        with pytest.raises(AccountClosed):
            await admin(bank.client.set_account_floor(account, rub("-1"), "contract"))

    async def test_floor_of_a_clearing_account_is_refused(self, bank: RunningBank, admin: Caller) -> None:
        with pytest.raises(AccountNotFound):
            await admin(bank.client.set_account_floor(clearing_account(), rub("-1"), "contract"))

    async def test_only_admins_set_floors(self, bank: RunningBank, alice: Caller, operator: Caller) -> None:
        account = await bank.open("alice")
        for caller in (alice, operator):
            with pytest.raises(PermissionDenied):
                await caller(bank.client.set_account_floor(account, rub("-1"), "contract"))

    async def test_transfers_and_floors_at_once_leave_no_balance_below_the_floor(
        self, bank: RunningBank, alice: Caller, admin: Caller
    ) -> None:
        account, other = await bank.open("alice", "0"), await bank.open("bob")
        for _ in range(10):
            await admin(bank.client.set_account_floor(account, rub("-1"), "contract"))
            results = await asyncio.gather(
                alice(bank.client.transfer(account, other, rub("1"), str(uuid4()))),
                admin(bank.client.set_account_floor(account, rub("0"), "end of the contract")),
                return_exceptions=True,
            )
            row = await bank.row(account)
            expected = [FloorAboveBalance] if row["balance"] < 0 else [InsufficientFunds]
            assert [type(each) for each in results if isinstance(each, Exception)] == expected
            assert row["balance"] >= row["min_balance"]
            if row["balance"] < 0:
                await bank.user("bob")(bank.client.transfer(other, account, rub("1"), str(uuid4())))
