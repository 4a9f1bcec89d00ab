"""Syntax of idempotency keys, in REST and GraphQL."""

import re
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.idempotency_keys import BARE_KEYS, KEYS, is_joined, quote
from wallet.idempotency_key import IdempotencyKey, parse_idempotency_key, stored_forms, text_from_stored_form

WHITE_SPACE: Final = st.text(" \t", max_size=3)


class TestBareKeys:
    @given(BARE_KEYS, WHITE_SPACE, WHITE_SPACE)
    def test_bare_key_is_the_value_without_white_space_around_it(self, key: str, before: str, after: str) -> None:
        assert parse_idempotency_key(before + key + after).text == key

    @pytest.mark.parametrize(
        ("value", "raw"),
        [
            ("k1", ""),
            ("k1 ", "k1 "),
            ("  k1", "  k1"),
            ("k1\t", ""),
            ('\t"k1"', '"k1"'),
            (" " + "x" * 255, ""),
            (" " + "x" * 254, " " + "x" * 254),
        ],
    )
    def test_raw_form_is_the_value_that_earlier_releases_stored(self, value: str, raw: str) -> None:
        assert parse_idempotency_key(value) == IdempotencyKey(value.strip().strip('"'), raw)

    @pytest.mark.parametrize("key", ["k1", 'k"1', 'k"', "a,b", "a;b=1", "a\\b", "'k'", ":AQ==:", "?1", "x" * 255])
    def test_bare_key_with_special_characters_is_unchanged(self, key: str) -> None:
        assert parse_idempotency_key(key) == IdempotencyKey(key)

    @pytest.mark.parametrize(
        "value",
        [
            "k1, k2",
            "k1, k1, k2",
            "k1,,k2",
            'k1, " k1"',
            "k1,k11",
            "kk1,k1",
            "a,,b",
            "a,b,a",
            "k1;k1",
            "k1k1",
        ],
    )
    def test_comma_between_different_texts_is_part_of_the_key(self, value: str) -> None:
        assert parse_idempotency_key(value) == IdempotencyKey(value)

    @pytest.mark.parametrize("key", ["", " ", "\t", "x" * 256, "a\tb", "a\x7fb", "é"])
    def test_invalid_bare_key_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match=r"^must be 1 to 255 printable ASCII characters$"):
            parse_idempotency_key(key)


@st.composite
def joined_lines(draw: st.DrawFn) -> str:
    """Draw a value that a proxy makes of several header lines: one key, quoted or bare, and empty lines."""
    key = draw(KEYS)
    is_bare = key == key.strip() and not key.startswith('"')
    forms = st.sampled_from([quote(key), key] if is_bare else [quote(key)])
    filled = draw(st.lists(forms, min_size=1, max_size=4))
    empty = draw(st.lists(st.sampled_from(["", '""']), min_size=len(filled) == 1, max_size=3))
    lines = draw(st.permutations([*filled, *empty]))
    return ",".join(draw(WHITE_SPACE) + line + draw(WHITE_SPACE) for line in lines)


class TestJoinedLines:
    """`fetch` and proxies join header lines with commas."""

    @given(joined_lines().filter(lambda value: len(value) <= 512))
    @example("k1, k1")
    @example("k,k,k")
    @example("k, k, k, k, k")
    @example('k, "k"')
    @example('"k", k')
    @example('"k", "k"')
    @example("a,b, a,b, a,b")
    @example('a,b ,\t"a,b"')
    @example("x" * 127 + "," + "x" * 127)
    @example("k,")
    @example(", k")
    @example(',"k"')
    @example('"k",')
    @example("k,,k")
    @example("k,k,,k")
    @example("a,b,")
    @example("a,b,,a,b")
    @example('k, ""')
    @example(",")
    @example('a,, "a,"')
    def test_one_key_several_times_or_beside_empty_lines_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"^must be sent once; the value is one key several times"):
            parse_idempotency_key(value)

    @given(st.text('kj,, "\\\t', max_size=12))
    def test_value_is_refused_as_joined_if_and_only_if_it_can_be_split_into_lines_of_one_key(self, value: str) -> None:
        message = ""
        try:
            parse_idempotency_key(value)
        except ValueError as error:
            message = str(error)
        stripped = value.strip(" \t")
        is_string = re.fullmatch(r'"([^"\\\t]|\\["\\])*"', stripped) is not None
        assert message.startswith("must be sent once") == (is_joined(stripped) and not is_string)

    def test_long_value_is_refused_without_a_search(self) -> None:
        with pytest.raises(ValueError, match=r"^must be 1 to 255 printable ASCII characters$"):
            parse_idempotency_key(",".join("k" * 100_000))


class TestQuotedKeys:
    @given(KEYS, WHITE_SPACE, WHITE_SPACE)
    def test_quoted_key_is_its_unescaped_text(self, key: str, before: str, after: str) -> None:
        value = before + quote(key) + after
        is_stored = len(value) <= 255 and "\t" not in value
        assert parse_idempotency_key(value) == IdempotencyKey(key, value if is_stored else quote(key))

    @given(BARE_KEYS)
    def test_quoted_and_bare_form_are_one_key(self, key: str) -> None:
        assert parse_idempotency_key(quote(key)).text == parse_idempotency_key(key).text

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ('"k1"', "k1"),
            (r'"a\"b"', 'a"b'),
            (r'"a\\b"', r"a\b"),
            (r'"\\\""', r"\""),
            ('" k "', " k "),
            ('"a, b"', "a, b"),
        ],
    )
    def test_escapes_are_removed(self, value: str, key: str) -> None:
        assert parse_idempotency_key(value) == IdempotencyKey(key, value)

    @pytest.mark.parametrize(
        "value",
        ['"', '"k1', '"k1\\"', '"k1" x', '"k1""k2"', '"k1", "k2"', '"k1";a=1', r'"a\b"', '"a\tb"', '"é"', '"a\\'],
    )
    def test_malformed_string_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"^starts with a quotation mark, so it must be one quoted string"):
            parse_idempotency_key(value)

    @pytest.mark.parametrize("key", ["", "x" * 256])
    def test_invalid_quoted_key_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match=r"^must be 1 to 255 printable ASCII characters$"):
            parse_idempotency_key(quote(key))


VALUES: Final = st.text('k" \\\t', max_size=8) | KEYS | KEYS.map(quote) | KEYS.map(quote).map(quote)


def parse_if_valid(value: str) -> IdempotencyKey | None:
    try:
        return parse_idempotency_key(value)
    except ValueError:
        return None


class TestStoredForms:
    @given(VALUES, VALUES)
    def test_keys_of_this_release_are_equal_in_the_store_if_and_only_if_their_texts_are(self, a: str, b: str) -> None:
        assert (stored_forms(a, None)[0] == stored_forms(b, None)[0]) == (a == b)

    @given(VALUES, VALUES)
    @example(r'"\"x\""', '"x"')
    @example('" x "', " x ")
    @example('" x "', '\t"\\" x \\""')
    def test_earlier_form_is_never_a_key_that_this_release_stored_for_another_text(self, a: str, b: str) -> None:
        stored, looked_up = parse_if_valid(a), parse_if_valid(b)
        if stored is None or looked_up is None or stored.text == looked_up.text:
            return
        key, _ = stored_forms(stored.text, stored.raw or None)
        assert key not in stored_forms(looked_up.text, looked_up.raw or None)

    @given(VALUES)
    def test_raw_form_is_looked_up_as_it_was_sent(self, value: str) -> None:
        key = parse_if_valid(value)
        if key is not None and key.raw:
            assert stored_forms(key.text, key.raw)[1] == key.raw

    @pytest.mark.parametrize("text", ["k1", 'k"1', '"k1', "  ", "a, a"])
    def test_text_that_is_no_raw_form_is_stored_unchanged(self, text: str) -> None:
        assert stored_forms(text, None) == (text, None)

    @pytest.mark.parametrize("text", ['"k1"', " k1", "k1 ", '" k1 "'])
    def test_text_that_is_a_raw_form_is_stored_in_a_form_that_no_client_sends(self, text: str) -> None:
        stored, earlier = stored_forms(text, None)
        assert not stored.isascii()
        assert (text_from_stored_form(stored), earlier) == (text, text)
