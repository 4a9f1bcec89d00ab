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
    "description": "What happened.",
    "type": "object",
    "required": ["id", "side"],
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "Whose."},
        "kind": {"type": "string", "enum": ["A", "B"], "default": "A"},
        "flag": {"const": 1},
        "amount": {"type": "string", "pattern": "^[0-9]+$", "maxLength": 18},
        "version": {"type": "integer", "minimum": 1, "maximum": 100},
        "side": {"$ref": "#/$defs/Side", "description": "One of them."},
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


def place(schema: Schema, path: str) -> Any:
    """What is at a slash-separated path."""
    found: Any = schema
    for name in filter(None, path.split("/")):
        found = found[name]
    return found


def put(path: str, value: Any) -> Change:
    parent, _, name = path.rpartition("/")
    return lambda schema: place(schema, parent).__setitem__(name, value)


def take(path: str) -> Change:
    parent, _, name = path.rpartition("/")
    return lambda schema: place(schema, parent).pop(name)


def rename(path: str, to: str) -> Change:
    parent, _, name = path.rpartition("/")
    return lambda schema: place(schema, parent).__setitem__(to, place(schema, parent).pop(name))


def changed(*changes: Change) -> Schema:
    schema = copy.deepcopy(EVENT)
    for change in changes:
        change(schema)
    Draft202012Validator.check_schema(schema)
    return schema


ALLOWED: dict[str, Change] = {
    "nothing": lambda _: None,
    "an optional property": put("properties/note", {"type": "string"}),
    "an optional property that is called as a keyword is": put("properties/required", {"type": "string"}),
    "an optional property of a part": put("$defs/Side/properties/owner", {"type": "string"}),
    "an optional property of a list's members": put("properties/tags/items/properties/note", {"type": "string"}),
    "an optional property of what is open and says so": put("properties/open/properties", {"x": {"type": "string"}}),
    "an optional property with required ones of its own": put(
        "properties/more", {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
    ),
    "a part": put("$defs/Other", {"type": "object", "required": ["x"]}),
    "another description": put("description", "What has happened."),
    "another description of a property": put("properties/id/description", "Its own."),
    "a description taken away": take("properties/side/description"),
    "examples": put("properties/kind/examples", ["A"]),
    "a property that will go out of use": put("properties/kind/deprecated", True),
    "another order": put("required", ["side", "id"]),
}

REFUSED: dict[str, tuple[Change, str]] = {
    "a property taken away": (take("properties/kind"), "#/properties/kind: is gone (a new name is a removal, too)"),
    "a property renamed": (
        rename("properties/amount", "sum"),
        "#/properties/amount: is gone (a new name is a removal, too)",
    ),
    "a part's property renamed": (
        rename("$defs/Side/properties/balance", "balanceAfter"),
        "#/$defs/Side/properties/balance: is gone (a new name is a removal, too)",
    ),
    "all properties taken away": (
        take("properties/tags/items/properties"),
        "#/properties/tags/items/properties/a~1b: is gone (a new name is a removal, too)",
    ),
    "a part taken away": (take("$defs/Unused"), "#/$defs/Unused: is gone (a new name is a removal, too)"),
    "another part": (
        put("properties/side/$ref", "#/$defs/Unused"),
        '#/properties/side/$ref: is "#/$defs/Unused", was "#/$defs/Side"',
    ),
    "another type": (put("properties/version/type", "string"), '#/properties/version/type: is "string", was "integer"'),
    "one more type": (
        put("properties/version/type", ["integer", "null"]),
        '#/properties/version/type: is ["integer", "null"], was "integer"',
    ),
    "a type taken away": (take("properties/version/type"), '#/properties/version/type: is gone, was "integer"'),
    "another schema altogether": (put("properties/id", True), '#/properties/id: is true, was {"description": "Whose."'),
    "a schema instead of anything": (
        put("properties/anything", {"type": "string"}),
        '#/properties/anything: is {"type": "string"}, was true',
    ),
    "another format": (put("properties/id/format", "uri"), '#/properties/id/format: is "uri", was "uuid"'),
    "a property made required": (put("required", ["id", "side", "kind"]), "#/required: kind has become required"),
    "a part's property made required": (
        put("$defs/Side/required", ["account", "balance"]),
        "#/$defs/Side/required: balance has become required",
    ),
    "something required where nothing was": (
        put("properties/tags/items/required", ["a/b"]),
        "#/properties/tags/items/required: a/b has become required",
    ),
    "a property no longer required": (put("required", ["id"]), "#/required: side is no longer required"),
    "nothing required any more": (take("required"), "#/required: id is no longer required"),
    "a narrower pattern": (
        put("properties/amount/pattern", "^[0-9]{1,2}$"),
        '#/properties/amount/pattern: is "^[0-9]{1,2}$", was "^[0-9]+$"',
    ),
    "a pattern where none was": (put("properties/id/pattern", "^a"), '#/properties/id/pattern: is new, "^a"'),
    "a pattern taken away": (take("properties/amount/pattern"), '#/properties/amount/pattern: is gone, was "^[0-9]+$"'),
    "a lower maximum": (put("properties/version/maximum", 10), "#/properties/version/maximum: is 10, was 100"),
    "a higher maximum": (put("properties/version/maximum", 1000), "#/properties/version/maximum: is 1000, was 100"),
    "a lower minimum": (put("properties/version/minimum", 0), "#/properties/version/minimum: is 0, was 1"),
    "a longer text": (put("properties/amount/maxLength", 19), "#/properties/amount/maxLength: is 19, was 18"),
    "one more of an enum": (
        put("properties/kind/enum", ["A", "B", "C"]),
        '#/properties/kind/enum: is ["A", "B", "C"], was ["A", "B"]',
    ),
    "one less of an enum": (put("properties/kind/enum", ["A"]), '#/properties/kind/enum: is ["A"], was ["A", "B"]'),
    "another default": (put("properties/kind/default", "B"), '#/properties/kind/default: is "B", was "A"'),
    "true instead of one": (put("properties/flag/const", True), "#/properties/flag/const: is true, was 1"),
    "another name for a class": (put("$defs/Side/title", "Posting"), '#/$defs/Side/title: is "Posting", was "Side"'),
    "another identity": (put("$id", "urn:test:Event:2"), '#/$id: is "urn:test:Event:2", was "urn:test:Event:1"'),
    "an object that is closed": (put("additionalProperties", False), "#/additionalProperties: is new, false"),
    "a closed object that is opened": (
        put("properties/closed/additionalProperties", True),
        "#/properties/closed/additionalProperties: is true, was false",
    ),
    "a closed object's new property": (
        put("properties/closed/properties/y", {"type": "string"}),
        "#/properties/closed/properties/y: is new, where additionalProperties already speaks of such properties",
    ),
    "a map's new property": (
        put("properties/words/properties", {"y": {"type": "string"}}),
        "#/properties/words/properties/y: is new, where additionalProperties already speaks of such properties",
    ),
    "other values of a map": (
        put("properties/words/additionalProperties/maxLength", 9),
        "#/properties/words/additionalProperties/maxLength: is 9, was 8",
    ),
    "a bigger map": (put("properties/words/maxProperties", 17), "#/properties/words/maxProperties: is 17, was 16"),
    "other members of a list": (
        put("properties/tags/items", {"type": "string"}),
        "#/properties/tags/items/properties/a~1b: is gone (a new name is a removal, too)",
    ),
    "one more choice": (
        put("properties/either/anyOf", [{"type": "string"}, {"type": "null"}, {"type": "integer"}]),
        '#/properties/either/anyOf: is [{"type": "string"}, {"type": "null"}, {"type": "integer"}]',
    ),
    "a condition": (put("if", {"required": ["kind"]}), '#/if: is new, {"required": ["kind"]}'),
}


class TestBreakingChanges:
    @pytest.mark.parametrize("change", ALLOWED.values(), ids=ALLOWED)
    def test_allows(self, change: Change) -> None:
        assert list(breaking_changes(EVENT, changed(change))) == []

    @pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
    def test_refuses(self, change: Change, said: str) -> None:
        assert any(each.startswith(said) for each in breaking_changes(EVENT, changed(change)))

    def test_refuses_a_new_property_that_is_required(self) -> None:
        new = changed(put("properties/note", {"type": "string"}), put("required", ["id", "side", "note"]))
        assert list(breaking_changes(EVENT, new)) == ["#/required: note has become required"]

    def test_tells_of_everything_at_once(self) -> None:
        new = changed(take("properties/kind"), put("properties/version/maximum", 10), put("required", ["id"]))
        assert [each.partition(":")[0] for each in breaking_changes(EVENT, new)] == [
            "#/properties/kind",
            "#/properties/version/maximum",
            "#/required",
        ]

    @given(st.sets(st.sampled_from(sorted(ALLOWED))), st.sets(st.sampled_from(sorted(REFUSED)), max_size=1))
    def test_additions_hide_nothing(self, additions: set[str], broken: set[str]) -> None:
        changes = [ALLOWED[name] for name in additions - {"another order"}]
        old = changed(*changes)
        new = copy.deepcopy(old)
        for name in broken:
            REFUSED[name][0](new)
        assert bool(list(breaking_changes(old, new))) is bool(broken)


VALUES: st.SearchStrategy[Any] = st.sampled_from([None, True, 0, 1, "", "a", [], {}])


class TestWhatIsAllowed:
    """The rule itself, held against a validator: nobody has to be told of an addition."""

    @given(
        st.sets(st.sampled_from(sorted(ALLOWED))),
        st.dictionaries(st.sampled_from(["id", "kind", "flag", "version", "side", "words", "closed", "open"]), VALUES),
    )
    def test_an_old_event_is_valid_by_both_or_by_neither(self, additions: set[str], event: dict[str, Any]) -> None:
        new = changed(*[ALLOWED[name] for name in additions])
        old_event = {"id": "i", "side": {"account": "a"}, **event}
        assert Draft202012Validator(EVENT).is_valid(old_event) == Draft202012Validator(new).is_valid(old_event)

    def test_a_new_event_is_valid_for_an_old_reader(self) -> None:
        new_event = json.loads('{"id": "i", "side": {"account": "a", "owner": "o"}, "note": "n", "more": {"x": 1}}')
        Draft202012Validator(changed(*ALLOWED.values())).validate(new_event)
        Draft202012Validator(EVENT).validate(new_event)
