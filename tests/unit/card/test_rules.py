from contextlib import suppress
from dataclasses import fields
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgraphs.card.service.domain import rules
from subgraphs.card.service.domain.rules import Limit
from subgraphs.card.service.domain.top_up import Token, TopUp, Wish
from tests.unit.card.top_ups import AMOUNT, NOTHING
from wallet.errors import InvalidInput, TopUpLimitExceeded
from wallet.money import Money

LIMITS = {"RUB": Limit(Decimal(100), Decimal(250)), "USD": Limit(Decimal(10), Decimal(10))}


def rub(amount: str) -> Money:
    return Money.parse(amount, "RUB")


class TestLimits:
    @pytest.mark.parametrize(("amount", "used"), [("100", "0"), ("100", "150"), ("0.01", "249.99")])
    def test_let_through_what_is_within(self, amount: str, used: str) -> None:
        rules.check_limits(LIMITS, rub(amount), rub(used))

    @pytest.mark.parametrize(
        ("amount", "used", "period", "limit", "available"),
        [
            ("100.01", "0", "TOP_UP", "100.00", "100.00"),
            ("100.01", "200", "TOP_UP", "100.00", "50.00"),
            ("100", "150.01", "DAY", "250.00", "99.99"),
            ("0.01", "250", "DAY", "250.00", "0.00"),
            ("1", "300", "DAY", "250.00", "0.00"),  # the limit was higher yesterday
        ],
    )
    def test_refuse_what_is_beyond_and_say_what_is_left(
        self, amount: str, used: str, period: str, limit: str, available: str
    ) -> None:
        with pytest.raises(TopUpLimitExceeded) as caught:
            rules.check_limits(LIMITS, rub(amount), rub(used))
        assert caught.value == TopUpLimitExceeded(period, limit, available, "RUB")

    def test_a_currency_without_limits_is_not_paid_in_by_card(self) -> None:
        with pytest.raises(InvalidInput, match="currency: cannot be paid in by card; RUB, USD can"):
            rules.check_limits(LIMITS, Money.parse("1", "EUR"), Money.parse("0", "EUR"))

    @given(st.decimals(0, 400, places=2), st.decimals("0.01", 200, places=2))
    def test_nobody_passes_them(self, used: Decimal, amount: Decimal) -> None:
        with suppress(TopUpLimitExceeded):
            rules.check_limits(LIMITS, Money(amount, "RUB"), Money(used, "RUB"))
            assert amount <= 100
            assert used + amount <= 250
            return
        assert amount > 100 or used + amount > 250


class TestFingerprint:
    def test_tells_every_part_of_a_request_apart_and_hides_it(self) -> None:
        account = UUID(int=1)
        requests = [
            (b"secret", "tok_1", account, rub("10")),
            (b"secreT", "tok_1", account, rub("10")),
            (b"secret", "tok_2", account, rub("10")),
            (b"secret", "tok_1", UUID(int=2), rub("10")),
            (b"secret", "tok_1", account, rub("10.01")),
            (b"secret", "tok_1", account, Money.parse("10", "USD")),
        ]
        prints = [rules.fingerprint(*request) for request in requests]
        assert len(set(prints)) == len(prints)
        assert rules.fingerprint(*requests[0]) == prints[0]
        assert b"tok_1" not in prints[0]

    def test_no_part_of_it_is_the_cards_number_or_code(self) -> None:
        kept = {field.name for kind in (TopUp, Wish, Token) for field in fields(kind)}
        assert not kept & {"number", "cvv", "pan", "expiry_month", "expiry_year"}


class TestRequest:
    @pytest.mark.parametrize("key", ["", " k", "k ", "\n", "ключ", "k" * 256])
    def test_with_a_key_that_is_none_is_refused(self, key: str) -> None:
        assert [violation.field for violation in rules.check(AMOUNT, key)] == ["idempotencyKey"]

    def test_of_nothing_is_refused(self) -> None:
        assert [violation.field for violation in rules.check(NOTHING, "k")] == ["amount"]
        assert rules.check(AMOUNT, "k" * 255) == []
