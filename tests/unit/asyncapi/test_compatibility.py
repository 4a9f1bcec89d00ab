import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from asyncapi.compatibility import Schema, breaking_changes

EVENT: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:test:Event:1",
    "title": "Event",
    "description": "An event.",
    "type": "object",
    "required": ["id", "side"],
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "Account id."},
        "kind": {"type": "string", "enum": ["A", "B"], "default": "A"},
        "flag": {"const": 1},
        "amount": {"type": "string", "pattern": "^[0-9]+$", "maxLength": 18},
        "version": {"type": "integer", "minimum": 1, "maximum": 100},
        "side": {"$ref": "#/$defs/Side", "description": "One side."},
        "tags": {"type": "array", "items": {"type": "object", "properties": {"a/b": {"type": "string"}}}},
        "words": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 8}, "maxProperties": 16},
        "closed": {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False},
        "open": {"type": "object", "additionalProperties": True},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "anything": True,
    },
    "$defs": {
        "Side": {
            "title": "Side",
            "type": "object",
            "required": ["account"],
            "properties": {"account": {"type": "string"}, "balance": {"type": "string"}},
        },
        "Unused": {"type": "string"},
    },
}

Change = Callable[[Schema], object]


def value_at(schema: Schema, path: str) -> Any:
    """Return the value at a slash-separated path."""
    value: Any = schema
    for name in filter(None, path.split("/")):
        value = value[name]
    return value


def set_value(path: str, value: Any) -> Change:
    parent, _, name = path.rpartition("/")
    return lambda schema: value_at(schema, parent).__setitem__(name, value)


def remove(path: str) -> Change:
    parent, _, name = path.rpartition("/")
    return lambda schema: value_at(schema, parent).pop(name)


def rename(path: str, to: str) -> Change:
    parent, _, name = path.rpartition("/")
    return lambda schema: value_at(schema, parent).__setitem__(to, value_at(schema, parent).pop(name))


def changed_event(*changes: Change) -> Schema:
    schema = copy.deepcopy(EVENT)
    for change in changes:
        change(schema)
    Draft202012Validator.check_schema(schema)
    return schema


ALLOWED: dict[str, Change] = {
    "nothing": lambda _: None,
    "an optional property": set_value("properties/note", {"type": "string"}),
    "an optional property named like a keyword": set_value("properties/required", {"type": "string"}),
    "an optional property of a definition": set_value("$defs/Side/properties/owner", {"type": "string"}),
    "an optional property of a list item": set_value("properties/tags/items/properties/note", {"type": "string"}),
    "an optional property of an explicitly open object": set_value(
        "properties/open/properties", {"x": {"type": "string"}}
    ),
    "an optional property with required properties inside": set_value(
        "properties/more", {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
    ),
    "a definition": set_value("$defs/Other", {"type": "object", "required": ["x"]}),
    "another description": set_value("description", "A past event."),
    "another description of a property": set_value("properties/id/description", "Owner id."),
    "a removed description": remove("properties/side/description"),
    "examples": set_value("properties/kind/examples", ["A"]),
    "a deprecated property": set_value("properties/kind/deprecated", True),
    "another order of required properties": set_value("required", ["side", "id"]),
}

REFUSED: dict[str, tuple[Change, str]] = {
    "a removed property": (remove("properties/kind"), "#/properties/kind: removed (renaming is a removal, too)"),
    "a renamed property": (
        rename("properties/amount", "sum"),
        "#/properties/amount: removed (renaming is a removal, too)",
    ),
    "a renamed property of a definition": (
        rename("$defs/Side/properties/balance", "balanceAfter"),
        "#/$defs/Side/properties/balance: removed (renaming is a removal, too)",
    ),
    "all properties removed": (
        remove("properties/tags/items/properties"),
        "#/properties/tags/items/properties/a~1b: removed (renaming is a removal, too)",
    ),
    "a removed definition": (remove("$defs/Unused"), "#/$defs/Unused: removed (renaming is a removal, too)"),
    "a reference to another definition": (
        set_value("properties/side/$ref", "#/$defs/Unused"),
        '#/properties/side/$ref: is "#/$defs/Unused", was "#/$defs/Side"',
    ),
    "another type": (
        set_value("properties/version/type", "string"),
        '#/properties/version/type: is "string", was "integer"',
    ),
    "an additional type": (
        set_value("properties/version/type", ["integer", "null"]),
        '#/properties/version/type: is ["integer", "null"], was "integer"',
    ),
    "a removed type": (remove("properties/version/type"), '#/properties/version/type: removed, was "integer"'),
    "a schema replaced by true": (
        set_value("properties/id", True),
        '#/properties/id: is true, was {"description": "Account id."',
    ),
    "true replaced by a schema": (
        set_value("properties/anything", {"type": "string"}),
        '#/properties/anything: is {"type": "string"}, was true',
    ),
    "another format": (set_value("properties/id/format", "uri"), '#/properties/id/format: is "uri", was "uuid"'),
    "a property that became required": (
        set_value("required", ["id", "side", "kind"]),
        "#/required: kind became required",
    ),
    "a property of a definition that became required": (
        set_value("$defs/Side/required", ["account", "balance"]),
        "#/$defs/Side/required: balance became required",
    ),
    "a first required property": (
        set_value("properties/tags/items/required", ["a/b"]),
        "#/properties/tags/items/required: a/b became required",
    ),
    "a property that is no longer required": (set_value("required", ["id"]), "#/required: side is no longer required"),
    "a removed list of required properties": (remove("required"), "#/required: id is no longer required"),
    "a narrower pattern": (
        set_value("properties/amount/pattern", "^[0-9]{1,2}$"),
        '#/properties/amount/pattern: is "^[0-9]{1,2}$", was "^[0-9]+$"',
    ),
    "a new pattern": (set_value("properties/id/pattern", "^a"), '#/properties/id/pattern: added, is "^a"'),
    "a removed pattern": (remove("properties/amount/pattern"), '#/properties/amount/pattern: removed, was "^[0-9]+$"'),
    "a lower maximum": (set_value("properties/version/maximum", 10), "#/properties/version/maximum: is 10, was 100"),
    "a higher maximum": (
        set_value("properties/version/maximum", 1000),
        "#/properties/version/maximum: is 1000, was 100",
    ),
    "a lower minimum": (set_value("properties/version/minimum", 0), "#/properties/version/minimum: is 0, was 1"),
    "a higher maximum length": (
        set_value("properties/amount/maxLength", 19),
        "#/properties/amount/maxLength: is 19, was 18",
    ),
    "a new enum member": (
        set_value("properties/kind/enum", ["A", "B", "C"]),
        '#/properties/kind/enum: is ["A", "B", "C"], was ["A", "B"]',
    ),
    "a removed enum member": (
        set_value("properties/kind/enum", ["A"]),
        '#/properties/kind/enum: is ["A"], was ["A", "B"]',
    ),
    "another default": (set_value("properties/kind/default", "B"), '#/properties/kind/default: is "B", was "A"'),
    "the constant true instead of 1": (
        set_value("properties/flag/const", True),
        "#/properties/flag/const: is true, was 1",
    ),
    "another title": (set_value("$defs/Side/title", "Posting"), '#/$defs/Side/title: is "Posting", was "Side"'),
    "another $id": (set_value("$id", "urn:test:Event:2"), '#/$id: is "urn:test:Event:2", was "urn:test:Event:1"'),
    "an object that became closed": (
        set_value("additionalProperties", False),
        "#/additionalProperties: added, is false",
    ),
    "a closed object that became open": (
        set_value("properties/closed/additionalProperties", True),
        "#/properties/closed/additionalProperties: is true, was false",
    ),
    "a new property of a closed object": (
        set_value("properties/closed/properties/y", {"type": "string"}),
        "#/properties/closed/properties/y: added, but additionalProperties of the released schema covers this name",
    ),
    "a new property of a map": (
        set_value("properties/words/properties", {"y": {"type": "string"}}),
        "#/properties/words/properties/y: added, but additionalProperties of the released schema covers this name",
    ),
    "another value schema of a map": (
        set_value("properties/words/additionalProperties/maxLength", 9),
        "#/properties/words/additionalProperties/maxLength: is 9, was 8",
    ),
    "a higher maximum size of a map": (
        set_value("properties/words/maxProperties", 17),
        "#/properties/words/maxProperties: is 17, was 16",
    ),
    "another item schema of a list": (
        set_value("properties/tags/items", {"type": "string"}),
        "#/properties/tags/items/properties/a~1b: removed (renaming is a removal, too)",
    ),
    "an additional alternative": (
        set_value("properties/either/anyOf", [{"type": "string"}, {"type": "null"}, {"type": "integer"}]),
        '#/properties/either/anyOf: is [{"type": "string"}, {"type": "null"}, {"type": "integer"}]',
    ),
    "a new condition": (set_value("if", {"required": ["kind"]}), '#/if: added, is {"required": ["kind"]}'),
}


class TestBreakingChanges:
    @pytest.mark.parametrize("change", ALLOWED.values(), ids=ALLOWED)
    def test_compatible_change_is_accepted(self, change: Change) -> None:
        assert list(breaking_changes(EVENT, changed_event(change))) == []

    @pytest.mark.parametrize(("change", "expected"), REFUSED.values(), ids=REFUSED)
    def test_incompatible_change_is_reported(self, change: Change, expected: str) -> None:
        assert any(problem.startswith(expected) for problem in breaking_changes(EVENT, changed_event(change)))

    def test_new_required_property_is_reported(self) -> None:
        new = changed_event(
            set_value("properties/note", {"type": "string"}), set_value("required", ["id", "side", "note"])
        )
        assert list(breaking_changes(EVENT, new)) == ["#/required: note became required"]

    def test_all_problems_are_reported_together(self) -> None:
        new = changed_event(
            remove("properties/kind"), set_value("properties/version/maximum", 10), set_value("required", ["id"])
        )
        assert [problem.partition(":")[0] for problem in breaking_changes(EVENT, new)] == [
            "#/properties/kind",
            "#/properties/version/maximum",
            "#/required",
        ]

    @given(st.sets(st.sampled_from(sorted(ALLOWED))), st.sets(st.sampled_from(sorted(REFUSED)), max_size=1))
    def test_compatible_additions_do_not_hide_a_breaking_change(self, additions: set[str], broken: set[str]) -> None:
        changes = [ALLOWED[name] for name in additions - {"another order of required properties"}]
        old = changed_event(*changes)
        new = copy.deepcopy(old)
        for name in broken:
            REFUSED[name][0](new)
        assert bool(list(breaking_changes(old, new))) is bool(broken)


VALUES: st.SearchStrategy[Any] = st.sampled_from([None, True, 0, 1, "", "a", [], {}])


class TestCompatibleChanges:
    """The changes in `ALLOWED`, checked with a JSON Schema validator.

    The changed schema treats old events as the unchanged schema does, and the unchanged schema accepts new events.
    """

    @given(
        st.sets(st.sampled_from(sorted(ALLOWED))),
        st.dictionaries(st.sampled_from(["id", "kind", "flag", "version", "side", "words", "closed", "open"]), VALUES),
    )
    def test_old_event_has_the_same_validity_under_both_schemas(
        self, additions: set[str], event: dict[str, Any]
    ) -> None:
        new = changed_event(*[ALLOWED[name] for name in additions])
        old_event = {"id": "i", "side": {"account": "a"}, **event}
        assert Draft202012Validator(EVENT).is_valid(old_event) == Draft202012Validator(new).is_valid(old_event)

    def test_new_event_is_valid_under_the_old_schema(self) -> None:
        new_event = json.loads('{"id": "i", "side": {"account": "a", "owner": "o"}, "note": "n", "more": {"x": 1}}')
        Draft202012Validator(changed_event(*ALLOWED.values())).validate(new_event)
        Draft202012Validator(EVENT).validate(new_event)
