from contextlib import suppress
from dataclasses import fields
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgraphs.card.service.domain import rules
from subgraphs.card.service.domain.cards import CardToken
from subgraphs.card.service.domain.rules import Limit
from subgraphs.card.service.domain.top_up import NewTopUp, TopUp
from tests.unit.card.top_ups import AMOUNT, ZERO
from wallet.errors import InvalidInput, TopUpLimitExceeded
from wallet.money import Money

LIMITS = {"RUB": Limit(Decimal(100), Decimal(250)), "USD": Limit(Decimal(10), Decimal(10))}


def rub(amount: str) -> Money:
    return Money.parse(amount, "RUB")


class TestLimits:
    @pytest.mark.parametrize(("amount", "used"), [("100", "0"), ("100", "150"), ("0.01", "249.99")])
    def test_amount_within_the_limits_is_accepted(self, amount: str, used: str) -> None:
        rules.check_limits(LIMITS, rub(amount), rub(used))

    @pytest.mark.parametrize(
        ("amount", "used", "period", "limit", "available"),
        [
            ("100.01", "0", "TOP_UP", "100.00", "100.00"),
            ("100.01", "200", "TOP_UP", "100.00", "50.00"),
            ("100", "150.01", "DAY", "250.00", "99.99"),
            ("0.01", "250", "DAY", "250.00", "0.00"),
            ("1", "300", "DAY", "250.00", "0.00"),  # the limit was lowered after these top-ups
        ],
    )
    def test_amount_above_a_limit_is_refused_with_the_available_amount(
        self, amount: str, used: str, period: str, limit: str, available: str
    ) -> None:
        with pytest.raises(TopUpLimitExceeded) as caught:
            rules.check_limits(LIMITS, rub(amount), rub(used))
        assert caught.value == TopUpLimitExceeded(period, limit, available, "RUB")

    def test_currency_without_limits_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="currency: has no card top-ups; supported: RUB, USD"):
            rules.check_limits(LIMITS, Money.parse("1", "EUR"), Money.parse("0", "EUR"))

    @given(st.decimals(0, 400, places=2), st.decimals("0.01", 200, places=2))
    def test_accepted_amounts_never_exceed_a_limit(self, used: Decimal, amount: Decimal) -> None:
        with suppress(TopUpLimitExceeded):
            rules.check_limits(LIMITS, Money(amount, "RUB"), Money(used, "RUB"))
            assert amount <= 100
            assert used + amount <= 250
            return
        assert amount > 100 or used + amount > 250

    @given(st.decimals(0, 400, places=2), st.decimals("0.01", 200, places=2), st.sampled_from(["RUB", "EUR"]))
    def test_largest_used_sum_is_the_largest_that_is_accepted(
        self, used: Decimal, amount: Decimal, currency: str
    ) -> None:
        largest = rules.max_used(LIMITS, Money(amount, currency))
        try:
            rules.check_limits(LIMITS, Money(amount, currency), Money(used, currency))
        except (InvalidInput, TopUpLimitExceeded):
            assert largest is None or used > largest
        else:
            assert largest is not None
            assert used <= largest


class TestFingerprint:
    def test_fingerprint_depends_on_every_part_of_the_request_and_hides_the_token(self) -> None:
        account = UUID(int=1)
        requests = [
            (b"secret", "tok_1", account, rub("10")),
            (b"secreT", "tok_1", account, rub("10")),
            (b"secret", "tok_2", account, rub("10")),
            (b"secret", "tok_1", UUID(int=2), rub("10")),
            (b"secret", "tok_1", account, rub("10.01")),
            (b"secret", "tok_1", account, Money.parse("10", "USD")),
        ]
        fingerprints = [rules.request_fingerprint(*request) for request in requests]
        assert len(set(fingerprints)) == len(fingerprints)
        assert rules.request_fingerprint(*requests[0]) == fingerprints[0]
        assert b"tok_1" not in fingerprints[0]

    def test_stored_values_have_no_card_number_code_or_expiry(self) -> None:
        names = {field.name for kind in (TopUp, NewTopUp, CardToken) for field in fields(kind)}
        assert not names & {"number", "cvv", "pan", "expiry_month", "expiry_year"}


class TestCheckRequest:
    @pytest.mark.parametrize("text", ["", "\n", "ключ", "k" * 256])
    def test_invalid_idempotency_key_is_refused(self, text: str) -> None:
        assert [violation.field for violation in rules.check_request(AMOUNT, text, None)] == ["idempotencyKey"]
        assert [violation.field for violation in rules.check_request(AMOUNT, "k", text * 3)] == ["rawIdempotencyKey"]

    def test_amount_of_zero_is_refused(self) -> None:
        assert [violation.field for violation in rules.check_request(ZERO, "k", None)] == ["amount"]
        assert rules.check_request(AMOUNT, "k" * 255, '"k"') == []
