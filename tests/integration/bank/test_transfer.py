from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kit.auth.principal import Role
from subgraphs.bank.service.domain.model import AccountStatus
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants, clearing_account, rub
from wallet.errors import (
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    InsufficientFunds,
    InternalError,
    PermissionDenied,
)
from wallet.money import MAX_AMOUNT, Money


class TestTransfer:
    async def test_transfer_moves_money_and_returns_the_senders_posting(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = await bank.open("alice", "1000.00"), await bank.open("bob", "500.00")
        before = datetime.now(UTC)
        receipt = await alice(bank.client.transfer(sender, recipient, rub("100.50"), "k"))
        assert receipt.transfer.kind == "TRANSFER"
        assert (receipt.transfer.sender_id, receipt.transfer.recipient_id) == (sender, recipient)
        assert receipt.transfer.amount == rub("100.50")
        assert before <= receipt.transfer.created_at <= datetime.now(UTC)
        assert receipt.posting.account_id == sender
        assert (receipt.posting.version, receipt.posting.balance_after) == (1, rub("899.50"))

    async def test_transfer_writes_all_its_rows(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("dora", "1000.00"), await bank.open("bob", "500.00")
        receipt = await bank.user("dora")(bank.client.transfer(sender, recipient, rub("100.50"), "rows"))
        id_, at = receipt.transfer.id, receipt.transfer.created_at

        for account, balance in ((sender, "899.5"), (recipient, "600.5")):
            row = await bank.row(account)
            assert (row["balance"], row["version"], row["updated_at"]) == (Decimal(balance), 1, at)
        transfer = await bank.sql.fetchrow("SELECT * FROM transfers WHERE id = $1", id_)
        assert transfer is not None
        assert dict(transfer) == {
            "id": id_,
            "kind": "TRANSFER",
            "sender_id": sender,
            "recipient_id": recipient,
            "amount": Decimal("100.5"),
            "currency": "RUB",
            "status": "COMPLETED",
            "created_at": at,
            "idempotency_key": "rows",
            "sender_version": 1,
            "recipient_version": 1,
            "descriptor": None,
        }
        entries = await bank.sql.fetch("SELECT * FROM entries WHERE transfer_id = $1 ORDER BY amount", id_)
        assert [tuple(entry.values()) for entry in entries] == [
            (sender, 1, id_, Decimal("-100.5"), Decimal("899.5")),
            (recipient, 1, id_, Decimal("100.5"), Decimal("600.5")),
        ]
        key = await bank.sql.fetchrow("SELECT * FROM idempotency_keys WHERE transfer_id = $1", id_)
        assert key is not None
        assert (key["principal"], key["operation"], key["key"]) == ("https://users.test|dora", "transfer", "rows")
        assert (len(key["fingerprint"]), key["refusal"]) == (32, None)
        assert await bank.sql.fetchval("SELECT count(*) FROM outbox WHERE transfer_id = $1", id_) == 1

    async def test_transfer_increments_both_versions_by_one(self, bank: RunningBank, alice: Caller) -> None:
        a, b, c = [await bank.open("alice", "10.00") for _ in range(3)]
        for n, (sender, recipient) in enumerate([(a, b), (b, c), (a, c), (c, a)]):
            await alice(bank.client.transfer(sender, recipient, rub("1"), f"versions-{a}-{n}"))
        assert [(await bank.row(account))["version"] for account in (a, b, c)] == [3, 2, 3]

    @pytest.mark.parametrize(
        ("currency", "amount"), [("JPY", "7"), ("KWD", "0.001"), ("CLF", "0.0001"), ("RUB", "0.01")]
    )
    async def test_transfer_is_exact_in_every_currency(
        self, bank: RunningBank, alice: Caller, currency: str, amount: str
    ) -> None:
        sender, recipient = [await bank.open("alice", "10", currency) for _ in range(2)]
        money = Money.parse(amount, currency)
        receipt = await alice(bank.client.transfer(sender, recipient, money, f"exact-{currency}"))
        assert receipt.posting.balance_after == Money(Decimal(10), currency) - money
        assert (await alice(bank.client.get_balance(recipient))).amount == Money(Decimal(10), currency) + money

    async def test_largest_amount_is_transferred(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = [await bank.open("alice", str(MAX_AMOUNT)) for _ in range(2)]
        receipt = await alice(bank.client.transfer(sender, recipient, Money(MAX_AMOUNT, "RUB"), "largest"))
        assert receipt.posting.balance_after == rub("0")

    async def test_overdraft_is_granted_down_to_the_minimum_balance(self, bank: RunningBank, alice: Caller) -> None:
        sender = await bank.open("alice", "1.00", min_balance=Decimal(-5))
        recipient = await bank.open("bob")
        receipt = await alice(bank.client.transfer(sender, recipient, rub("6"), "overdraft"))
        assert receipt.posting.balance_after == rub("-5")

    async def test_admin_moves_money_from_any_account(self, bank: RunningBank, admin: Caller) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        receipt = await admin(bank.client.transfer(sender, recipient, rub("1"), "by an admin"))
        assert receipt.posting.balance_after == rub("999")


class TestRefusals:
    async def test_read_access_to_all_accounts_allows_no_transfer(self, bank: RunningBank, operator: Caller) -> None:
        mine, bobs = await bank.open("operator"), await bank.open("bob")
        both = bank.user("operator", Role.OPERATOR, Role.CUSTOMER)
        for caller, sender in ((operator, mine), (operator, bobs), (bank.service("card"), bobs)):
            with pytest.raises(PermissionDenied):
                await caller(bank.client.transfer(sender, await bank.open("eve"), rub("1"), "not mine to move"))
        with pytest.raises(AccountNotFound):
            await both(bank.client.transfer(bobs, mine, rub("1"), "seen and not moved"))
        with pytest.raises(AccountNotFound):
            await both(bank.client.close_account(await bank.open("bob", "0")))
        assert await bank.balance(bobs) == 1000

    async def test_admin_cannot_transfer_from_a_clearing_account(self, bank: RunningBank, admin: Caller) -> None:
        with pytest.raises(AccountNotFound):
            await admin(bank.client.transfer(clearing_account(), await bank.open("admin"), rub("1"), "out of nothing"))

    async def test_overdraft_is_refused(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = await bank.open("alice", "10.00"), await bank.open("bob")
        with pytest.raises(InsufficientFunds) as caught:
            await alice(bank.client.transfer(sender, recipient, rub("10.01"), "poor"))
        assert caught.value == InsufficientFunds(str(sender), "10.01", "10.00", "RUB")
        assert await bank.balance(sender) == 10

    async def test_transfer_to_an_unknown_account_is_refused(self, bank: RunningBank, alice: Caller) -> None:
        sender, nowhere = await bank.open("alice"), clearing_account("USD")
        for recipient in (nowhere, clearing_account()):
            with pytest.raises(AccountNotFound, match=str(recipient)):
                await alice(bank.client.transfer(sender, recipient, rub("1"), f"to {recipient}"))

    async def test_transfer_in_another_currency_is_refused(self, bank: RunningBank, alice: Caller) -> None:
        roubles, dollars = await bank.open("alice"), await bank.open("alice", currency="USD")
        with pytest.raises(CurrencyMismatch) as caught:
            await alice(bank.client.transfer(roubles, dollars, rub("1"), "to dollars"))
        assert caught.value == CurrencyMismatch(str(dollars), "RUB")
        with pytest.raises(CurrencyMismatch) as caught:
            await alice(bank.client.transfer(dollars, roubles, rub("1"), "from dollars"))
        assert caught.value == CurrencyMismatch(str(dollars), "RUB")

    async def test_transfer_from_or_to_a_closed_account_is_refused(self, bank: RunningBank, alice: Caller) -> None:
        opened, closed = await bank.open("alice"), await bank.open("alice", "0", status=AccountStatus.CLOSED)
        for sender, recipient in ((opened, closed), (closed, opened)):
            with pytest.raises(AccountClosed) as caught:
                await alice(bank.client.transfer(sender, recipient, rub("1"), f"from {sender}"))
            assert caught.value == AccountClosed(str(closed))

    async def test_refusal_writes_only_its_idempotency_record(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice", "1.00"), await own_bank.open("bob")
        with pytest.raises(InsufficientFunds):
            await own_bank.user("alice")(own_bank.client.transfer(sender, recipient, rub("2"), "k"))
        assert await own_bank.count_rows() == {"transfers": 0, "entries": 0, "idempotency_keys": 1, "outbox": 0}
        await assert_ledger_invariants(own_bank.sql)


class TestAtomicity:
    @pytest.mark.parametrize("table", ["transfers", "entries", "idempotency_keys", "outbox"])
    async def test_failed_insert_of_one_row_rolls_back_all_rows(self, own_bank: RunningBank, table: str) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        await own_bank.sql.execute(f"ALTER TABLE {table} ADD CONSTRAINT broken CHECK (false) NOT VALID")
        alice = own_bank.user("alice")
        with pytest.raises(InternalError):
            await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert set((await own_bank.count_rows()).values()) == {0}
        assert await own_bank.balance(sender) == await own_bank.balance(recipient) == 1000

        await own_bank.sql.execute(f"ALTER TABLE {table} DROP CONSTRAINT broken")
        receipt = await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert receipt.posting.version == 1
        await assert_ledger_invariants(own_bank.sql)

    async def test_failure_at_commit_leaves_no_rows(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        await own_bank.sql.execute("""
            CREATE FUNCTION refuse_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = 'check_violation'; END $$;
            CREATE CONSTRAINT TRIGGER refuse_at_commit AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION refuse_at_commit();
        """)
        with pytest.raises(InternalError):
            await own_bank.user("alice")(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert set((await own_bank.count_rows()).values()) == {0}
        assert await own_bank.balance(sender) == 1000

    async def test_balance_overflow_leaves_no_rows(self, own_bank: RunningBank) -> None:
        full = await own_bank.open("alice", "999999999999999999.99")
        with pytest.raises(InternalError):
            await own_bank.service("card")(own_bank.client.deposit(full, rub("0.01"), "k", {}))
        assert set((await own_bank.count_rows()).values()) == {0}
        await assert_ledger_invariants(own_bank.sql)
