"""The header `Idempotency-Key`: a bare key, or a quoted key, which is a string as in RFC 8941."""

import re
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from wallet.inputs import IDEMPOTENCY_KEY_RULE, MAX_KEY_LENGTH, FieldParser, is_idempotency_key

_NAME: Final = "Idempotency-Key"
_QUOTE: Final = '"'
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Key of a request.

    Attributes:
        text: the key, without quotation marks and escapes.
        raw: the quoted value, which earlier releases stored as the key; empty for a bare key, and for a value that is
            too long for an earlier release.
    """

    text: str
    raw: str = ""


def read_idempotency_key(headers: Headers, fields: FieldParser) -> IdempotencyKey:
    """Return the key of a request. The request must have the header exactly once."""
    return fields.parse(_NAME, _parse_lines, headers.getlist(_NAME))


def _parse_lines(lines: list[str]) -> IdempotencyKey:
    if not lines:
        raise ValueError("is required; choose a new key for each intended effect")
    if len(lines) > 1:
        raise ValueError(f"must be sent once; the request has it {len(lines)} times")
    return parse_idempotency_key(lines[0])


def parse_idempotency_key(value: str) -> IdempotencyKey:
    """Parse the value of the header. Spaces and tabs around the value are ignored.

    Raises:
        ValueError: the value starts with a quotation mark but is not a string as in RFC 8941; or a bare value is one
            text twice with a comma between; or the key is empty, too long or not printable ASCII. The message is the
            rest of a sentence that begins with the header's name.
    """
    value = value.strip(" \t")
    if not value.startswith(_QUOTE):
        if _is_repeated(value):
            raise ValueError(
                "must be sent once; the value is the same text twice, with a comma between. If the whole value is the "
                "key, send it in quotation marks"
            )
        return IdempotencyKey(_checked(value))
    match = _STRING.fullmatch(value)
    if match is None:
        raise ValueError(
            "starts with a quotation mark, so it must be one quoted string of printable ASCII characters, with a "
            r'backslash before each " and \ in it, and nothing after it'
        )
    return IdempotencyKey(_checked(_ESCAPED.sub(r"\1", match[1])), value if len(value) <= MAX_KEY_LENGTH else "")


def _is_repeated(value: str) -> bool:
    """Return whether the value is one text twice. `fetch` and proxies join two header lines with a comma."""
    parts = value.split(",")
    half, odd = divmod(len(parts), 2)
    first, second = ",".join(parts[:half]).rstrip(" \t"), ",".join(parts[half:]).lstrip(" \t")
    return not odd and first == second != ""


def _checked(key: str) -> str:
    if not is_idempotency_key(key):
        raise ValueError(IDEMPOTENCY_KEY_RULE)
    return key
