"""Each limit stops the query that is made to pass it, before anything else is done with it."""

from dataclasses import fields, replace
from typing import Any

import pytest
from graphql import get_introspection_query

from gateway.errors import OperationRefused
from gateway.graphql.execution.documents import DocumentCache
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.protection.limits import Limits

SCHEMA = build_merged_schema().core_schema
SMALL = Limits(tokens=100, depth=3, root_fields=3, fields=6, aliases=2, directives=2, repeats=2)

# Of each limit the longest query that it lets pass, and the shortest that it does not.
CASES: dict[str, tuple[str, str]] = {
    "tokens": ("{ a {" + " b c d e f" * 19 + "} }", "{ a {" + " b c d e f" * 19 + " g } }"),
    "depth": ("{ a { b { c } } }", "{ a { b { c { d } } } }"),
    "root_fields": ("{ a b c }", "{ a b c d }"),
    "fields": ("{ a { b c d e f } }", "{ a { b c d e f g } }"),
    "aliases": ("{ x: a y: a }", "{ x: a y: a z: a }"),
    "repeats": ("{ a { b } a { b } }", "{ a { b } a { b ...F } } fragment F on A { b }"),
    "directives": ("{ a @x b @y }", "{ a @x b @y c @z }"),
}


def refusal(text: str, limits: Limits) -> dict[str, Any]:
    """The code and the limit that a text is refused with."""
    with pytest.raises(OperationRefused) as refused:
        DocumentCache(limits, introspection=True).load(SCHEMA, text)
    extensions = refused.value.extensions or {}
    assert str(extensions["limit"]) in refused.value.message
    return extensions


def passes(text: str, limits: Limits) -> bool:
    """Whether no limit stops it; that it asks for what is not there is no matter."""
    DocumentCache(limits, introspection=True).load(SCHEMA, text)
    return True


class TestLimits:
    def test_each_has_its_case(self) -> None:
        of_variables = {"cost"}  # `test_protection.TestCost` has that
        assert {field.name for field in fields(Limits)} == CASES.keys() | of_variables

    @pytest.mark.parametrize("name", CASES)
    def test_stops_what_has_more(self, name: str) -> None:
        allowed, refused = CASES[name]
        others = Limits()
        limits = replace(others, **{name: getattr(SMALL, name)})
        assert passes(allowed, limits)
        assert passes(refused, others)
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
    def test_counts_what_fragments_bring_in_and_every_operation(self, text: str, code: str) -> None:
        assert refusal(text, SMALL)["code"] == f"GRAPHQL_{code}_EXCEEDED"

    def test_counts_comments_as_tokens(self) -> None:
        assert refusal("#\n" * 200 + "{ a }", SMALL)["code"] == "GRAPHQL_TOKENS_EXCEEDED"

    def test_stops_what_the_parser_cannot_descend_to(self) -> None:
        limits = Limits(tokens=100_000)
        assert refusal("{a" * 10_000 + "}" * 10_000, limits)["code"] == "GRAPHQL_DEPTH_EXCEEDED"

    def test_takes_time_by_the_text_and_not_by_what_it_spreads_to(self) -> None:
        # Two to the power of sixty fields, in 60 fragments.
        bomb = "{ ...F0 } " + " ".join(
            f"fragment F{each} on Query {{ ...F{each + 1} ...F{each + 1} }}" for each in range(60)
        )
        # Work by the number of fields would not end before the time-out of the test.
        assert refusal(f"{bomb} fragment F60 on Query {{ a }}", Limits())["code"] == "GRAPHQL_ROOT_FIELDS_EXCEEDED"

    @pytest.mark.parametrize(
        "text",
        [
            "{ ...F } fragment F on Query { ...F }",
            "{ ...F } fragment F on Query { __typename ...G } fragment G on Query { ...F }",
            "{ ...Missing }",
        ],
    )
    def test_leaves_to_validation_what_is_no_fragment(self, text: str) -> None:
        document = DocumentCache(SMALL, introspection=True).load(SCHEMA, text)
        assert any("fragment" in error.message for error in document.errors)

    def test_lets_graphiql_ask_what_there_is(self) -> None:
        everything = get_introspection_query(
            specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
        )
        assert DocumentCache(Limits(), introspection=True).load(SCHEMA, everything).errors == []
