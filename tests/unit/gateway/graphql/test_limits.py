"""A document above a limit is refused before it is validated."""

from dataclasses import fields, replace
from typing import Any

import pytest
from graphql import get_introspection_query

from gateway.errors import OperationRefused
from gateway.graphql.protection.limits import Limits
from tests.unit.gateway.graphql.policies import load_document

SMALL = Limits(
    tokens=100,
    name_characters=12,
    definitions=4,
    depth=3,
    root_fields=3,
    fields=6,
    aliases=2,
    directives=2,
    repeats=2,
)

# For each limit: the largest query within it, and the smallest query above it.
CASES: dict[str, tuple[str, str]] = {
    "tokens": ("{ a {" + " b c d e f" * 19 + "} }", "{ a {" + " b c d e f" * 19 + " g } }"),
    "name_characters": ("{ abcdefghijkl }", "{ abcdefghijklm }"),
    "definitions": ("{ a }" * 4, "{ a }" * 4 + "fragment F on A { b }"),
    "depth": ("{ a { b { c } } }", "{ a { b { c { d } } } }"),
    "root_fields": ("{ a b c }", "{ a b c d }"),
    "fields": ("{ a { b c d e f } }", "{ a { b c d e f g } }"),
    "aliases": ("{ x: a y: a }", "{ x: a y: a z: a }"),
    "repeats": ("{ a { b } a { b } }", "{ a { b } a { b ...F } } fragment F on A { b }"),
    "directives": ("{ a @x b @y }", "{ a @x b @y c @z }"),
}


def refusal(text: str, limits: Limits) -> dict[str, Any]:
    """Load a text that must be refused, and return the extensions of the error."""
    with pytest.raises(OperationRefused) as refused:
        load_document(text, limits)
    extensions = refused.value.extensions or {}
    assert str(extensions["limit"]) in refused.value.message
    return extensions


def is_within(text: str, limits: Limits) -> bool:
    """Return True if no limit refuses a text, even if it has validation errors. Otherwise an error is raised."""
    load_document(text, limits)
    return True


class TestLimits:
    def test_every_limit_has_a_test_case(self) -> None:
        tested_elsewhere = {"cost", "errors", "anonymous_tokens"}
        assert {field.name for field in fields(Limits)} == CASES.keys() | tested_elsewhere

    @pytest.mark.parametrize("name", CASES)
    def test_document_above_a_limit_is_refused(self, name: str) -> None:
        allowed, refused = CASES[name]
        others = Limits()
        limits = replace(others, **{name: getattr(SMALL, name)})
        assert is_within(allowed, limits)
        assert is_within(refused, others)
        assert refusal(refused, limits) == {
            "code": f"GRAPHQL_{name.upper()}_EXCEEDED",
            "limit": getattr(SMALL, name),
        }

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("{ ...F } fragment F on Query { a { ...G } } fragment G on A { b { c { d } } }", "DEPTH"),
            ("{ a { ... { b { ... on X { c { d } } } } } }", "DEPTH"),
            ("{ ...F ...F } fragment F on Query { a b }", "ROOT_FIELDS"),
            ("{ a { ...F } b { ...F } } fragment F on A { c d e }", "FIELDS"),
            ("{ a { ...F } b { ...F } } fragment F on A { x: c y: d }", "ALIASES"),
            ("{ a { ...F } b { ...F } } fragment F on A { c @x d @y }", "DIRECTIVES"),
            ("{ a ...F @x @y ... @z { b } } fragment F on Query { c }", "DIRECTIVES"),
            ("query @x @y @z { a }", "DIRECTIVES"),
            ("{ a } fragment Unused on A { a b c d e f g }", "FIELDS"),
            ("query A { a } query B { a b c d }", "ROOT_FIELDS"),
            ("query A { ...F } query B { ...F } query C { ...F } fragment F on Query { a b c }", "FIELDS"),
            ("mutation { a b c d }", "ROOT_FIELDS"),
            ("{ a { b } ... { a } ...F } fragment F on Query { a }", "REPEATS"),
            ("{ a } fragment Unused on A { b b b }", "REPEATS"),
        ],
    )
    def test_fragments_and_all_operations_are_counted(self, text: str, code: str) -> None:
        assert refusal(text, SMALL)["code"] == f"GRAPHQL_{code}_EXCEEDED"

    def test_comments_are_counted_as_tokens(self) -> None:
        assert refusal("#\n" * 200 + "{ a }", SMALL)["code"] == "GRAPHQL_TOKENS_EXCEEDED"

    def test_document_nested_too_deeply_for_the_parser_is_refused(self) -> None:
        limits = Limits(tokens=100_000)
        assert refusal("{a" * 10_000 + "}" * 10_000, limits)["code"] == "GRAPHQL_DEPTH_EXCEEDED"

    def test_time_of_the_check_is_linear_in_the_text(self) -> None:
        # Two to the power of sixty fields, in 60 fragments.
        bomb = "{ ...F0 } " + " ".join(
            f"fragment F{each} on Query {{ ...F{each + 1} ...F{each + 1} }}" for each in range(60)
        )
        # A check that visits each field would not end before the time-out of the test.
        assert (
            refusal(f"{bomb} fragment F60 on Query {{ a }}", Limits(definitions=62))["code"]
            == "GRAPHQL_ROOT_FIELDS_EXCEEDED"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "{ ...F } fragment F on Query { ...F }",
            "{ ...F } fragment F on Query { __typename ...G } fragment G on Query { ...F }",
            "{ ...Missing }",
        ],
    )
    def test_recursive_or_missing_fragment_is_a_validation_error(self, text: str) -> None:
        document = load_document(text, SMALL)
        assert any("fragment" in error.message for error in document.errors)

    def test_introspection_query_of_graphiql_is_within_the_limits(self) -> None:
        everything = get_introspection_query(
            specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
        )
        assert load_document(everything, is_anonymous=True).errors == []
