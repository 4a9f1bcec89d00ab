import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.luhn import has_valid_check_digit
from wallet.texts import has_card_number, text_problem

CARD = "4242424242424242"


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Rent for March",
            "Аренда",
            "rent \U0001f3e0\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "שלום\u200f 5",
            "e\u0301",
        ],
    )
    def test_plain_text_emoji_and_right_to_left_marks_are_accepted(self, text: str) -> None:
        assert text_problem(text, 140) is None

    @pytest.mark.parametrize(
        "character", ["\0", "\n", "\t", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u2069", "\ud800"]
    )
    def test_control_characters_line_breaks_and_reordering_characters_are_refused(self, character: str) -> None:
        assert "must not contain control characters" in (text_problem(f"a{character}b", 140) or "")

    def test_length_is_counted_in_characters(self) -> None:
        assert text_problem("\U0001f600" * 140, 140) is None
        assert text_problem("\U0001f600" * 141, 140) == "must have at most 140 characters"

    def test_text_with_a_card_number_is_refused(self) -> None:
        assert text_problem(f"card {CARD}", 140) == "must not contain a card number"


class TestCardNumber:
    @pytest.mark.parametrize(
        "text",
        [
            CARD,
            "4242 4242 4242 4242",
            "4242-4242-4242-4242",
            "4242\u00a04242\u20134242 - 4242",
            "42424\u200b242424 24242",
            "no 5: 4242 4242 4242 4242, thanks",
            "5 4242424242424242",  # a neighbouring number does not hide the card number
            "4242424242424242 12/40 123",
            "4222222222222",  # 13 digits
            "6205500000000000004",  # 19 digits
            "\uff14\uff12" * 8,  # full-width digits
            "\u0664\u0662" * 8,  # Arabic digits
        ],
    )
    def test_card_number_is_found(self, text: str) -> None:
        assert has_card_number(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "4242424242424243",
            "424242424242",  # 12 digits
            "42424242424242424242",  # 20 digits: an account number
            "40817810099910004312",
            "4242 4242, 4242 4242",
            "4242x4242x4242x4242",
            "2026-11-30 12:00",
        ],
    )
    def test_other_numbers_are_no_card_numbers(self, text: str) -> None:
        assert not has_card_number(text)

    @given(st.text("0123456789", min_size=13, max_size=19), st.lists(st.integers(1, 18), max_size=6))
    def test_separators_do_not_change_the_result(self, digits: str, places: list[int]) -> None:
        parts = sorted({place for place in places if place < len(digits)})
        spaced = " ".join(digits[start:end] for start, end in zip([0, *parts], [*parts, len(digits)], strict=True))
        if has_valid_check_digit(digits):
            assert has_card_number(digits)
            assert has_card_number(spaced)
