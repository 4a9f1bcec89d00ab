"""Hypothesis strategies for idempotency keys, and the quoted form of a key."""

import re
from contextlib import AbstractContextManager
from typing import Final
from unittest.mock import patch

from hypothesis import strategies as st

from wallet import idempotency_key

PRINTABLE: Final = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
KEYS: Final = st.text(PRINTABLE, min_size=1, max_size=255)
BARE_KEYS: Final = KEYS.filter(
    lambda key: key == key.strip(" ") and not key.startswith('"') and not re.fullmatch(r"(.+?)( *, *\1)+", key)
)


def quote(key: str) -> str:
    """Return the key as a quoted string of RFC 8941."""
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def earlier_release() -> AbstractContextManager[object]:
    """Let the services of this process store each key as it is sent while the block runs, as earlier releases did."""
    return patch.object(idempotency_key, "is_raw_form", lambda _: False)
