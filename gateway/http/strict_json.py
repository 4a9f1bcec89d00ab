"""JSON as two readers cannot read it differently."""

import json
from typing import Any, Final

import orjson


class MalformedError(ValueError):
    """What is no JSON, or more than one. The message is for people and repeats nothing of the text."""


def decoded(text: bytes | str) -> Any:
    """The value of a JSON text (RFC 8259) in which every name of an object stands once.

    Raises:
        MalformedError: it is none; holds half a character, which no UTF-8 can; is nested too deeply; or a name is twice
            in one object, so that what it says would be up to its reader.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedError("must be JSON") from None
    try:
        _ONCE.decode(text if isinstance(text, str) else text.decode())  # orjson takes the last one of the same name
    except RecursionError:
        raise MalformedError("is nested too deeply") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise MalformedError("has a name twice in one object")


_ONCE: Final = json.JSONDecoder(object_pairs_hook=_once)
