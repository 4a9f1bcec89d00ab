import copy
from dataclasses import FrozenInstanceError
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.money import EXPONENTS, MAX_AMOUNT, Money, MoneyError

currencies = st.sampled_from(sorted(EXPONENTS))


@st.composite
def moneys(draw: st.DrawFn, currency: st.SearchStrategy[str] = currencies) -> Money:
    """Generate amounts of up to 22 digits, of either sign."""
    code = draw(currency)
    minor_units = draw(st.integers(-(10**22) + 1, 10**22 - 1))
    return Money(Decimal(minor_units).scaleb(-EXPONENTS[code]), code)


class TestMoney:
    @pytest.mark.parametrize(
        ("currency", "amount", "text"),
        [("RUB", "10", "10.00"), ("JPY", "10", "10"), ("KWD", "10", "10.000"), ("CLF", "10", "10.0000")],
    )
    def test_text_has_the_decimals_of_the_currency(self, currency: str, amount: str, text: str) -> None:
        assert str(Money(Decimal(amount), currency)) == text

    @pytest.mark.parametrize(
        ("currency", "amount"), [("RUB", "0.001"), ("JPY", "0.1"), ("KWD", "0.0001"), ("CLF", "0.00001")]
    )
    def test_too_many_decimals_are_rejected(self, currency: str, amount: str) -> None:
        with pytest.raises(MoneyError, match=f"must have at most . decimals in {currency}"):
            Money(Decimal(amount), currency)

    def test_trailing_zeros_are_accepted(self) -> None:
        assert Money(Decimal("1.50000"), "RUB") == Money(Decimal("1.5"), "RUB")

    @pytest.mark.parametrize("amount", [1.0, 10, "10.00", True, None])
    def test_amount_that_is_not_a_decimal_is_rejected(self, amount: Any) -> None:
        with pytest.raises(TypeError, match="an amount must be a Decimal"):
            Money(amount, "RUB")

    @pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
    def test_amount_that_is_not_finite_is_rejected(self, amount: str) -> None:
        with pytest.raises(MoneyError, match="must be a finite number"):
            Money(Decimal(amount), "RUB")

    def test_amount_above_the_decimal_precision_is_rejected(self) -> None:
        with pytest.raises(MoneyError, match="too many digits"):
            Money(Decimal("1e27"), "RUB")

    @given(moneys())
    def test_minor_units_give_the_same_amount(self, money: Money) -> None:
        minor_units = int(money.amount.scaleb(EXPONENTS[money.currency]))
        same = Money.from_minor_units(minor_units, money.currency)
        assert (same, str(same)) == (money, str(money))

    def test_minor_units_above_the_decimal_precision_are_rejected(self) -> None:
        assert Money.from_minor_units(10**28 - 1, "RUB") == Money(Decimal(10**28 - 1).scaleb(-2), "RUB")
        for number in (10**28, -(10**28)):
            with pytest.raises(MoneyError, match="too many digits"):
                Money.from_minor_units(number, "RUB")

    def test_minor_units_of_an_unknown_currency_are_rejected(self) -> None:
        with pytest.raises(MoneyError, match=r"^must be in an ISO 4217 currency$"):
            Money.from_minor_units(1, "XXX")

    @pytest.mark.parametrize("currency", ["", "rub", "RU", "RUBL", "XXX", "BTC", " RUB", "РУБ"])
    def test_unknown_currency_is_rejected(self, currency: str) -> None:
        with pytest.raises(MoneyError, match=r"^must be in an ISO 4217 currency$"):
            Money(Decimal(1), currency)

    def test_message_does_not_quote_an_unknown_currency(self) -> None:
        with pytest.raises(MoneyError, match=r"^must be in an ISO 4217 currency$"):
            Money(Decimal(1), "X" * 100_000)

    def test_money_is_immutable(self) -> None:
        money = Money(Decimal(1), "RUB")
        with pytest.raises(FrozenInstanceError):
            money.amount = Decimal(2)  # type: ignore[misc]

    @given(moneys())
    def test_zero_has_no_sign(self, money: Money) -> None:
        zero = money - money
        assert str(zero) == str(-zero) == str(Money(Decimal("-0"), money.currency))
        assert not str(zero).startswith("-")

    @given(moneys())
    def test_equal_money_has_equal_hash(self, money: Money) -> None:
        twin = copy.deepcopy(money)
        assert (twin, hash(twin)) == (money, hash(money))

    @pytest.mark.parametrize(("amount", "positive"), [("0", False), ("-0.01", False), ("0.01", True)])
    def test_only_an_amount_above_zero_is_positive(self, amount: str, *, positive: bool) -> None:
        assert Money(Decimal(amount), "RUB").is_positive is positive

    def test_largest_amount_is_valid_in_every_currency(self) -> None:
        assert all(Money(MAX_AMOUNT, currency).amount == MAX_AMOUNT for currency in EXPONENTS)


class TestArithmetic:
    @given(st.data(), currencies)
    def test_addition_and_subtraction_are_exact(self, data: st.DataObject, currency: str) -> None:
        a, b = data.draw(moneys(st.just(currency))), data.draw(moneys(st.just(currency)))
        assert (a + b).amount == a.amount + b.amount
        assert a + b - b == a
        assert a - b == a + -b == -(b - a)

    @given(st.data(), currencies)
    def test_money_is_ordered_by_amount(self, data: st.DataObject, currency: str) -> None:
        a, b = data.draw(moneys(st.just(currency))), data.draw(moneys(st.just(currency)))
        assert (a < b, a <= b, a > b, a >= b) == (
            a.amount < b.amount,
            a.amount <= b.amount,
            a.amount > b.amount,
            a.amount >= b.amount,
        )

    @pytest.mark.parametrize("operation", ["__add__", "__sub__", "__lt__", "__le__"])
    def test_arithmetic_with_another_currency_is_rejected(self, operation: str) -> None:
        rub, usd = Money(Decimal(1), "RUB"), Money(Decimal(1), "USD")
        with pytest.raises(MoneyError, match="amounts in RUB and USD cannot be combined"):
            getattr(rub, operation)(usd)

    def test_equal_amounts_in_different_currencies_are_not_equal(self) -> None:
        assert Money(Decimal(1), "RUB") != Money(Decimal(1), "USD")


class TestParse:
    @given(moneys())
    def test_parse_reverses_str(self, money: Money) -> None:
        assert Money.parse(str(money), money.currency) == money

    @pytest.mark.parametrize(
        "text",
        [
            *("", "-", ".", "-.", "+1", "--1", "1-", " 1", "1 ", "1\n", "1e2", "1E2", "1_000", "1,00", "1.2.3", "0x10"),
            *("NaN", "Infinity", "inf", "0" * 41),
            *("\u0661\u0662", "\uff11", "\u00bd", "\u00b2"),  # digits outside ASCII
        ],
    )
    def test_text_outside_plain_decimal_notation_is_rejected(self, text: str) -> None:
        with pytest.raises(MoneyError, match=r"must be a decimal number such as 10\.00"):
            Money.parse(text)

    @given(st.text())
    def test_any_text_is_parsed_or_rejected_with_a_message(self, text: str) -> None:
        try:
            money = Money.parse(text)
        except MoneyError as error:
            assert str(error)  # noqa: PT017  both outcomes are valid
        else:
            assert Money.parse(str(money)) == money

    def test_number_with_forty_digits_is_rejected(self) -> None:
        with pytest.raises(MoneyError, match="too many digits"):
            Money.parse("9" * 40)

    def test_default_currency_is_rub(self) -> None:
        assert Money.parse("10") == Money(Decimal(10), "RUB")
        assert Money.parse("10", "JPY") == Money(Decimal(10), "JPY")
