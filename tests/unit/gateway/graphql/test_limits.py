"""A document above a limit is refused before it is validated."""

from dataclasses import fields, replace
from typing import Any

import pytest
from graphql import get_introspection_query

from gateway.errors import INVALID_GRAPHQL, OperationRefused
from gateway.graphql.execution.documents import read_document
from gateway.graphql.execution.validation import MESSAGES
from gateway.graphql.protection.limits import Limits
from tests.unit.gateway.graphql.policies import SCHEMA, VALIDATOR, load_document

SMALL = Limits(
    tokens=100,
    name_characters=12,
    definitions=4,
    depth=3,
    nesting=4,
    root_fields=3,
    fields=6,
    spreads=3,
    aliases=2,
    directives=2,
    repeats=2,
    comparisons=4,
)

# For each limit: the largest query within it, and the smallest query above it.
CASES: dict[str, tuple[str, str]] = {
    "tokens": ("{ a {" + " b c d e f" * 19 + "} }", "{ a {" + " b c d e f" * 19 + " g } }"),
    "name_characters": ("{ abcdefghijkl }", "{ abcdefghijklm }"),
    "definitions": ("{ a }" * 4, "{ a }" * 4 + "fragment F on A { b }"),
    "depth": ("{ a { b { c } } }", "{ a { b { c { d } } } }"),
    "nesting": (
        "{ ... { ... { ...F } } } fragment F on A { a }",
        "{ ... { ... { ... { ...F } } } } fragment F on A { a }",
    ),
    "spreads": ("{ ...F ... { b } ... { c } } fragment F on A { a }", "{ ...F ...F } fragment F on A { a ... { b } }"),
    "root_fields": ("{ a b c }", "{ a b c d }"),
    "fields": ("{ a { b c d e f } }", "{ a { b c d e f g } }"),
    "aliases": ("{ x: a y: a }", "{ x: a y: a z: a }"),
    "repeats": ("{ a { b } a { b } }", "{ a { b } a { b ...F } } fragment F on A { b }"),
    "comparisons": (
        "{ a { b c } a { b c } ...F ...G } fragment F on A { d } fragment G on A { e }",
        "{ a { b c } a { b c } ...F ...G } fragment F on A { d } fragment G on A { d e }",
    ),
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
    """Return True if no limit refuses a text, even if the text has validation errors. Otherwise raise an error."""
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
            ("{ a } fragment F on A { b b b } fragment F on A { c }", "REPEATS"),
            ("{ ...F } fragment F on A { b } fragment F on A { ... { ... { ... { ... { c } } } } }", "NESTING"),
            ("{ a } fragment F on A { ...H ...H } fragment G on A { ...H ...H } fragment H on A { b }", "SPREADS"),
            ("query A { ...F } query B { ...F } fragment F on A { ...G } fragment G on A { b }", "SPREADS"),
            ("{ ...F ...F } fragment F on Query { ...Missing }", "SPREADS"),
        ],
    )
    def test_fragments_and_all_operations_are_counted(self, text: str, code: str) -> None:
        assert refusal(text, SMALL)["code"] == f"GRAPHQL_{code}_EXCEEDED"

    @pytest.mark.parametrize(("is_anonymous", "documents"), [(False, 8), (True, 2)])
    def test_documents_of_one_request_share_the_limit_of_comparisons(
        self, *, is_anonymous: bool, documents: int
    ) -> None:
        limits = Limits(comparisons=8)
        budget = limits.new_budget(is_anonymous=is_anonymous)
        for _ in range(documents):
            read_document(SCHEMA, "{ me { id id } }", limits, VALIDATOR, budget)
        with pytest.raises(OperationRefused, match=f"more than {documents} pairs"):
            read_document(SCHEMA, "{ me { username username } }", limits, VALIDATOR, budget)

    def test_comments_are_counted_as_tokens(self) -> None:
        assert refusal("#\n" * 200 + "{ a }", SMALL)["code"] == "GRAPHQL_TOKENS_EXCEEDED"

    def test_document_nested_too_deeply_for_the_parser_is_refused(self) -> None:
        limits = Limits(tokens=100_000)
        assert refusal("{a" * 10_000 + "}" * 10_000, limits)["code"] == "GRAPHQL_DEPTH_EXCEEDED"

    def test_document_nested_too_deeply_for_the_check_is_refused(self) -> None:
        fragments = " ".join(
            f"fragment F{each} on A {{ {'... {' * 100} ...F{each + 1} {'}' * 100} }}" for each in range(40)
        )
        text = f"{{ ...F0 }} {fragments} fragment F40 on A {{ a }}"
        assert refusal(text, Limits(tokens=100_000))["code"] == "GRAPHQL_NESTING_EXCEEDED"

    @pytest.mark.parametrize("last", ["a", "...Missing"])
    @pytest.mark.parametrize("spread", ["...F{0} ...F{0}", "a {{ ...F{0} ...F{0} }}", "... {{ ...F{0} }} ...F{0}"])
    def test_time_of_the_check_is_linear_in_the_text(self, spread: str, last: str) -> None:
        # Expanded, the 60 fragments have 2^60 fields or spreads.
        fragments = " ".join(f"fragment F{each} on A {{ {spread.format(each + 1)} }}" for each in range(60))
        text = f"{{ a {{ ...F0 }} }} {fragments} fragment F60 on A {{ {last} }}"
        # A check that visits each of them would not end before the time-out of the test.
        assert refusal(text, Limits(definitions=62, depth=100))["code"].startswith("GRAPHQL_")

    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("{ ...F } fragment F on Query { ...F }", 31),
            ("{ ...F } fragment F on Query { __typename ...G } fragment G on Query { ...F }", 71),
            ("{ a } fragment F on Query { a { ... { ...F } } }", 38),
        ],
    )
    def test_fragment_that_spreads_itself_is_refused_before_validation(self, text: str, start: int) -> None:
        with pytest.raises(OperationRefused) as refused:
            load_document(text, SMALL)
        assert refused.value.message == MESSAGES["NoFragmentCyclesRule"]
        assert (refused.value.extensions or {})["code"] == INVALID_GRAPHQL
        assert [node.loc and node.loc.start for node in refused.value.nodes or ()] == [start]

    def test_time_of_a_cycle_is_linear_in_the_text(self) -> None:
        spreads = " ".join(f"...F{each}" for each in range(25))
        fragments = " ".join(f"fragment F{each} on A {{ {spreads} }}" for each in range(1, 25))
        # A count of repeats that followed the cycle would take millions of steps.
        with pytest.raises(OperationRefused):
            load_document(f"{{ ...F0 }} fragment F0 on A {{ a {{ ...F0 ...F1 }} }} {fragments}")

    def test_missing_fragment_is_a_validation_error(self) -> None:
        assert any("fragment" in error.message for error in load_document("{ ...Missing }", SMALL).errors)

    def test_introspection_query_of_graphiql_is_within_the_limits(self) -> None:
        everything = get_introspection_query(
            specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
        )
        assert load_document(everything, is_anonymous=True).errors == []
