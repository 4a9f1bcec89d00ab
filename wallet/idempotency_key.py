"""Idempotency keys as clients send them: as bare text, or as a quoted string of RFC 8941."""

import re
from dataclasses import dataclass
from typing import Final

from wallet.inputs import IDEMPOTENCY_KEY_RULE, is_idempotency_key

_QUOTE: Final = '"'
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_WHITE_SPACE: Final = " \t"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Key of a request.

    Attributes:
        text: the key, without white space around it, quotation marks and escapes.
        raw: the value as the client sent it, which earlier releases stored as the key; empty if it is equal to
            `text`, or if earlier releases refused it.
    """

    text: str
    raw: str = ""


def parse_idempotency_key(value: str) -> IdempotencyKey:
    """Parse a key of REST or GraphQL. Spaces and tabs around the value are not part of the key.

    Raises:
        ValueError: the value starts with a quotation mark but is not a string as in RFC 8941; or a bare value is the
            same text twice with a comma between; or the key is empty, too long or not printable ASCII. The message
            completes a sentence that begins with the name of the field, for example "must be sent once".
    """
    text = value.strip(_WHITE_SPACE)
    if text.startswith(_QUOTE):
        match = _STRING.fullmatch(text)
        if match is None:
            raise ValueError(
                "starts with a quotation mark, so it must be one quoted string of printable ASCII characters, with a "
                r'backslash before each " and \ in it, and nothing after it'
            )
        text = _ESCAPED.sub(r"\1", match[1])
    elif _is_repeated(text):
        raise ValueError(
            "must be sent once; the value is the same text twice, with a comma between. If the whole value is the "
            "key, send it in quotation marks"
        )
    if not is_idempotency_key(text):
        raise ValueError(IDEMPOTENCY_KEY_RULE)
    return IdempotencyKey(text, value if value != text and is_idempotency_key(value) else "")


def _is_repeated(value: str) -> bool:
    """Return whether the value is the same text twice with a comma between.

    `fetch` and proxies join two header lines in this way.
    """
    parts = value.split(",")
    half, odd = divmod(len(parts), 2)
    first, second = ",".join(parts[:half]).rstrip(_WHITE_SPACE), ",".join(parts[half:]).lstrip(_WHITE_SPACE)
    return not odd and first == second != ""
