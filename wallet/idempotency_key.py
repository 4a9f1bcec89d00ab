"""Idempotency keys as clients send them: as bare text, or as a quoted string of RFC 8941."""

import re
from dataclasses import dataclass
from typing import Final

from wallet.inputs import IDEMPOTENCY_KEY_RULE, is_idempotency_key

_QUOTE: Final = '"'
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_WHITE_SPACE: Final = " \t"
_MAX_JOINED_LENGTH: Final = 512
"""Longer values are not searched for repeated keys. As keys, they are too long."""
_MARK: Final = "§"
"""Prefix of some stored keys. No client can send it, because it is not ASCII."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Key of a request.

    Attributes:
        text: the key, without white space around it, quotation marks and escapes.
        raw: the value as the client sent it, which earlier releases stored as the key; without the white space around
            it if they refused it with that space, for example a tab. Empty if `text` is equal to it.
    """

    text: str
    raw: str = ""


def parse_idempotency_key(value: str) -> IdempotencyKey:
    """Parse a key of REST or GraphQL. Spaces and tabs around the value are not part of the key.

    Raises:
        ValueError: the value looks like several header lines that were joined (see `_is_joined`); or it starts with a
            quotation mark but is not a string as in RFC 8941; or the key is empty, too long or not printable ASCII.
            The message completes a sentence that begins with the name of the field, for example "must be sent once".
    """
    stripped = value.strip(_WHITE_SPACE)
    text = _unquote(stripped)
    if text is None:
        if _is_joined(stripped):
            raise ValueError(
                "must be sent once; the value is one key several times, or one key and empty values, with commas "
                "between. If the whole value is the key, send it as one quoted string"
            )
        if stripped.startswith(_QUOTE):
            raise ValueError(
                "starts with a quotation mark, so it must be one quoted string of printable ASCII characters, with a "
                r'backslash before each " and \ in it, and nothing after it'
            )
        text = stripped
    if not is_idempotency_key(text):
        raise ValueError(IDEMPOTENCY_KEY_RULE)
    raw = value if is_idempotency_key(value) else stripped
    return IdempotencyKey(text, raw if raw != text else "")


def stored_forms(text: str, raw: str | None) -> tuple[str, str | None]:
    """Return the form in which this release stores a key, and the form in which an earlier release stored it.

    Earlier releases stored the value as it was sent. So a stored text such as `"k1"`, with its quotation marks, is an
    outcome of the key `k1`. This release stores a key whose text has such a form with a prefix that no client can send.
    Therefore the earlier form of a key never finds an outcome of this release.

    Args:
        text: the key.
        raw: the value as the client sent it, if it differs from the key.

    Returns:
        Both forms; None as the earlier form if the two are equal.
    """
    stored = _MARK + text if is_raw_form(text) else text
    earlier = text if raw is None else raw
    return stored, earlier if earlier != stored else None


def text_from_stored_form(stored: str) -> str:
    """Return the text of a key from the form in which this release stores it."""
    return stored.removeprefix(_MARK)


def is_raw_form(text: str) -> bool:
    """Return whether the text can be the raw form of a key: `parse_idempotency_key(text).raw` is the text."""
    if text[:1] not in {_QUOTE, " "} and text[-1:] != " ":
        return False
    try:
        return parse_idempotency_key(text).raw == text
    except ValueError:
        return False


def _unquote(value: str) -> str | None:
    """Return the text of a quoted string; None if the value is not exactly one quoted string."""
    match = _STRING.fullmatch(value)
    return None if match is None else _ESCAPED.sub(r"\1", match[1])


def _is_joined(value: str) -> bool:
    """Return whether the value is several lines of one key, or of one key and empty lines, with commas between.

    `fetch` and proxies join header lines in this way. A line is empty, or it is the key, quoted or bare. The key may
    have commas too. Its quoted and its bare form have the same number of commas, so all lines with the key have the
    same number of parts.
    """
    if "," not in value or len(value) > _MAX_JOINED_LENGTH:
        return False
    parts = value.split(",")
    if _is_empty(parts[0]) or _is_empty(parts[-1]):
        return True
    return any(_is_one_key(parts, size) for size in range(1, len(parts) // 2 + 1))


def _is_one_key(parts: list[str], size: int) -> bool:
    """Return whether the first `size` parts are a key, and each further line is this key or empty."""
    key = _read_element(parts[:size])
    start = size
    while start < len(parts):
        if _read_element(parts[start : start + size]) == key:
            start += size
        elif _is_empty(parts[start]):
            start += 1
        else:
            return False
    return True


def _is_empty(part: str) -> bool:
    return _read_element([part]) == ""


def _read_element(parts: list[str]) -> str:
    element = ",".join(parts).strip(_WHITE_SPACE)
    text = _unquote(element)
    return element if text is None else text
