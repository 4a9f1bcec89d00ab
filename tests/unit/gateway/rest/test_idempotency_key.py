"""The header `Idempotency-Key`: a request with several of them, and the pattern in the OpenAPI document."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from gateway.rest.idempotency_key import read_idempotency_key
from tests.idempotency_keys import BARE_KEYS, KEYS, PRINTABLE, quote
from tests.openapi import REST
from wallet.errors import InvalidInput
from wallet.idempotency_key import IdempotencyKey, parse_idempotency_key
from wallet.inputs import FieldParser


def read(*lines: str) -> IdempotencyKey:
    raw = [(b"idempotency-key", line.encode("latin-1")) for line in lines]
    with FieldParser() as fields:
        return read_idempotency_key(Headers(raw=[(b"accept", b"*/*"), *raw]), fields)


class TestLines:
    @pytest.mark.parametrize("line", ['"k1"', ' "k1"', '"k1" \t'])
    def test_white_space_around_the_line_is_no_part_of_the_raw_form(self, line: str) -> None:
        assert read(line) == IdempotencyKey("k1", '"k1"')

    def test_white_space_around_a_bare_key_is_no_raw_form(self) -> None:
        assert read(" k1 ") == IdempotencyKey("k1")

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
