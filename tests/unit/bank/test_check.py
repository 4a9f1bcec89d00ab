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
    def test_valid_command_passes_check(self) -> None:
        check(GOOD)

    @pytest.mark.parametrize("amount", ["0", "-0.01", "-10", str(MAX_AMOUNT + 1), "1000000000000.01"])
    def test_amount_out_of_range_is_refused(self, amount: str) -> None:
        assert refused_fields(replace(GOOD, amount=Money.parse(amount))) == ["amount"]

    @pytest.mark.parametrize("amount", ["0.01", str(MAX_AMOUNT)])
    def test_smallest_and_largest_amount_are_accepted(self, amount: str) -> None:
        check(replace(GOOD, amount=Money.parse(amount)))

    def test_transfer_to_the_same_account_is_refused(self) -> None:
        assert refused_fields(replace(GOOD, recipient_id=ALICE)) == ["recipientId"]

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\0b", "\x7f", "ключ", "é"])
    def test_key_other_than_1_to_255_printable_ascii_characters_is_refused(self, key: str) -> None:
        assert refused_fields(with_key(key)) == ["idempotencyKey"]
        raw_key = replace(GOOD.key, key=key * 3)
        assert refused_fields(replace(GOOD, raw_key=raw_key)) == ["rawIdempotencyKey"]

    @pytest.mark.parametrize("key", ["x", "x" * 255, "a b", " k ", " ", "{}~!'\"\\%$;--"])
    def test_key_of_printable_ascii_characters_is_accepted(self, key: str) -> None:
        check(with_key(key))
        check(replace(GOOD, raw_key=replace(GOOD.key, key=key)))

    @pytest.mark.parametrize(
        "descriptor",
        [
            {str(n): "" for n in range(17)},
            {"x" * 129: ""},
            {"x": "x" * 129},
            {"a\0b": ""},
            {"x": "a\0b"},  # PostgreSQL cannot store a NUL
        ],
        ids=["too many", "a name too long", "a text too long", "a NUL in a name", "a NUL in a text"],
    )
    def test_descriptor_that_is_too_large_or_contains_nul_is_refused(self, descriptor: dict[str, str]) -> None:
        assert refused_fields(replace(GOOD, kind=TransferKind.DEPOSIT, descriptor=descriptor)) == ["descriptor"]

    def test_largest_descriptor_with_non_ascii_text_is_accepted(self) -> None:
        check(replace(GOOD, kind=TransferKind.DEPOSIT, descriptor={f"{n:0128}": "ж" * 128 for n in range(16)}))

    def test_all_invalid_fields_are_reported_together(self) -> None:
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
    def test_different_requests_have_different_fingerprints(self, change: dict[str, Any]) -> None:
        assert replace(GOOD, **change).fingerprint != GOOD.fingerprint

    def test_fingerprint_ignores_the_transfer_id(self) -> None:
        assert replace(GOOD, transfer_id=uuid4()).fingerprint == GOOD.fingerprint

    def test_fingerprint_ignores_descriptor_order_and_trailing_zeros(self) -> None:
        one = replace(GOOD, amount=Money(Decimal("10.0"), "RUB"), descriptor={"a": "1", "b": "2"})
        other = replace(GOOD, amount=Money(Decimal("1e1"), "RUB"), descriptor={"b": "2", "a": "1"})
        assert one.fingerprint == other.fingerprint

    def test_fingerprint_distinguishes_descriptor_names_from_values(self) -> None:
        one, other = replace(GOOD, descriptor={"a": "b, c"}), replace(GOOD, descriptor={"a, b": "c"})
        assert one.fingerprint != other.fingerprint
