from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from subgraphs.bank.service.domain.model import Command, IdempotencyKey, TransferKind
from subgraphs.bank.service.domain.rules import check
from wallet.errors import InvalidInput
from wallet.money import MAX_AMOUNT, Money

ALICE, BOB = UUID(int=1), UUID(int=2)
GOOD = Command(
    uuid4(),
    TransferKind.TRANSFER,
    ALICE,
    BOB,
    Money(Decimal(10), "RUB"),
    IdempotencyKey("users|alice", "transfer", "k"),
    owner_id="alice",
    descriptor={},
)


def with_key(key: str) -> Command:
    return replace(GOOD, key=replace(GOOD.key, key=key))


def refused_fields(command: Command) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        check(command)
    return [violation.field for violation in caught.value.violations]


class TestCheck:
    def test_a_good_command_passes(self) -> None:
        check(GOOD)

    @pytest.mark.parametrize("amount", ["0", "-0.01", "-10", str(MAX_AMOUNT + 1), "1000000000000.01"])
    def test_refuses_an_amount_that_is_not_positive_or_beyond_the_largest(self, amount: str) -> None:
        assert refused_fields(replace(GOOD, amount=Money.parse(amount))) == ["amount"]

    @pytest.mark.parametrize("amount", ["0.01", str(MAX_AMOUNT)])
    def test_takes_the_smallest_and_the_largest_amount(self, amount: str) -> None:
        check(replace(GOOD, amount=Money.parse(amount)))

    def test_refuses_a_transfer_to_the_same_account(self) -> None:
        assert refused_fields(replace(GOOD, recipient_id=ALICE)) == ["recipientId"]

    @pytest.mark.parametrize("key", ["", "x" * 256, " k", "k ", " ", "a\nb", "a\0b", "\x7f", "ключ", "é"])
    def test_refuses_a_key_that_is_not_1_to_255_printable_ascii_characters(self, key: str) -> None:
        assert refused_fields(with_key(key)) == ["idempotencyKey"]

    @pytest.mark.parametrize("key", ["x", "x" * 255, "a b", "{}~!'\"\\%$;--"])
    def test_takes_every_other_key(self, key: str) -> None:
        check(with_key(key))

    @pytest.mark.parametrize(
        "descriptor",
        [
            {str(n): "" for n in range(17)},
            {"x" * 129: ""},
            {"x": "x" * 129},
            {"a\0b": ""},
            {"x": "a\0b"},  # PostgreSQL has no place for it
        ],
        ids=["too many", "a name too long", "a text too long", "a NUL in a name", "a NUL in a text"],
    )
    def test_refuses_a_descriptor_that_is_too_long_or_cannot_be_kept(self, descriptor: dict[str, str]) -> None:
        assert refused_fields(replace(GOOD, kind=TransferKind.DEPOSIT, descriptor=descriptor)) == ["descriptor"]

    def test_takes_a_descriptor_of_the_longest_kind_in_any_language(self) -> None:
        check(replace(GOOD, kind=TransferKind.DEPOSIT, descriptor={f"{n:0128}": "ж" * 128 for n in range(16)}))

    def test_names_all_that_is_wrong_at_once(self) -> None:
        wrong = replace(with_key(""), recipient_id=ALICE, amount=Money.parse("0"), descriptor={"x": "x" * 129})
        assert refused_fields(wrong) == ["amount", "recipientId", "idempotencyKey", "descriptor"]


class TestFingerprint:
    @pytest.mark.parametrize(
        "change",
        [
            {"kind": TransferKind.DEPOSIT},
            {"sender_id": UUID(int=3)},
            {"recipient_id": UUID(int=3)},
            {"amount": Money.parse("10.01")},
            {"amount": Money.parse("10", "USD")},
            {"descriptor": {"a": "b"}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_tells_different_requests_apart(self, change: dict[str, Any]) -> None:
        assert replace(GOOD, **change).fingerprint != GOOD.fingerprint

    def test_a_retry_is_the_same_request_whatever_its_transfer_would_be_called(self) -> None:
        assert replace(GOOD, transfer_id=uuid4()).fingerprint == GOOD.fingerprint

    def test_the_order_of_a_descriptor_and_the_zeros_of_an_amount_mean_nothing(self) -> None:
        one = replace(GOOD, amount=Money(Decimal("10.0"), "RUB"), descriptor={"a": "1", "b": "2"})
        other = replace(GOOD, amount=Money(Decimal("1e1"), "RUB"), descriptor={"b": "2", "a": "1"})
        assert one.fingerprint == other.fingerprint

    def test_texts_do_not_run_into_each_other(self) -> None:
        one, other = replace(GOOD, descriptor={"a": "b, c"}), replace(GOOD, descriptor={"a, b": "c"})
        assert one.fingerprint != other.fingerprint
