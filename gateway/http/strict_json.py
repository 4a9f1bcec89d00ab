"""Strict JSON parsing: rejects duplicate names and lone surrogates."""

import json
from typing import Any, Final

import orjson


class MalformedJSONError(ValueError):
    """The text is not one strict JSON value. The message is shown to callers and does not quote the text."""


def loads(text: bytes | str) -> Any:
    """Parse one JSON text (RFC 8259) without duplicate names in its objects.

    orjson is strict about the syntax, but it silently keeps the last of duplicate names. So the text is parsed twice,
    unless orjson writes the value as the same text, which shows that no name was dropped. Most clients send JSON in the
    form that orjson writes.

    Raises:
        MalformedJSONError: the text is not JSON, contains a lone surrogate, is nested too deeply, or has a duplicate
            name in an object. Two parsers may read a duplicate name differently.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedJSONError(_describe(text)) from None
    if _is_written_as(value, text if isinstance(text, bytes) else text.encode()):
        return value
    try:
        _DUPLICATE_CHECKER.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise MalformedJSONError("is nested too deeply") from None
    return value


def _is_written_as(value: Any, text: bytes) -> bool:
    try:
        return orjson.dumps(value) == text
    except orjson.JSONEncodeError:  # the value is nested too deeply for orjson
        return False


def _describe(text: bytes | str) -> str:
    """Return the reason why orjson refuses a text, which other parsers may accept."""
    try:
        decoded = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError:
        return "must be JSON in UTF-8"
    if decoded.startswith(_BYTE_ORDER_MARK):
        return "must not begin with a byte order mark"
    try:
        value = json.loads(decoded, parse_constant=_reject_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        return "is nested too deeply"
    except UnicodeEncodeError:
        return "must not have a lone surrogate (\\ud800 to \\udfff)"
    except ValueError:
        return "must be JSON"
    return "must not have a number above 1e308"


def _reject_constant(name: str) -> None:
    raise ValueError(name)


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise MalformedJSONError("has a duplicate name in one object")


_BYTE_ORDER_MARK: Final = "\ufeff"
_DUPLICATE_CHECKER: Final = json.JSONDecoder(object_pairs_hook=_reject_duplicate_names)
