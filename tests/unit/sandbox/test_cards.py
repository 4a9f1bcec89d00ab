from datetime import date
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openapi.acquirer import Brand
from sandbox.behaviours import FaultKind, Step
from sandbox.cards import APPROVE, CARDS, card_brand, find_card_error

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "test-cards.md"
TODAY = date(2026, 6, 15)


def problem(number: str = "4242424242424242", year: int = 2030, month: int = 1, cvv: str = "123") -> str | None:
    return find_card_error(number, (year, month), cvv, TODAY)


class TestTable:
    def test_reference_page_lists_the_same_cards(self) -> None:
        lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line[2].isdigit()]
        rows = [line.strip("| ").split(" | ") for line in lines]
        assert rows == [[number, card_brand(number), each.name, each.meaning] for number, each in CARDS.items()]

    @pytest.mark.parametrize("number", CARDS)
    def test_every_number_is_valid(self, number: str) -> None:
        assert problem(number, cvv="1234" if card_brand(number) is Brand.amex else "123") is None

    def test_each_behaviour_has_one_number_and_approval_one_per_brand(self) -> None:
        others = [each.name for each in CARDS.values() if each is not APPROVE]
        assert len(set(others)) == len(others)
        assert {card_brand(number) for number, each in CARDS.items() if each is APPROVE} == set(Brand) - {Brand.other}

    def test_cards_with_void_faults_refuse_captures(self) -> None:
        in_void = [each for each in CARDS.values() if Step.VOID in each.faults]
        assert in_void
        assert all(Step.CAPTURE in each.refuses for each in in_void)

    def test_only_authorizations_have_endless_or_late_faults(self) -> None:
        endless = {step for each in CARDS.values() for step, fault in each.faults.items() if fault.times is None}
        late = {step for each in CARDS.values() for step, fault in each.faults.items() if fault.kind is FaultKind.LATE}
        assert endless == {Step.AUTHORIZE}
        assert late == {Step.AUTHORIZE}


class TestCard:
    @given(st.integers(0, 15), st.integers(1, 9))
    def test_one_wrong_digit_is_detected(self, position: int, off: int) -> None:
        right = "4000000000010019"
        wrong = str((int(right[position]) + off) % 10)
        assert problem(right[:position] + wrong + right[position + 1 :]) == "number: is not a card number"

    @given(st.text(min_size=12, max_size=19))
    def test_number_with_other_characters_than_digits_is_refused(self, text: str) -> None:
        assume(not (text.isascii() and text.isdigit()))
        assert problem(text) == "number: is not a card number"

    @pytest.mark.parametrize(("year", "month", "is_good"), [(2026, 6, True), (2026, 5, False), (2025, 12, False)])
    def test_card_is_valid_to_the_end_of_its_last_month(self, year: int, month: int, is_good: bool) -> None:
        assert (problem(year=year, month=month) is None) == is_good

    @pytest.mark.parametrize(
        ("number", "cvv", "is_good"),
        [
            ("4242424242424242", "123", True),
            ("4242424242424242", "1234", False),
            ("378282246310005", "1234", True),
            ("378282246310005", "123", False),
            ("4242424242424242", "12a", False),
            ("4242424242424242", "١٢٣", False),
        ],
    )
    def test_security_code_has_the_length_of_its_brand(self, number: str, cvv: str, is_good: bool) -> None:
        assert (problem(number, cvv=cvv) is None) == is_good

    @pytest.mark.parametrize(
        ("number", "brand"),
        [
            ("4000000000000002", Brand.visa),
            ("5105105105105100", Brand.mastercard),
            ("2223003122003222", Brand.mastercard),
            ("2720990000000007", Brand.mastercard),
            ("2204000000000000", Brand.mir),
            ("2205000000000000", Brand.other),
            ("343434343434343", Brand.amex),
            ("8171999927660000", Brand.unionpay),
            ("6011111111111117", Brand.other),
        ],
    )
    def test_brand_follows_from_the_first_digits(self, number: str, brand: Brand) -> None:
        assert card_brand(number) is brand
