"""Words on transfers, over gRPC and in the database."""

import asyncio
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from subgraphs.bank.client import Receipt, TransferRequest, Words
from tests.conftest import USERS, Keys
from tests.integration.bank.harness import Caller, RunningBank, rub, run_bank_without_relay
from wallet.errors import AccountNotFound, IdempotencyConflict, InvalidInput, ReferenceUsed, WalletError

WORDS = Words("Rent \U0001f3e0 שלום\u200f", "INV-1", {"order": "42", "b": ""})


class TestWords:
    async def test_each_caller_reads_the_words_that_are_theirs(
        self, bank: RunningBank, alice: Caller, operator: Caller, analytics: Caller
    ) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), str(uuid4()), words=WORDS))
        made = receipt.transfer
        assert (made.description, made.reference, made.metadata) == (WORDS.description, "INV-1", WORDS.metadata)
        assert await alice(bank.client.get_transfer(made.id)) == made
        for caller, reference in ((bank.user("bob"), ""), (operator, "INV-1")):
            seen = (await caller(bank.client.batch_get_transfers([made.id])))[made.id]
            assert not isinstance(seen, WalletError)
            assert (seen.description, seen.reference, seen.metadata) == (WORDS.description, reference, {})
        (event,) = await analytics(bank.client.list_events(recipient, 0))
        assert (event.transfer, event.created_by) == (made, f"{USERS}|alice")

    async def test_replay_returns_the_words_and_other_words_conflict(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient, key = await bank.open("alice"), await bank.open("bob"), str(uuid4())
        first = await alice(bank.client.transfer(sender, recipient, rub("1"), key, words=WORDS))
        again = await alice(bank.client.transfer(sender, recipient, rub("1"), key, words=WORDS))
        assert (again, again.is_replay) == (first, True)
        with pytest.raises(IdempotencyConflict):
            await alice(bank.client.transfer(sender, recipient, rub("1"), key))

    async def test_plain_transfer_writes_no_words(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), str(uuid4())))
        query = "SELECT count(*) FROM transfer_words WHERE transfer_id = $1"
        assert await bank.sql.fetchval(query, receipt.transfer.id) == 0

    async def test_invalid_word_of_a_batch_refuses_its_transfer_only(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        requests = [
            TransferRequest(sender, recipient, rub("1"), str(uuid4()), words=words)
            for words in (WORDS, Words("4242 4242 4242 4242"), Words(reference="x"))
        ]
        first, second, third = await alice(bank.client.batch_transfer(requests))
        assert isinstance(second, InvalidInput)
        assert [violation.field for violation in second.violations] == ["description"]
        assert not isinstance(first, WalletError)
        assert not isinstance(third, WalletError)
        assert (first.transfer.reference, third.transfer.reference) == ("INV-1", "x")

    async def test_description_can_be_erased_and_nothing_else_can_change(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), str(uuid4()), words=WORDS))
        id_ = receipt.transfer.id
        await bank.sql.execute("UPDATE transfer_words SET description = NULL WHERE transfer_id = $1", id_)
        erased = await alice(bank.client.get_transfer(id_))
        assert (erased.description, erased.reference, erased.metadata) == ("", "INV-1", WORDS.metadata)
        for change in (
            "UPDATE transfer_words SET description = 'other' WHERE transfer_id = $1",
            "UPDATE transfer_words SET reference = NULL WHERE transfer_id = $1",
            "DELETE FROM transfer_words WHERE transfer_id = $1",
        ):
            with pytest.raises(asyncpg.RestrictViolationError):
                await bank.sql.execute(change, id_)


class TestReference:
    async def test_transfers_with_a_reference_are_listed_by_pages(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        made: list[Receipt] = []
        for reference in ("a", "b", "a", "a"):
            words = Words(reference=reference, metadata={"n": str(len(made))})
            made.append(await alice(bank.client.transfer(sender, recipient, rub("1"), str(uuid4()), words=words)))
        expected = sorted((each.transfer for each in made if each.transfer.reference == "a"), key=lambda each: each.id)
        first = await alice(bank.client.list_transfers(sender, "a", limit=2))
        rest = await alice(bank.client.list_transfers(sender, "a", limit=2, after=first.transfers[-1].id))
        assert ([*first.transfers, *rest.transfers], first.has_more, rest.has_more) == (expected, True, False)
        assert (await alice(bank.client.list_transfers(sender, "A"))).transfers == ()

    async def test_references_of_another_users_account_are_hidden(self, bank: RunningBank) -> None:
        account = await bank.open("alice")
        with pytest.raises(AccountNotFound):
            await bank.user("bob")(bank.client.list_transfers(account, "a"))

    @pytest.mark.parametrize("reference", ["", "x" * 65, "\0x"])
    async def test_list_needs_a_valid_reference(self, bank: RunningBank, alice: Caller, reference: str) -> None:
        account = await bank.open("alice")
        with pytest.raises(InvalidInput):
            await alice(bank.client.list_transfers(account, reference))

    async def test_used_reference_is_refused_and_the_refusal_is_replayed(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        sender, recipient, key = await bank.open("alice"), await bank.open("bob"), str(uuid4())
        unique = Words(reference="r", is_reference_unique=True)
        await alice(bank.client.transfer(sender, recipient, rub("1"), str(uuid4()), words=Words(reference="r")))
        for is_replay in (False, True):
            with pytest.raises(ReferenceUsed) as caught:
                await alice(bank.client.transfer(sender, recipient, rub("1"), key, words=unique))
            assert (caught.value.reference, caught.value.is_replay) == ("r", is_replay)
        assert await bank.balance(sender) == 999

    async def test_two_banks_at_once_use_a_reference_once(self, ledger_url: str, keys: Keys, tmp_path: Path) -> None:
        folders = tmp_path / "one", tmp_path / "other"
        for folder in folders:
            folder.mkdir()
        async with (
            run_bank_without_relay(keys, folders[0], ledger_url) as one,
            run_bank_without_relay(keys, folders[1], ledger_url) as other,
        ):
            alice, sender, recipient = one.user("alice"), await one.open("alice"), await one.open("bob")
            attempts = 6
            for round_ in range(5):
                unique = Words(reference=f"r{round_}", is_reference_unique=True)
                outcomes = await asyncio.gather(
                    *(
                        alice(bank.client.transfer(sender, recipient, rub("1"), f"{round_}.{number}", words=unique))
                        for number in range(attempts)
                        for bank in (one, other)
                    ),
                    return_exceptions=True,
                )
                assert sum(not isinstance(each, BaseException) for each in outcomes) == 2  # one, and its replay
                refused = [each for each in outcomes if isinstance(each, BaseException)]
                assert {type(each) for each in refused} == {ReferenceUsed}
            assert await one.balance(sender) == 1000 - 5
