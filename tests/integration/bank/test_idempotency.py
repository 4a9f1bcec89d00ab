import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kit.db.asyncpg_internals import UncancelledConnection
from subgraphs.bank.client import Receipt, TransferRequest
from subgraphs.bank.service.adapters.postgres.batch import Batch, CommitOutcomeUnknown, optimistic_batch
from subgraphs.bank.service.application import ledger
from tests.idempotency_keys import earlier_release
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants, rub
from wallet.errors import AccountNotFound, IdempotencyConflict, InsufficientFunds, InvalidInput, WalletError
from wallet.money import Money


class TestTransferKeys:
    async def test_repeated_request_returns_the_same_receipt_and_writes_nothing(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        alice = own_bank.user("alice")
        first = await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        await alice(own_bank.client.transfer(sender, recipient, rub("2"), "another"))
        written = await own_bank.count_rows()
        again = await alice(own_bank.client.transfer(sender, recipient, rub("1.00"), "k"))
        assert again == first
        assert await own_bank.count_rows() == written

    async def test_refusal_is_replayed_after_money_arrived(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("refused", "1.00"), await bank.open("bob")
        sends, refusals = bank.user("refused"), []
        for _ in range(2):
            with pytest.raises(InsufficientFunds) as caught:
                await sends(bank.client.transfer(sender, recipient, rub("5"), "k"))
            refusals.append(caught.value)
            await bank.user("bob")(
                bank.client.transfer(recipient, sender, rub("10"), f"helps-{sender}-{len(refusals)}")
            )
        assert refusals[0] == refusals[1]
        assert (await sends(bank.client.transfer(sender, recipient, rub("5"), "a new key"))).posting.version == 3

    async def test_refusal_for_a_missing_account_is_replayed_after_the_account_was_created(
        self, bank: RunningBank
    ) -> None:
        sender, missing = await bank.open("misses"), UUID(int=77)
        for _ in range(2):
            with pytest.raises(AccountNotFound, match=str(missing)):
                await bank.user("misses")(bank.client.transfer(sender, missing, rub("5"), "k"))
            await bank.sql.execute("INSERT INTO accounts (id) VALUES ($1) ON CONFLICT DO NOTHING", missing)

    async def test_key_with_another_request_is_a_conflict(self, bank: RunningBank) -> None:
        sender, recipient, third = [await bank.open("conflicted") for _ in range(3)]
        sends = bank.user("conflicted")
        await sends(bank.client.transfer(sender, recipient, rub("1"), "k"))
        for other in (
            bank.client.transfer(sender, recipient, rub("1.01"), "k"),
            bank.client.transfer(sender, third, rub("1"), "k"),
            bank.client.transfer(recipient, sender, rub("1"), "k"),
            bank.client.transfer(sender, recipient, Money.parse("1", "USD"), "k"),
        ):
            with pytest.raises(IdempotencyConflict) as caught:
                await sends(other)
            assert caught.value == IdempotencyConflict("k")
        assert await bank.balance(sender) == 999

    async def test_first_outcome_is_replayed_after_a_conflict(self, bank: RunningBank) -> None:
        sender, recipient = [await bank.open("stands") for _ in range(2)]
        sends = bank.user("stands")
        first = await sends(bank.client.transfer(sender, recipient, rub("1"), "k"))
        with pytest.raises(IdempotencyConflict):
            await sends(bank.client.transfer(sender, recipient, rub("2"), "k"))
        assert await sends(bank.client.transfer(sender, recipient, rub("1"), "k")) == first

    async def test_keys_of_two_callers_are_independent(self, bank: RunningBank) -> None:
        erin, frank = await bank.open("erin"), await bank.open("frank")
        to_frank = await bank.user("erin")(bank.client.transfer(erin, frank, rub("1"), "shared"))
        to_erin = await bank.user("frank")(bank.client.transfer(frank, erin, rub("2"), "shared"))
        assert to_frank.transfer.id != to_erin.transfer.id

    async def test_keys_of_customer_and_admin_are_independent(self, bank: RunningBank, admin: Caller) -> None:
        sender, recipient = await bank.open("olga"), await bank.open("bob")
        by_owner = await bank.user("olga")(bank.client.transfer(sender, recipient, rub("1"), "k"))
        by_admin = await admin(bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert by_owner.transfer.id != by_admin.transfer.id
        assert await admin(bank.client.transfer(sender, recipient, rub("1"), "k")) == by_admin

    @pytest.mark.parametrize("key", ["x", "x" * 255, "a b", "Robert'); DROP TABLE accounts;--", "{}%s$1"])
    async def test_keys_with_special_characters_are_distinct(self, bank: RunningBank, key: str) -> None:
        owner = f"keys-{hash(key)}"
        sender, recipient = await bank.open(owner), await bank.open("bob")
        sends = bank.user(owner)
        first = await sends(bank.client.transfer(sender, recipient, rub("1"), key))
        assert await sends(bank.client.transfer(sender, recipient, rub("1"), key)) == first
        if len(key) < 255:
            assert await sends(bank.client.transfer(sender, recipient, rub("1"), key + "!")) != first


class TestQuotedKeys:
    """Requests with a key and its raw form, which has quotation marks. The gateway sends both for a quoted header."""

    async def test_transfer_of_an_earlier_release_is_replayed_by_its_raw_form(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        alice = own_bank.user("alice")
        with earlier_release():
            earlier = await alice(own_bank.client.transfer(sender, recipient, rub("1"), '"k1"'))
        again = await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k1", '"k1"'))
        assert (again, again.is_replay) == (earlier, True)
        requests = [TransferRequest(sender, recipient, rub("1"), "k1", raw) for raw in ('"k1"', '"k1"', "")]
        batch = await alice(own_bank.client.batch_transfer(requests))
        assert batch[:2] == [earlier, earlier]
        assert batch[2] != earlier, "the bare key returned the outcome of the quoted key"
        assert await own_bank.balance(sender) == 998
        await assert_ledger_invariants(own_bank.sql)

    async def test_refusal_of_an_earlier_release_is_replayed_by_its_raw_form(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("quotes", "0"), await bank.open("bob")
        quotes = bank.user("quotes")
        with earlier_release(), pytest.raises(InsufficientFunds):
            await quotes(bank.client.transfer(sender, recipient, rub("1"), '"k1"'))
        await bank.sql.execute("UPDATE idempotency_keys SET refusal = refusal - 'transfer_id' WHERE key = '\"k1\"'")
        await bank.user("bob")(bank.client.transfer(recipient, sender, rub("10"), f"helps-{sender}"))
        with pytest.raises(InsufficientFunds) as caught:
            await quotes(bank.client.transfer(sender, recipient, rub("1"), "k1", '"k1"'))
        assert caught.value.is_replay

    async def test_quoted_and_bare_key_move_money_once(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        alice, transfer = own_bank.user("alice"), own_bank.client.transfer
        raw = ["", '"k1"'] * 10
        receipts = await asyncio.gather(*(alice(transfer(sender, recipient, rub("1"), "k1", form)) for form in raw))
        assert len(set(receipts)) == 1
        assert sum(not receipt.is_replay for receipt in receipts) == 1
        assert await own_bank.count_rows() == {"transfers": 1, "entries": 2, "idempotency_keys": 1, "outbox": 1}

    async def test_with_both_forms_stored_each_header_keeps_its_own_outcome(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("both"), await bank.open("bob")
        both, transfer = bank.user("both"), bank.client.transfer
        with earlier_release():
            earlier = await both(transfer(sender, recipient, rub("1"), '"k1"'))
        bare = await both(transfer(sender, recipient, rub("2"), "k1"))
        assert await both(transfer(sender, recipient, rub("1"), "k1", '"k1"')) == earlier
        assert await both(transfer(sender, recipient, rub("2"), "k1")) == bare
        with pytest.raises(IdempotencyConflict):
            await both(transfer(sender, recipient, rub("2"), "k1", '"k1"'))
        assert await bank.balance(sender) == 997

    async def test_raw_form_is_looked_up_by_the_same_statement(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        alice, statements = own_bank.user("alice"), list[str]()

        def record(method: Any) -> Any:
            async def call(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
                if "idempotency_keys" in query:
                    statements.append(query)
                return await method(self, query, *arguments, **options)

            return call

        for name in ("fetch", "fetchval", "fetchrow", "execute"):
            monkeypatch.setattr(UncancelledConnection, name, record(getattr(UncancelledConnection, name)))
        await alice(own_bank.client.transfer(sender, recipient, rub("1"), "bare"))
        for_bare, statements[:] = list(statements), []
        await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k1", '"k1"'))
        assert statements == for_bare
        assert len(for_bare) == 2, "expected one read and one write"

    async def test_invalid_raw_form_is_refused(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("wrong"), await bank.open("bob")
        for raw in ("é", "x" * 513):
            with pytest.raises(InvalidInput, match="rawIdempotencyKey: must be 1 to 512"):
                await bank.user("wrong")(bank.client.transfer(sender, recipient, rub("1"), "k1", raw))


class TestReplayMark:
    async def test_only_repeated_transfers_are_marked(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("marks"), await bank.open("bob")
        marks, transfer = bank.user("marks"), bank.client.transfer
        receipts = [await marks(transfer(sender, recipient, rub("1"), "k")) for _ in range(3)]
        requests = [TransferRequest(sender, recipient, rub("1"), key) for key in ("k", "batch", "batch")]
        receipts += await marks(bank.client.batch_transfer(requests))  # type: ignore[arg-type]  # no errors
        assert [each.is_replay for each in receipts] == [False, True, True, True, False, True]

    async def test_only_repeated_deposits_are_marked(self, bank: RunningBank, card: Caller) -> None:
        account = await bank.open("bob", "0")
        deposits = [await card(bank.client.deposit(account, rub("5"), "marked", {})) for _ in range(2)]
        assert [each.is_replay for each in deposits] == [False, True]

    async def test_only_repeated_refusals_are_marked(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("refuses", "0"), await bank.open("bob")
        refuses = bank.user("refuses")
        marks = []
        for _ in range(3):
            with pytest.raises(InsufficientFunds) as caught:
                await refuses(bank.client.transfer(sender, recipient, rub("5"), "k"))
            marks.append(caught.value.is_replay)
        requests = [TransferRequest(sender, recipient, rub("5"), key) for key in ("k", "batch", "batch")]
        outcomes = await refuses(bank.client.batch_transfer(requests))
        marks += [each.is_replay for each in outcomes]
        assert marks == [False, True, True, True, False, True]

    async def test_conflict_is_no_replay(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("conflicts"), await bank.open("bob")
        conflicts, transfer = bank.user("conflicts"), bank.client.transfer
        await conflicts(transfer(sender, recipient, rub("1"), "k"))
        for _ in range(2):
            with pytest.raises(IdempotencyConflict) as caught:
                await conflicts(transfer(sender, recipient, rub("2"), "k"))
            assert not caught.value.is_replay

    async def test_outcome_that_the_bank_finds_after_a_lost_confirmation_is_no_replay(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        lost = []

        @asynccontextmanager
        async def lose_confirmation(pool: asyncpg.Pool) -> AsyncIterator[Batch]:
            async with optimistic_batch(pool) as batch:
                yield batch
            lost.append(pool)
            raise CommitOutcomeUnknown

        monkeypatch.setattr(ledger, "optimistic_batch", lose_confirmation)
        alice, transfer = own_bank.user("alice"), own_bank.client.transfer
        first = await alice(transfer(sender, recipient, rub("1"), "k"))
        with pytest.raises(InsufficientFunds) as refused:
            await alice(transfer(sender, recipient, rub("5000"), "refused"))
        assert (len(lost), first.is_replay, refused.value.is_replay) == (2, False, False)
        again = await alice(transfer(sender, recipient, rub("1"), "k"))
        with pytest.raises(InsufficientFunds) as refused_again:
            await alice(transfer(sender, recipient, rub("5000"), "refused"))
        assert (again, again.is_replay, refused_again.value.is_replay) == (first, True, True)
        assert await own_bank.balance(sender) == 999


class TestDepositKeys:
    async def test_repeated_deposit_returns_the_same_receipt(self, bank: RunningBank, card: Caller) -> None:
        account = await bank.open("bob", "0")
        first = await card(bank.client.deposit(account, rub("5"), "top-up-1", {"a": "1", "b": "2"}))
        again = bank.client.deposit(account, rub("5"), "top-up-1", {"b": "2", "a": "1"})
        assert await bank.service("card")(again) == first
        assert await bank.balance(account) == 5

    async def test_deposit_key_with_another_descriptor_is_a_conflict(self, bank: RunningBank, card: Caller) -> None:
        account = await bank.open("bob", "0")
        await card(bank.client.deposit(account, rub("5"), "top-up-2", {"topUpId": "1"}))
        with pytest.raises(IdempotencyConflict):
            await card(bank.client.deposit(account, rub("5"), "top-up-2", {"topUpId": "2"}))

    async def test_keys_of_deposits_and_transfers_are_independent(self, bank: RunningBank, card: Caller) -> None:
        account, other = await bank.open("bob"), await bank.open("bob")
        deposit = await card(bank.client.deposit(account, rub("5"), "both", {}))
        transfer = await bank.user("bob")(bank.client.transfer(account, other, rub("5"), "both"))
        assert (deposit.transfer.kind, transfer.transfer.kind) == ("DEPOSIT", "TRANSFER")


class TestConcurrentUses:
    async def test_concurrent_requests_with_one_key_move_money_once(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        alice = own_bank.user("alice")
        uses = [alice(own_bank.client.transfer(sender, recipient, rub("1"), "k")) for _ in range(50)]
        receipts = await asyncio.gather(*uses)
        assert receipts == [receipts[0]] * 50
        assert await own_bank.count_rows() == {"transfers": 1, "entries": 2, "idempotency_keys": 1, "outbox": 1}
        await assert_ledger_invariants(own_bank.sql)

    async def test_concurrent_refused_requests_with_one_key_get_one_refusal(self, own_bank: RunningBank) -> None:
        sender, missing = await own_bank.open("alice", "0"), UUID(int=77)
        alice = own_bank.user("alice")
        uses = [alice(own_bank.client.transfer(missing, sender, rub("1"), "k")) for _ in range(50)]
        refusals = await asyncio.gather(*uses, return_exceptions=True)
        assert refusals == [AccountNotFound(str(missing))] * 50
        assert (await own_bank.count_rows())["idempotency_keys"] == 1

    async def test_different_concurrent_requests_with_one_key_make_one_transfer(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        alice = own_bank.user("alice")
        uses = [alice(own_bank.client.transfer(sender, recipient, rub(str(1 + n % 5)), "k")) for n in range(50)]
        results = await asyncio.gather(*uses, return_exceptions=True)
        _assert_one_transfer(results)
        assert (await own_bank.count_rows())["transfers"] == 1
        await assert_ledger_invariants(own_bank.sql)

    async def test_concurrent_requests_on_disjoint_accounts_with_one_key_make_one_transfer(
        self, own_bank: RunningBank
    ) -> None:
        pairs = [(await own_bank.open("alice"), await own_bank.open("bob")) for _ in range(10)]
        alice = own_bank.user("alice")
        uses = [alice(own_bank.client.transfer(*pairs[n % 10], rub("1"), "k")) for n in range(50)]
        results = await asyncio.gather(*uses, return_exceptions=True)
        _assert_one_transfer(results, expected_receipts=5)
        assert (await own_bank.count_rows())["transfers"] == 1
        await assert_ledger_invariants(own_bank.sql)


def _assert_one_transfer(results: list[Receipt | BaseException], expected_receipts: int = 10) -> None:
    kinds = Counter(type(result) for result in results)
    assert kinds == {Receipt: expected_receipts, IdempotencyConflict: len(results) - expected_receipts}
    assert len({result.transfer.id for result in results if isinstance(result, Receipt)}) == 1
    assert {str(result) for result in results if isinstance(result, WalletError)} == {str(IdempotencyConflict("k"))}
