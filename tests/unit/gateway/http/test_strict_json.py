"""Strict JSON parsing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.strict_json import MalformedJSONError, loads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\u00e9", max_size=3), inner, max_size=3),
)


@given(JSON)
def test_valid_json_is_parsed_unchanged(value: Any) -> None:
    assert loads(json.dumps(value).encode()) == value


@given(st.lists(st.tuples(st.text("ab\u00e9", max_size=2), st.integers(0, 999)), min_size=1, max_size=4))
def test_duplicate_names_are_rejected_in_compact_json(pairs: list[tuple[str, int]]) -> None:
    """Compact JSON has a faster path: the second parse is left out if orjson writes the same text."""
    members = ",".join(f'"{name}":{value}' for name, value in pairs)
    text = f'[{{"a":{{{members}}}}}]'
    if len(dict(pairs)) == len(pairs):
        assert loads(text) == loads(text.encode()) == [{"a": dict(pairs)}]
    else:
        for each in (text, text.encode()):
            with pytest.raises(MalformedJSONError, match=r"^has a duplicate name"):
                loads(each)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"[1] 2", "must be JSON"),
        (b'{"amount": NaN}', "must be JSON"),
        (b'{"amount": Infinity}', "must be JSON"),
        (b'"\xff"', "must be JSON in UTF-8"),
        (b'"\\ud800"', "must not have a lone surrogate"),
        (b'{"\\udfff": 1}', "must not have a lone surrogate"),
        (b'\xef\xbb\xbf{"a": 1}', "must not begin with a byte order mark"),
        (b"[1e400]", "must not have a number above 1e308"),
        (b'"\x00"', "must be JSON"),
        (b"[" * 30_000 + b"]" * 30_000, "is nested too deeply"),
        (b'{"a":' * 1_500 + b"1" + b"}" * 1_500, "is nested too deeply"),
        (b'{"a":' * 1_020 + b"1" + b"}" * 1_020, "is nested too deeply"),
        (b'{"amount": "1", "amount": "1000"}', "has a duplicate name"),
        (b'{"amount": "1", "am\\u006funt": "1000"}', "has a duplicate name"),
        (b'{"input": [{"a": 1, "a": 1}]}', "has a duplicate name"),
    ],
)
def test_ambiguous_or_invalid_json_is_rejected(text: bytes, message: str) -> None:
    with pytest.raises(MalformedJSONError, match=f"^{message}"):
        loads(text)
