"""Syntax of the header `Idempotency-Key`."""

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from gateway.rest.idempotency_key import IdempotencyKey, parse_idempotency_key, read_idempotency_key
from tests.openapi import REST
from wallet.errors import InvalidInput
from wallet.inputs import FieldParser

PRINTABLE: Final = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
KEYS: Final = st.text(PRINTABLE, min_size=1, max_size=255)
BARE_KEYS: Final = KEYS.filter(
    lambda key: key == key.strip(" ") and not key.startswith('"') and not re.fullmatch(r"(.+?) *, *\1", key)
)
WHITE_SPACE: Final = st.text(" \t", max_size=3)


def quote(key: str) -> str:
    """Return the key as a quoted string of RFC 8941."""
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read(*lines: str) -> IdempotencyKey:
    raw = [(b"idempotency-key", line.encode("latin-1")) for line in lines]
    with FieldParser() as fields:
        return read_idempotency_key(Headers(raw=[(b"accept", b"*/*"), *raw]), fields)


class TestBareKeys:
    @given(BARE_KEYS, WHITE_SPACE, WHITE_SPACE)
    def test_bare_key_is_the_value_without_white_space_around_it(self, key: str, before: str, after: str) -> None:
        assert parse_idempotency_key(before + key + after) == IdempotencyKey(key)

    @pytest.mark.parametrize("key", ["k1", 'k"1', 'k"', "a,b", "a;b=1", "a\\b", "'k'", ":AQ==:", "?1", "x" * 255])
    def test_bare_key_with_special_characters_is_unchanged(self, key: str) -> None:
        assert parse_idempotency_key(key) == IdempotencyKey(key)

    @pytest.mark.parametrize("value", ["k1, k1", "k1,k1", " k1 ,\tk1 ", "a,b, a,b", "x" * 127 + "," + "x" * 127])
    def test_key_twice_with_a_comma_is_refused(self, value: str) -> None:
        """`fetch` and proxies join two header lines with a comma."""
        with pytest.raises(ValueError, match=r"^must be sent once; the value is the same text twice"):
            parse_idempotency_key(value)

    @pytest.mark.parametrize("value", ["k1, k2", "k1,k11", "kk1,k1", "k1,", ",k1", ",", ",,", "k1;k1", "k1k1"])
    def test_comma_between_different_texts_is_part_of_the_key(self, value: str) -> None:
        assert parse_idempotency_key(value) == IdempotencyKey(value)

    @pytest.mark.parametrize("key", ["", " ", "\t", "x" * 256, "a\tb", "a\x7fb", "é"])
    def test_invalid_bare_key_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match=r"^must be 1 to 255 printable ASCII characters$"):
            parse_idempotency_key(key)


class TestQuotedKeys:
    @given(KEYS, WHITE_SPACE, WHITE_SPACE)
    def test_quoted_key_is_its_unescaped_text(self, key: str, before: str, after: str) -> None:
        value = quote(key)
        parsed = parse_idempotency_key(before + value + after)
        assert parsed == IdempotencyKey(key, value if len(value) <= 255 else "")

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


class TestLines:
    def test_one_line_is_read(self) -> None:
        assert read('"k1"') == IdempotencyKey("k1", '"k1"')

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ((), "Idempotency-Key: is required; choose a new key for each intended effect"),
            (("k1", "k1"), "Idempotency-Key: must be sent once; the request has it 2 times"),
            (("k1", '"k2"', ""), "Idempotency-Key: must be sent once; the request has it 3 times"),
        ],
    )
    def test_other_numbers_of_lines_are_refused(self, lines: tuple[str, ...], message: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            read(*lines)
        assert caught.value.message == message


class TestContract:
    @given(st.text(PRINTABLE, max_size=8) | st.text('"\\ k', max_size=8) | BARE_KEYS | KEYS.map(quote))
    def test_contract_allows_exactly_the_values_that_are_accepted(self, value: str) -> None:
        schema = REST.parameter_schema("IdempotencyKey")
        try:
            is_accepted = value == value.strip(" ") and bool(parse_idempotency_key(value))
        except ValueError:
            is_accepted = False
        is_allowed = schema["minLength"] <= len(value) <= schema["maxLength"] and re.search(schema["pattern"], value)
        assert bool(is_allowed) == is_accepted
