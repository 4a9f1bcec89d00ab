"""The private parts of graphql-core that the gateway uses exist and have an effect."""

import gc
import inspect
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    GraphQLString,
    build_schema,
    execute,
    parse,
    validate,
)
from graphql.execution import Executor, executor
from graphql.language.parser import Parser

from gateway.graphql.execution.graphql_core_internals import (
    AttributeResolver,
    LeafResolver,
    LimitedParser,
    LiteralRule,
    NameTooLong,
    ShortcutExecutor,
    SubfieldCache,
    TooManyTokens,
)


class Item:
    def __init__(self, number: object, text: str | None = None) -> None:
        self.number = number
        self.text = text

    @property
    def parent(self) -> "Item":
        return self


ITEM: GraphQLObjectType = GraphQLObjectType(
    "Item",
    lambda: {
        "number": GraphQLField(GraphQLNonNull(GraphQLInt), resolve=LeafResolver("number", GraphQLInt)),
        "text": GraphQLField(GraphQLString, resolve=LeafResolver("text", GraphQLString)),
        "parent": GraphQLField(ITEM, resolve=AttributeResolver("parent")),
    },
)
SCHEMA = GraphQLSchema(
    GraphQLObjectType("Query", {"items": GraphQLField(GraphQLList(ITEM), resolve=lambda source, _: source)})
)


def run(document: DocumentNode, items: list[Item], subfields: SubfieldCache | None = None) -> Any:
    """Execute a query with `ShortcutExecutor`."""
    return execute(SCHEMA, document, items, executor_class=ShortcutExecutor, subfields=subfields)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of calls of graphql-core's own functions."""
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    count(executor, "collect_subfields")
    count(Executor, "build_resolve_info")
    return calls


class TestSignatures:
    @pytest.mark.parametrize(
        ("method", "parameters"),
        [
            (Executor.collect_subfields, ["self", "return_type", "field_details_list"]),
            (
                Executor.execute_field,
                ["self", "parent_type", "source", "field_details_list", "path", "position_context"],
            ),
            (Executor.build_per_event_executor, ["self", "payload"]),
            (Executor.gather_async_work, ["self", "values"]),
            (Executor.track_async_work, ["self", "values"]),
            (Parser.advance_lexer, ["self"]),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_overridden_method_has_the_expected_parameters(
        self, method: Callable[..., Any], parameters: list[str]
    ) -> None:
        assert list(inspect.signature(method).parameters) == parameters

    def test_executor_still_has_async_helpers(self) -> None:
        assert "async_helpers" in inspect.get_annotations(Executor)

    def test_parser_still_counts_tokens(self) -> None:
        assert isinstance(inspect.getattr_static(Parser, "token_count"), property)


class TestParser:
    @pytest.mark.parametrize("text", ["{ a b }", "{ a #\n}"])
    def test_document_with_more_tokens_than_allowed_is_rejected(self, text: str) -> None:
        assert LimitedParser(text, 4, 100).parse_document().definitions
        with pytest.raises(TooManyTokens):
            LimitedParser(text, 3, 100).parse_document()

    def test_document_with_a_longer_name_than_allowed_is_rejected(self) -> None:
        assert LimitedParser('{ abc(d: "long text") }', 100, 3).parse_document().definitions
        with pytest.raises(NameTooLong):
            LimitedParser("{ abcd }", 100, 3).parse_document()


class TestLiteralRule:
    def test_invalid_literal_is_reported_with_its_path_and_type(self) -> None:
        reported: list[tuple[str, list[str | int]]] = []

        class Rule(LiteralRule):
            def report_literal(self, error: GraphQLError, input_type: Any, path: list[str | int]) -> None:
                reported.append((str(input_type), path))

        schema = build_schema("type Query { x(is: [In]): Int } input In { a: Int b: Int }")
        validate(schema, parse('{ x(is: [{ a: 1 }, { a: "1" }]) }'), [Rule])
        assert reported == [("[In]", [1, "a"])]


class TestFieldErrors:
    def test_error_of_a_field_is_located_without_a_search_in_the_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        searches: list[Any] = []
        monkeypatch.setattr("graphql.language.location.get_locations", searches.append)
        result = run(parse("{ items { number } }"), [Item("x"), Item(2)])
        (error,) = result.errors
        assert (error.path, [type(each).__name__ for each in error.nodes]) == (["items", 0, "number"], ["FieldNode"])
        assert isinstance(error.original_error, GraphQLError)
        assert searches == []


class TestSubfields:
    def test_sub_fields_are_collected_once_per_document(self, calls: Counter[str]) -> None:
        document, subfields = parse("{ items { number parent { text } } }"), SubfieldCache()
        results = [run(document, [Item(1), Item(2)], subfields) for _ in range(3)]
        assert results[0].data == results[1].data == results[2].data
        assert calls["collect_subfields"] == len(subfields) == 2

    def test_sub_fields_are_collected_for_each_execution_without_a_cache(self, calls: Counter[str]) -> None:
        document = parse("{ items { number } }")
        for _ in range(3):
            run(document, [Item(1)])
        assert calls["collect_subfields"] == 3

    def test_merged_selections_are_not_cached(self) -> None:
        subfields = SubfieldCache()
        result = run(parse("{ items { number } items { text } }"), [Item(1, "a")], subfields)
        assert result.data == {"items": [{"number": 1, "text": "a"}]}
        assert subfields == {}


class TestLeaves:
    def test_leaf_with_a_value_is_read_without_resolve_info(self, calls: Counter[str]) -> None:
        assert run(parse("{ items { number text } }"), [Item(1, "a"), Item(2, "b")]).errors is None
        assert calls["build_resolve_info"] == 1  # of `items` itself

    def test_null_or_malformed_leaf_has_graphql_cores_error(self) -> None:
        result = run(parse("{ items { n: number } }"), [Item(0), Item(None), Item("many")])
        assert result.data == {"items": [{"n": 0}, None, None]}
        assert [(error.path, error.message) for error in result.errors] == [
            (["items", 1, "n"], "Cannot return null for non-nullable field Item.number."),
            (["items", 2, "n"], "Int cannot represent non-integer value: 'many'"),
        ]


class TestMemory:
    def test_execution_leaves_no_reference_cycle(self) -> None:
        item = Item(1)
        collected = weakref.ref(item)
        gc.disable()
        try:
            assert run(parse("{ items { number } }"), [item]).data
            del item
            assert collected() is None
        finally:
            gc.enable()

    def test_executor_that_never_executes_is_freed(self) -> None:
        executor = ShortcutExecutor.build(SCHEMA, parse("{ items { number } }"))
        collected = weakref.ref(executor)
        gc.disable()
        try:
            del executor
            assert collected() is None
        finally:
            gc.enable()

    async def test_resolvers_can_use_the_async_helpers(self) -> None:
        tracked: list[str] = []

        async def track() -> None:
            tracked.append("done")

        async def number(text: str) -> int:
            return int(text)

        async def resolve(_: Any, info: GraphQLResolveInfo[Any]) -> int:
            info.async_helpers.track([track()])
            return sum(await info.async_helpers.gather([number("1"), number("2")]))

        query = GraphQLObjectType("Query", {"sum": GraphQLField(GraphQLInt, resolve=resolve)})
        result = await execute(GraphQLSchema(query), parse("{ sum }"), executor_class=ShortcutExecutor)  # type: ignore[misc]
        assert (result.data, result.errors, tracked) == ({"sum": 3}, None, ["done"])


class TestEvents:
    @pytest.mark.parametrize("subfields", [None, {}], ids=["without a cache", "with a cache"])
    def test_sub_fields_of_an_event_are_not_kept_for_the_next(self, subfields: SubfieldCache | None) -> None:
        document = parse("{ items { number } items { text } }")  # merged selections are not in the shared cache
        subscription = ShortcutExecutor.build(SCHEMA, document, subfields=subfields)
        assert isinstance(subscription, ShortcutExecutor)
        events = [subscription.build_per_event_executor([Item(number, "a")]) for number in range(3)]
        results = [event.execute_operation(False) for event in events]
        assert [result.data for result in results] == [{"items": [{"number": each, "text": "a"}]} for each in range(3)]
        assert [len(each._relevant_sub_fields) for each in (subscription, *events)] == [0, 1, 1, 1]

    def test_sub_fields_are_collected_once_for_all_events_with_a_cache(self, calls: Counter[str]) -> None:
        subscription = ShortcutExecutor.build(SCHEMA, parse("{ items { number } }"), subfields={})
        assert isinstance(subscription, ShortcutExecutor)
        for number in range(3):
            subscription.build_per_event_executor([Item(number)]).execute_operation(False)
        assert calls["collect_subfields"] == 1
