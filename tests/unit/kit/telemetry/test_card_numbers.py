"""Card numbers in text are masked, other numbers are not."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.telemetry.card_numbers import has_card_number, mask_card_numbers

CARDS = (
    "4222222222222",
    "378282246310005",
    "4242424242424242",
    "6205500000000000004",
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "3782 822463 10005",
    "3782-822463-10005",
    "6205 5000 0000 0000 004",
)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("text", ["CARD", "xCARDy", "ACARDb", "_CARD_", "/x/CARD?", "\x1b[35mCARD\x1b[0m", "CARD 737"])
def test_card_number_next_to_other_characters_is_masked(card: str, text: str) -> None:
    masked = "".join("9" if each.isdigit() else each for each in card)
    assert mask_card_numbers(text.replace("CARD", card).encode()) == text.replace("CARD", masked).encode()
    assert has_card_number(text.replace("CARD", card))


@pytest.mark.parametrize("text", ["4242424242424242" * 2, "4242424242424242" + "0128" + "737"])
def test_longer_sequence_of_digits_with_a_card_number_is_masked_completely(text: str) -> None:
    assert mask_card_numbers(text.encode()) == b"9" * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "1234567890123456",  # wrong check digit
        "4242424242424241",
        "4242 4242 4242 4241",
        "424242424242",
        "aaaa4242424242424242aaaaaaaaaaaa",  # a trace id
        "aaaa4242424242424242aaaaaaaaaaaa" * 2,  # a hash
        "00-aaaa4242424242424242aaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01",
        "abcd4242-4242-4242-4242-abcdef123456",
        "00004242-4242-4242-4242-424242424242",
        "2026-11-30T08:30:33.123456Z",
    ],
)
def test_other_number_is_not_masked(text: str) -> None:
    assert mask_card_numbers(text.encode()) == text.encode()
    assert not has_card_number(text)


@given(st.uuids(version=4), st.sampled_from(["{}", "/accounts/{}/operations", '"{}","{}"']))
def test_ids_are_not_masked(id_: uuid.UUID, text: str) -> None:
    for each in (str(id_), id_.hex.replace("0", "a")):
        line = text.replace("{}", each).encode()
        assert mask_card_numbers(line) == line


def test_long_line_of_card_numbers_is_masked() -> None:
    groups = b"4242 4242 4242 4242 " * 10_000
    assert mask_card_numbers(groups) == b"9999 9999 9999 9999 " * 10_000
