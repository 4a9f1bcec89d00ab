"""What may change in a schema that has readers: words for people, and optional properties, which may be added.

The rule is stricter than "every old event is still valid". Readers generate code and tables from the schemas, so a name
or a type is kept even where a validator would not mind, and what was promised is never loosened: a reader that checks
what it gets would refuse the event. That goes for a new member of an enum, too.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

_WORDS: Final = frozenset({"$comment", "deprecated", "description", "examples"})
"""Keywords that no reader acts on. Not `title` and `default`: generated code is made of them."""

_NAMED: Final = frozenset({"$defs", "properties"})
"""Keywords that hold schemas by name."""

_NESTED: Final = frozenset({"additionalProperties", "items"})
"""Keywords that hold one schema."""

_CLOSING: Final = frozenset(
    {"additionalProperties", "maxProperties", "patternProperties", "propertyNames", "unevaluatedProperties"}
)
"""Keywords by which a reader of the old schema would judge a property that it does not know."""


def breaking_changes(old: Schema, new: Schema, at: str = "#") -> Iterator[str]:
    """Whatever makes `new` more than `old` with optional properties added: where it is, as a JSON pointer into the
    schema, and what it is. Nothing, when readers of `old` may be sent events of `new` and the other way round.
    """
    for keyword in sorted((old.keys() | new.keys()) - _WORDS):
        before, after, here = old.get(keyword), new.get(keyword), f"{at}/{keyword}"
        if keyword in _NAMED:
            yield from _by_name(before or {}, after or {}, here)
            if keyword == "properties":
                yield from _additions(old, new, at)
        elif keyword == "required":
            yield from _required(before or [], after or [], at)
        elif keyword in _NESTED and isinstance(before, dict) and isinstance(after, dict):
            yield from breaking_changes(before, after, here)
        elif keyword not in new:
            yield f"{here}: is gone, was {_text(before)}"
        elif keyword not in old:
            yield f"{here}: is new, {_text(after)}"
        elif _text(before) != _text(after):
            yield f"{here}: is {_text(after)}, was {_text(before)}"


def _by_name(old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[str]:
    for name, before in old.items():
        here, after = f"{at}/{_escaped(name)}", new.get(name)
        if name not in new:
            yield f"{here}: is gone (a new name is a removal, too)"
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from breaking_changes(before, after, here)
        elif _text(before) != _text(after):
            yield f"{here}: is {_text(after)}, was {_text(before)}"


def _additions(old: Schema, new: Schema, at: str) -> Iterator[str]:
    """Additions that are none to an old reader, for whom the property was not just unknown. That a new property is
    required, `_required` sees.
    """
    closing = sorted(keyword for keyword in _CLOSING & old.keys() if old[keyword] is not True)
    if closing:
        for name in new.get("properties", {}).keys() - old.get("properties", {}).keys():
            yield f"{at}/properties/{_escaped(name)}: is new, where {closing[0]} already speaks of such properties"


def _required(old: list[str], new: list[str], at: str) -> Iterator[str]:
    for name in sorted(set(new) - set(old)):
        yield f"{at}/required: {name} has become required"
    for name in sorted(set(old) - set(new)):
        yield f"{at}/required: {name} is no longer required"


def _text(value: Any) -> str:
    """The value as JSON: in Python, 1 equals true."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
