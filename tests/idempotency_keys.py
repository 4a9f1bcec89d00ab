"""Hypothesis strategies for idempotency keys, the quoted form of a key, and a model of joined header lines."""

import re
from contextlib import AbstractContextManager
from itertools import product
from typing import Final
from unittest.mock import patch

from hypothesis import strategies as st

from wallet import idempotency_key

PRINTABLE: Final = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
KEYS: Final = st.text(PRINTABLE, min_size=1, max_size=255)
BARE_KEYS: Final = KEYS.filter(
    lambda key: key == key.strip(" ") and not key.startswith('"') and key.count(",") <= 8 and not is_joined(key)
)


def is_joined(value: str) -> bool:
    """Return whether the value can be split at commas into two or more lines that are one key or empty.

    It tries all ways to split the value, so the value must be short or have few commas.
    """
    parts = value.split(",")
    for cuts in product((False, True), repeat=len(parts) - 1):
        lines = [parts[0]]
        for part, is_cut in zip(parts[1:], cuts, strict=True):
            lines[-1:] = [lines[-1], part] if is_cut else [f"{lines[-1]},{part}"]
        if len(lines) > 1 and len({_key_of(line.strip(" \t")) for line in lines} - {""}) <= 1:
            return True
    return False


def _key_of(line: str) -> str:
    """Return the text of a quoted string, and any other line unchanged."""
    if not re.fullmatch(r'"([^"\\]|\\["\\])*"', line):
        return line
    return re.sub(r"\\(.)", r"\1", line[1:-1])


def quote(key: str) -> str:
    """Return the key as a quoted string of RFC 8941."""
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def earlier_release() -> AbstractContextManager[object]:
    """Let the services of this process store each key as it is sent while the block runs, as earlier releases did."""
    return patch.object(idempotency_key, "is_raw_form", lambda _: False)
