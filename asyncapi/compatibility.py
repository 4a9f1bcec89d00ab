"""Compatibility rules of published JSON schemas.

Allowed changes are new optional properties, new definitions and changed descriptions. The rules are stricter than
"every old event is still valid", for two reasons:

- Readers generate code and tables from the schemas, so names and types must stay, even where a validator accepts the
  change.
- Readers may validate events, so a constraint must not become weaker. A new enum member would be rejected.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

_ANNOTATIONS: Final = frozenset({"$comment", "deprecated", "description", "examples"})
"""Keywords without effect on readers. `title` and `default` are not among them: code generators use them."""

_SCHEMA_MAPS: Final = frozenset({"$defs", "properties"})
"""Keywords that contain schemas by name."""

_SUBSCHEMAS: Final = frozenset({"additionalProperties", "items"})
"""Keywords that contain one schema."""

_UNKNOWN_PROPERTY_RULES: Final = frozenset(
    {"additionalProperties", "maxProperties", "patternProperties", "propertyNames", "unevaluatedProperties"}
)
"""Keywords with which a reader of the old schema would validate an unknown property."""


def breaking_changes(old: Schema, new: Schema, at: str = "#") -> Iterator[str]:
    """Yield each incompatible change from `old` to `new`, as a JSON pointer and a description.

    Without such a change, readers of either schema accept the events of the other schema.

    Args:
        old: released schema.
        new: current schema.
        at: JSON pointer of both schemas in their documents.
    """
    for keyword in sorted((old.keys() | new.keys()) - _ANNOTATIONS):
        before, after, here = old.get(keyword), new.get(keyword), f"{at}/{keyword}"
        if keyword in _SCHEMA_MAPS:
            yield from _changed_definitions(before or {}, after or {}, here)
            if keyword == "properties":
                yield from _conflicting_additions(old, new, at)
        elif keyword == "required":
            yield from _changed_required(before or [], after or [], at)
        elif keyword in _SUBSCHEMAS and isinstance(before, dict) and isinstance(after, dict):
            yield from breaking_changes(before, after, here)
        elif keyword not in new:
            yield f"{here}: removed, was {_to_json(before)}"
        elif keyword not in old:
            yield f"{here}: added, is {_to_json(after)}"
        elif _to_json(before) != _to_json(after):
            yield f"{here}: is {_to_json(after)}, was {_to_json(before)}"


def _changed_definitions(old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[str]:
    for name, before in old.items():
        here, after = f"{at}/{_escape(name)}", new.get(name)
        if name not in new:
            yield f"{here}: removed (renaming is a removal, too)"
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from breaking_changes(before, after, here)
        elif _to_json(before) != _to_json(after):
            yield f"{here}: is {_to_json(after)}, was {_to_json(before)}"


def _conflicting_additions(old: Schema, new: Schema, at: str) -> Iterator[str]:
    """Yield new properties that a rule of the old schema already covers.

    `_changed_required` reports new properties that are required.
    """
    rules = sorted(keyword for keyword in _UNKNOWN_PROPERTY_RULES & old.keys() if old[keyword] is not True)
    if rules:
        for name in new.get("properties", {}).keys() - old.get("properties", {}).keys():
            yield f"{at}/properties/{_escape(name)}: added, but {rules[0]} of the released schema covers this name"


def _changed_required(old: list[str], new: list[str], at: str) -> Iterator[str]:
    for name in sorted(set(new) - set(old)):
        yield f"{at}/required: {name} became required"
    for name in sorted(set(old) - set(new)):
        yield f"{at}/required: {name} is no longer required"


def _to_json(value: Any) -> str:
    """Return the value as JSON, because 1 equals True in Python."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
