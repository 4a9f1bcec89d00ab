from dataclasses import replace
from datetime import date

import pytest

from subgraphs.card import client
from subgraphs.card.service.domain import cards
from subgraphs.card.service.domain.cards import Brand, CardDetails

TODAY = date(2026, 11, 30)
VALID_CARD = CardDetails("4242424242424242", 11, 2026, "123")


def invalid_fields(card: CardDetails) -> list[str]:
    return [violation.field for violation in cards.check_card(card, TODAY)]


class TestCardNumber:
    @pytest.mark.parametrize(
        ("number", "brand"),
        [
            ("4242424242424242", Brand.VISA),
            ("5555555555554444", Brand.MASTERCARD),
            ("2221000000000009", Brand.MASTERCARD),
            ("2720990000000007", Brand.MASTERCARD),
            ("2200000000000004", Brand.MIR),
            ("2204990000000006", Brand.MIR),
            ("2205000000000009", Brand.OTHER),
            ("378282246310005", Brand.AMEX),
            ("341111111111111", Brand.AMEX),
            ("6200000000000005", Brand.UNIONPAY),
            ("8100000000000009", Brand.UNIONPAY),
            ("6011000990139424", Brand.OTHER),
            ("5600000000000000", Brand.OTHER),
        ],
    )
    def test_first_digits_determine_the_brand(self, number: str, brand: Brand) -> None:
        assert cards.card_brand(number) is brand

    @pytest.mark.parametrize(
        "number",
        [
            "",
            "4",
            "4242424242424241",
            "4242 4242 4242 4242",
            "4242424242424242x",
            "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
            "0" * 20,
            "²" * 16,
        ],
    )
    def test_invalid_number_is_refused_and_not_repeated_in_the_message(self, number: str) -> None:
        (violation,) = cards.check_card(replace(VALID_CARD, number=number), TODAY)
        assert violation.field == "card.number"
        assert not number or len(number) < 2 or number not in violation.message


class TestExpiry:
    @pytest.mark.parametrize(
        ("month", "year", "fields"),
        [
            (11, 2026, []),
            (12, 2026, []),
            (1, 2046, []),
            (10, 2026, ["card.expiryMonth"]),
            (12, 2025, ["card.expiryYear"]),
            (1, 2047, ["card.expiryYear"]),
            (1, 26, ["card.expiryYear"]),
            (0, 2027, ["card.expiryMonth"]),
            (13, 2027, ["card.expiryMonth"]),
            (0, 0, ["card.expiryMonth", "card.expiryYear"]),
        ],
    )
    def test_card_is_valid_until_the_end_of_its_month(self, month: int, year: int, fields: list[str]) -> None:
        assert invalid_fields(replace(VALID_CARD, expiry_month=month, expiry_year=year)) == fields


class TestSecurityCode:
    @pytest.mark.parametrize("cvv", ["", "12", "1234", "abc", "١٢٣"])
    def test_code_other_than_three_digits_is_refused(self, cvv: str) -> None:
        assert invalid_fields(replace(VALID_CARD, cvv=cvv)) == ["card.cvv"]

    def test_code_of_american_express_has_four_digits(self) -> None:
        amex = replace(VALID_CARD, number="378282246310005")
        assert invalid_fields(amex) == ["card.cvv"]
        assert invalid_fields(replace(amex, cvv="1234")) == []


class TestCardDetails:
    @pytest.mark.parametrize("kind", [CardDetails, client.CardDetails])
    def test_repr_hides_number_and_code(self, kind: type[CardDetails]) -> None:
        text = repr(kind("4242424242424242", 12, 2030, "123")) + str(kind("4242424242424242", 12, 2030, "123"))
        assert "4242" not in text
        assert "123" not in text
