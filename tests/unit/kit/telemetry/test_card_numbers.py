"""Card numbers in text are masked, other numbers are not."""

import itertools
import re
import uuid

import orjson
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
    "42424242 42424242",
)

GROUPS = (
    ("4222222222222",),
    ("4242424242424242",),
    ("4242", "4242", "4242", "4242"),
    ("3782", "822463", "10005"),
    ("6205", "5000", "0000", "0000", "004"),
    ("42424242", "42424242"),
    ("4222", "2222", "22222"),
)
SEPARATORS = (
    *" -._:/+\t\u00a0\u2009\u200b\u2010\u2011\u2013\u2014\u202f\u2212\u3000",
    "  ",
    " - ",
    "%20",
    "%2D",
    "%C2%A0",
    "%E2%80%93",
)
NEIGHBOURS = ("", "a", "f", "-", "-a", '"', "'", '{"x":"', '"}', "_", "=", "/", "\u00a0")
BEFORE = (*NEIGHBOURS, "card-", "a-", "1-", "2026-", "%22", "%20", "\u2028", "\x01")
AFTER = (*NEIGHBOURS, "-1", "-123", "-exp", "%22", "%20", " 12/40")


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("text", ["CARD", "xCARDy", "ACARDb", "_CARD_", "/x/CARD?", "\x1b[35mCARD\x1b[0m", "CARD 737"])
def test_card_number_next_to_other_characters_is_masked(card: str, text: str) -> None:
    masked = "".join("9" if each.isdigit() else each for each in card)
    assert mask_card_numbers(text.replace("CARD", card).encode()) == text.replace("CARD", masked).encode()
    assert has_card_number(text.replace("CARD", card))


@pytest.mark.parametrize(
    "text", ["card-CARD", "visa-CARD", "mastercard-CARD", "a-CARD", "1-CARD", "CARD-exp", "CARD-123"]
)
def test_hyphen_next_to_a_card_number_does_not_hide_it(text: str) -> None:
    for card in CARDS:
        masked = mask_card_numbers(text.replace("CARD", card).encode()).decode()
        assert re.sub(r"\d", "9", card) in masked


@pytest.mark.parametrize("separator", SEPARATORS)
def test_card_number_with_any_separator_is_masked(separator: str) -> None:
    for groups in GROUPS:
        text = separator.join(groups)
        masked = separator.join("9" * len(each) for each in groups)
        assert mask_card_numbers(text.encode()).decode() == masked
        assert has_card_number(text)


@pytest.mark.parametrize("escape", ["%22", "%20", "%2F", "100%", r"\x85", r"\u2028"])
@pytest.mark.parametrize("card", CARDS)
def test_escape_before_a_card_number_does_not_hide_it(escape: str, card: str) -> None:
    assert mask_card_numbers((escape + card).encode()).endswith(re.sub(r"\d", "9", card).encode())


@given(
    before=st.text(st.characters(exclude_categories=["Nd", "Cs"])),
    left=st.sampled_from(BEFORE),
    groups=st.sampled_from(GROUPS),
    separators=st.lists(st.sampled_from(SEPARATORS), min_size=5, max_size=5),
    right=st.sampled_from(AFTER),
    after=st.text(st.characters(exclude_categories=["Nd", "Cs"])),
    as_json=st.booleans(),
)
def test_card_number_in_any_text_is_masked(
    before: str, left: str, groups: tuple[str, ...], separators: list[str], right: str, after: str, as_json: bool
) -> None:
    card = "".join(itertools.chain(*zip(groups, separators, strict=False)))[: -len(separators[len(groups) - 1])]
    text = f"{before}{left}{card}{right}{after}"
    line = orjson.dumps({"path": text, "status": 200}) if as_json else text.encode()
    written = orjson.dumps(card)[1:-1] if as_json else card.encode()
    assert written in line
    masked = mask_card_numbers(line)
    assert len(masked) == len(line)
    assert written not in masked
    place = line.index(written)
    assert not re.search(rb"[0-8]", re.sub(rb"%[0-9A-F]{2}", b"", masked[place : place + len(written)]))


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
        "AAAA4242-4242-4242-4242-ABCDEF123456",
        "2026-11-30T08:30:33.123456Z",
        "2026-11-30 08:30:33.123456+00:00",
        "1764514593.123456",
        "1764514593.125",
        "12345678901.21 RUB",
        "192.168.100.101:54321",
        "1000.00 2000.00 3000.00 4000.00",
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
