from decimal import Decimal

import pytest

from subgraphs.bank.service.domain.model import AccountStatus
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants, clearing_account, rub
from wallet.errors import AccountClosed, AccountNotFound, CurrencyMismatch, InvalidInput, PermissionDenied
from wallet.money import Money

DESCRIPTOR = {"topUpId": "t1", "cardBrand": "МИР", "cardLastFour": "4242"}


class TestDeposit:
    async def test_deposit_credits_the_account_and_returns_its_posting(self, bank: RunningBank, card: Caller) -> None:
        account = await bank.open("bob", "500.00")
        receipt = await card(bank.client.deposit(account, rub("50.25"), "happy", DESCRIPTOR))
        assert (receipt.transfer.kind, receipt.transfer.amount) == ("DEPOSIT", rub("50.25"))
        assert (receipt.transfer.sender_id, receipt.transfer.recipient_id) == (clearing_account(), account)
        assert receipt.posting.account_id == account
        assert (receipt.posting.version, receipt.posting.balance_after) == (1, rub("550.25"))

    async def test_deposit_writes_all_its_rows(self, own_bank: RunningBank) -> None:
        account = await own_bank.open("bob", "500.00")
        receipt = await own_bank.service("card")(own_bank.client.deposit(account, rub("50.25"), "k", DESCRIPTOR))
        id_, at = receipt.transfer.id, receipt.transfer.created_at

        for side, balance in ((clearing_account(), "-50.25"), (account, "550.25")):
            row = await own_bank.row(side)
            assert (row["balance"], row["version"], row["updated_at"]) == (Decimal(balance), 1, at)
        transfer = await own_bank.sql.fetchrow(
            "SELECT kind, idempotency_key, descriptor ->> 'cardBrand' AS brand FROM transfers WHERE id = $1", id_
        )
        assert transfer is not None
        assert tuple(transfer) == ("DEPOSIT", "k", "МИР")
        entries = await own_bank.sql.fetch("SELECT * FROM entries WHERE transfer_id = $1 ORDER BY amount", id_)
        assert [tuple(entry.values()) for entry in entries] == [
            (clearing_account(), 1, id_, Decimal("-50.25"), Decimal("-50.25")),
            (account, 1, id_, Decimal("50.25"), Decimal("550.25")),
        ]
        key = await own_bank.sql.fetchrow("SELECT principal, operation, key, transfer_id FROM idempotency_keys")
        assert key is not None
        assert tuple(key) == ("card", "deposit", "k", id_)
        assert await own_bank.count_rows() == {"transfers": 1, "entries": 2, "idempotency_keys": 1, "outbox": 1}
        await assert_ledger_invariants(own_bank.sql)

    async def test_clearing_account_has_minus_the_sum_of_all_deposits(self, own_bank: RunningBank) -> None:
        account, card = await own_bank.open("bob", "0"), own_bank.service("card")
        for n in range(3):
            await card(own_bank.client.deposit(account, rub("10"), str(n), {}))
        assert await own_bank.balance(clearing_account()) == -30

    @pytest.mark.parametrize(("currency", "amount"), [("JPY", "100"), ("USD", "0.01"), ("KWD", "1.234")])
    async def test_deposit_comes_from_the_clearing_account_of_its_currency(
        self, bank: RunningBank, card: Caller, currency: str, amount: str
    ) -> None:
        account = await bank.open("bob", "0", currency)
        money = Money.parse(amount, currency)
        receipt = await card(bank.client.deposit(account, money, f"in {currency}", {}))
        assert (receipt.transfer.sender_id, receipt.posting.balance_after) == (clearing_account(currency), money)


class TestRefusals:
    @pytest.mark.parametrize("caller_name", ["alice", "operator", "admin", "analytics"])
    async def test_deposit_is_allowed_for_the_card_service_only(
        self, bank: RunningBank, caller_name: str, request: pytest.FixtureRequest
    ) -> None:
        caller, account = request.getfixturevalue(caller_name), await bank.open("alice", "0")
        with pytest.raises(PermissionDenied):
            await caller(bank.client.deposit(account, rub("1000000"), "k", {}))
        assert await bank.balance(account) == 0

    async def test_deposit_to_an_unknown_account_is_refused(self, bank: RunningBank, card: Caller) -> None:
        nowhere = clearing_account("?")
        with pytest.raises(AccountNotFound, match=str(nowhere)):
            await card(bank.client.deposit(nowhere, rub("1"), "nowhere", {}))

    async def test_deposit_to_a_closed_account_is_refused(self, bank: RunningBank, card: Caller) -> None:
        closed = await bank.open("bob", "0", status=AccountStatus.CLOSED)
        with pytest.raises(AccountClosed):
            await card(bank.client.deposit(closed, rub("1"), "closed", {}))

    async def test_deposit_in_another_currency_is_refused(self, bank: RunningBank, card: Caller) -> None:
        dollars = await bank.open("bob", currency="USD")
        with pytest.raises(CurrencyMismatch) as caught:
            await card(bank.client.deposit(dollars, rub("1"), "mismatch", {}))
        assert caught.value == CurrencyMismatch(str(dollars), "RUB")

    async def test_deposit_to_a_clearing_account_is_refused(self, bank: RunningBank, card: Caller) -> None:
        with pytest.raises(InvalidInput):
            await card(bank.client.deposit(clearing_account(), rub("1"), "self", {}))
