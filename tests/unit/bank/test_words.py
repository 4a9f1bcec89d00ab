"""Words on transfers: rules, visibility, fingerprint, and unique references in a batch."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from subgraphs.bank.service.domain.model import Account, AccountStatus, Command, IdempotencyKey, Transfer, TransferKind
from subgraphs.bank.service.domain.rules import check, decide
from subgraphs.bank.service.domain.words import Words
from wallet.errors import AccountNotFound, InvalidInput, ReferenceUsed
from wallet.money import Money

ALICE, BOB, CARL = UUID(int=1), UUID(int=2), UUID(int=3)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = Command(
    UUID(int=9),
    TransferKind.TRANSFER,
    ALICE,
    BOB,
    Money(Decimal(10), "RUB"),
    IdempotencyKey("users|alice", "transfer", "k"),
    owner_id="alice",
    descriptor={},
)
UNIQUE = Words(reference="r1", is_reference_unique=True)


def account(id_: UUID, owner: str) -> Account:
    return Account(id_, owner, AccountStatus.OPEN, Money(Decimal(100), "RUB"), Decimal(0), 0, NOW, NOW)


ACCOUNTS = {ALICE: account(ALICE, "alice"), BOB: account(BOB, "bob"), CARL: account(CARL, "alice")}


def command(number: int, words: Words | None, sender: UUID = ALICE, owner: str = "alice") -> Command:
    key = IdempotencyKey(f"users|{owner}", "transfer", str(number))
    return replace(PLAIN, transfer_id=UUID(int=100 + number), key=key, sender_id=sender, owner_id=owner, words=words)


class TestFingerprint:
    def test_fingerprint_without_words_is_that_of_earlier_releases(self) -> None:
        transfer = "85cc40b5567ea9792c7eecb041c619a6c88b0bca32cc27605b448ab12bb5a466"
        assert PLAIN.fingerprint.hex() == transfer
        deposit = replace(PLAIN, kind=TransferKind.DEPOSIT, descriptor={"topUpId": "1", "cardBrand": "VISA"})
        expected = "3dbb2c84ec6fc250b1320dfb715007f273967239a501af643f90df292c3fb915"
        assert deposit.fingerprint.hex() == expected

    def test_each_word_changes_the_fingerprint(self) -> None:
        variants = [
            None,
            Words("a"),
            Words("b"),
            Words(reference="a"),
            Words(reference="a", is_reference_unique=True),
            Words(metadata={"a": "b"}),
            Words(metadata={"a": "c"}),
        ]
        assert len({replace(PLAIN, words=words).fingerprint for words in variants}) == len(variants)

    def test_order_of_metadata_and_creator_do_not_change_the_fingerprint(self) -> None:
        one = Words(metadata={"a": "1", "b": "2"}, created_by="users|alice")
        other = Words(metadata={"b": "2", "a": "1"})
        assert replace(PLAIN, words=one).fingerprint == replace(PLAIN, words=other).fingerprint


class TestRules:
    @pytest.mark.parametrize(
        ("words", "field"),
        [
            (Words("x" * 141), "description"),
            (Words("a\nb"), "description"),
            (Words("4242 4242 4242 4242"), "description"),
            (Words(reference="x" * 65), "reference"),
            (Words(metadata={str(number): "" for number in range(17)}), "metadata"),
            (Words(metadata={"": "x"}), "metadata"),
            (Words(metadata={"x" * 65: ""}), "metadata"),
            (Words(metadata={"x": "y" * 129}), "metadata"),
            (Words(metadata={"4242424242424242": ""}), "metadata"),
            (Words("x", is_reference_unique=True), "uniqueReference"),
        ],
    )
    def test_invalid_word_is_refused(self, words: Words, field: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            check(replace(PLAIN, words=words))
        assert [violation.field for violation in caught.value.violations] == [field]

    def test_longest_words_are_accepted(self) -> None:
        check(replace(PLAIN, words=Words("я" * 140, "x" * 64, {f"{n:064}": "y" * 128 for n in range(10, 26)}, True)))


class TestVisibility:
    WORDS = Words("Rent", "r1", {"order": "1"}, created_by="users|alice")

    def test_creator_sees_all_words(self) -> None:
        assert self.WORDS.visible_to("users|alice", reads_sender=True) == self.WORDS

    def test_recipient_sees_the_description_only(self) -> None:
        seen = self.WORDS.visible_to("users|bob", reads_sender=False)
        assert (seen.description, seen.reference, seen.metadata) == ("Rent", "", {})

    def test_other_reader_of_the_senders_account_sees_the_reference_too(self) -> None:
        seen = self.WORDS.visible_to("users|operator", reads_sender=True)
        assert (seen.description, seen.reference, seen.metadata) == ("Rent", "r1", {})


class TestUniqueReference:
    def test_second_transfer_of_a_batch_with_the_reference_is_refused(self) -> None:
        first, second = decide(ACCOUNTS, {}, [command(1, UNIQUE), command(2, UNIQUE)], NOW).outcomes
        assert isinstance(first, Transfer)
        assert second == ReferenceUsed(str(ALICE), "r1")

    def test_reference_of_a_transfer_that_did_not_ask_counts(self) -> None:
        first, second, third = decide(
            ACCOUNTS,
            {},
            [command(1, Words(reference="r1")), command(2, UNIQUE), command(3, Words(reference="r1"))],
            NOW,
        ).outcomes
        assert isinstance(first, Transfer)
        assert second == ReferenceUsed(str(ALICE), "r1")
        assert isinstance(third, Transfer)

    def test_reference_of_an_earlier_batch_counts(self) -> None:
        (outcome,) = decide(ACCOUNTS, {}, [command(1, UNIQUE)], NOW, {(ALICE, "r1")}).outcomes
        assert outcome == ReferenceUsed(str(ALICE), "r1")

    def test_reference_of_a_refused_transfer_stays_free(self) -> None:
        large = replace(command(1, UNIQUE), amount=Money(Decimal(1000), "RUB"))
        _, second = decide(ACCOUNTS, {}, [large, command(2, UNIQUE)], NOW).outcomes
        assert isinstance(second, Transfer)

    def test_reference_belongs_to_the_senders_account(self) -> None:
        outcomes = decide(ACCOUNTS, {}, [command(1, UNIQUE), command(2, UNIQUE, CARL)], NOW).outcomes
        assert all(isinstance(each, Transfer) for each in outcomes)

    def test_reference_of_a_foreign_account_is_not_revealed(self) -> None:
        (outcome,) = decide(ACCOUNTS, {}, [command(1, UNIQUE, owner="mallory")], NOW, {(ALICE, "r1")}).outcomes
        assert outcome == AccountNotFound(str(ALICE))
