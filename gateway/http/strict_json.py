"""Strict JSON parsing: rejects duplicate names and lone surrogates."""

import json
from typing import Any, Final

import orjson


class MalformedJSONError(ValueError):
    """The text is not one strict JSON value. The message is shown to callers and quotes nothing of the text."""


def loads(text: bytes | str) -> Any:
    """Parse one JSON text (RFC 8259) without duplicate names in its objects.

    The text is parsed twice: orjson is strict about the syntax, but it silently keeps the last of duplicate names.

    Raises:
        MalformedJSONError: the text is not JSON, contains a lone surrogate, is nested too deeply, or has a duplicate
            name in an object. Two parsers may read a duplicate name differently.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedJSONError("must be JSON") from None
    try:
        _DUPLICATE_CHECKER.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise MalformedJSONError("is nested too deeply") from None
    return value


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise MalformedJSONError("has a duplicate name in one object")


_DUPLICATE_CHECKER: Final = json.JSONDecoder(object_pairs_hook=_reject_duplicate_names)
