"""The private parts of graphql-core that the gateway uses exist and have an effect."""

import asyncio
import gc
import inspect
import weakref
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any

import pytest
from graphql import (
    SKIP,
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    GraphQLString,
    Node,
    SelectionSetNode,
    TypeInfo,
    ValidationContext,
    build_schema,
    execute,
    parse,
    specified_rules,
    validate,
)
from graphql.execution import Executor
from graphql.language import OperationDefinitionNode
from graphql.language.parser import Parser
from hypothesis import given

from gateway.graphql.execution.compiled import SourceResolver
from gateway.graphql.execution.graphql_core_internals import (
    CoreExecutor,
    LimitedParser,
    LiteralRule,
    NameTooLong,
    RuleSet,
    TooManyTokens,
)
from gateway.graphql.execution.strawberry_internals import STRAWBERRY_RULES
from tests.garbage import collect_garbage
from tests.unit.gateway.graphql.example_operations import example_operations
from tests.unit.gateway.graphql.hostile import documents
from tests.unit.gateway.graphql.policies import SCHEMA as GRAPH
from tests.unit.gateway.graphql.policies import load_document

RULES = [*specified_rules, *STRAWBERRY_RULES]


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
        "number": GraphQLField(GraphQLNonNull(GraphQLInt), resolve=SourceResolver(attrgetter("number"))),
        "text": GraphQLField(GraphQLString, resolve=SourceResolver(attrgetter("text"))),
        "parent": GraphQLField(ITEM, resolve=SourceResolver(attrgetter("parent"))),
    },
)
SCHEMA = GraphQLSchema(
    GraphQLObjectType("Query", {"items": GraphQLField(GraphQLList(ITEM), resolve=lambda source, _: source)})
)


def run(document: DocumentNode, items: list[Item]) -> Any:
    """Execute a query with `CoreExecutor`."""
    return execute(SCHEMA, document, items, executor_class=CoreExecutor)


class TestSignatures:
    @pytest.mark.parametrize(
        ("method", "parameters"),
        [
            (Executor.handle_field_error, ["self", "raw_error", "return_type", "field_details_list", "path"]),
            *(
                (
                    method,
                    ["self", "item_type", "field_details_list", "info", "path", items, "position_context"],
                )
                for method, items in (
                    (Executor.complete_iterable_value, "items"),
                    (Executor.complete_async_iterator_value, "async_iterator"),
                )
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


INVALID_DOCUMENTS = [
    "{ acount { id } me { zzz } ...Missing }",
    "{ a } query Q { me { id } } query Q { me { id } }",
    "query($a: Int, $a: Int, $b: Nothing) { account(id: $c) { id(x: 1) balance } }",
    "query A($id: ID!) { ...F } query B { ...F } fragment F on Query { account(id: $id) { id } }",
    "{ me { ...F } } fragment F on Money { amount } fragment G on String { x } fragment G on User { id }",
    "{ ...F } fragment F on Query { ...G } fragment G on Query { ...F }",
    "{ x: me { id } x: account(id: 1) { id } ... @skip { me { id id @skip(if: 1) @skip(if: 1) @what } } }",
    "subscription { a: topUpUpdated(id: 1) { id } b: topUpUpdated(id: 1) { id } }",
    "subscription @skip(if: true) { topUpUpdated(id: 1) @defer { id } }",
    '{ account(id: 1, id: "2") { operations(filter: { types: [A], types: 1, x: 2 }, first: "1") { __typename } } }',
    "type Query { a: Int } { me { id } } extend type Query @deprecated @deprecated { b: Int }",
    "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }",
]


def describe(errors: list[GraphQLError]) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """Return the messages of errors, and the kinds and places of their nodes.

    An error that ends a validation early has no nodes. Its message differs from that of graphql-core, so this function
    returns `stopped` instead of the message.
    """

    def place(node: Node) -> tuple[str, int, int] | None:
        return (node.kind, node.loc.start, node.loc.end) if node.loc else None

    return [
        (error.message if error.nodes else "stopped", [each for each in map(place, error.nodes or ()) if each])
        for error in errors
    ]


class TestRuleSet:
    @pytest.mark.parametrize("text", INVALID_DOCUMENTS)
    def test_errors_are_those_of_graphql_core(self, text: str) -> None:
        document = parse(text)
        own = RuleSet(RULES).validate(GRAPH, document, 100)
        assert describe(own) == describe(validate(GRAPH, document, RULES, 100, hide_suggestions=True))

    @pytest.mark.slow
    def test_errors_of_all_operations_in_the_repository_are_those_of_graphql_core(self) -> None:
        rules = RuleSet(RULES)
        for place, document in example_operations():
            expected = validate(GRAPH, document, RULES, 100, hide_suggestions=True)
            assert describe(rules.validate(GRAPH, document, 100)) == describe(expected), place

    @pytest.mark.slow
    @given(text=documents(limit=2_000))
    def test_errors_of_generated_documents_are_those_of_graphql_core(self, text: str) -> None:
        try:
            document = LimitedParser(text, 2_000, 100).parse_document()
        except (GraphQLError, NameTooLong, RecursionError):
            return
        own = RuleSet(RULES).validate(GRAPH, document, 100)
        assert describe(own) == describe(validate(GRAPH, document, RULES, 100, hide_suggestions=True))

    def test_validation_stops_after_the_maximum_of_errors(self) -> None:
        *errors, last = RuleSet(RULES).validate(GRAPH, parse("{ a b c d e }"), 3)
        assert [len(error.nodes or ()) for error in errors] == [1, 1, 1]
        assert last.nodes is None

    def test_validation_stops_after_too_much_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("graphql.validation.validation_context.MAX_FRAGMENT_WORK", 0)
        (stopped,) = RuleSet(RULES).validate(GRAPH, parse("{ ...F } fragment F on Query { me { id } }"), 3)
        assert stopped.nodes is None

    def test_rule_that_skips_a_node_visits_the_nodes_after_it(self) -> None:
        visited: list[str] = []

        class Skipping(ASTValidationRule):
            def enter_field(self, node: FieldNode, *_: Any) -> Any:
                visited.append(node.name.value)
                return SKIP if node.name.value == "a" else None

            def leave_field(self, node: FieldNode, *_: Any) -> None:
                visited.append(f"/{node.name.value}")

        RuleSet([Skipping]).validate(GRAPH, parse("{ a { b } c { d } }"), 1)
        assert visited == ["a", "c", "d", "/d", "/c"]

    def test_no_node_is_hashed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed: list[Node] = []
        text = "query A($id: ID!) { ...F } query B($id: ID!) { ...F } fragment F on Query { account(id: $id) { id } }"
        document = parse(text)

        def record_hash(node: Node) -> int:
            hashed.append(node)
            return id(node)

        for node_class in (OperationDefinitionNode, FragmentDefinitionNode, SelectionSetNode, FieldNode):
            monkeypatch.setattr(node_class, "__hash__", record_hash)
        assert RuleSet(RULES).validate(GRAPH, document, 1) == []
        assert hashed == []
        assert validate(GRAPH, document, RULES) == []
        assert hashed, "graphql-core no longer hashes nodes: remove `_CachingContext`"

    def test_rule_that_visits_names_is_refused(self) -> None:
        class Names(ASTValidationRule):
            def enter_name(self, *_: Any) -> None:
                pass

        with pytest.raises(ValueError, match="visits names"):
            RuleSet([Names])

    def test_caches_of_the_context_still_exist(self) -> None:
        context = ValidationContext(SCHEMA, parse("{ a }"), TypeInfo(SCHEMA), lambda _: None)
        caches = {"_fragment_spreads", "_variable_usages", "_recursive_variable_usages"}
        assert caches <= vars(context).keys()


class TestFieldErrors:
    def test_error_of_a_field_is_located_without_a_search_in_the_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        searches: list[Any] = []
        monkeypatch.setattr("graphql.language.location.get_locations", searches.append)
        result = run(parse("{ items { number } }"), [Item("x"), Item(2)])
        (error,) = result.errors
        assert (error.path, [type(each).__name__ for each in error.nodes]) == (["items", 0, "number"], ["FieldNode"])
        assert isinstance(error.original_error, GraphQLError)
        assert searches == []


class TestLongLists:
    async def test_other_tasks_run_during_a_long_list(self) -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count_turns())
        await asyncio.sleep(0)
        before = turns
        result = await run(parse("{ items { number } }"), [Item(number) for number in range(200)])
        counting.cancel()
        assert result.data == {"items": [{"number": number} for number in range(200)]}
        assert turns - before >= 5

    async def test_short_list_is_completed_at_once(self) -> None:
        result = run(parse("{ items { number } }"), [Item(number) for number in range(20)])
        assert len(result.data["items"]) == 20

    async def test_error_in_a_long_list_has_its_path(self) -> None:
        items = [Item(number) for number in range(100)]
        items[70] = Item(None)
        result = await run(parse("{ items { number } }"), items)
        assert result.data["items"][70] is None
        assert [error.path for error in result.errors] == [["items", 70, "number"]]


class TestMemory:
    @pytest.mark.parametrize(
        "text",
        [
            "query($id: ID!) { account(id: $id) { id ...F } } fragment F on Account { statistics(from: $id) { id } }",
            "{ me { id wrong } #comment\n }",
            "{ me { id } } }",
            "{ " + "me { " * 100,
        ],
        ids=["valid tokens and variables", "invalid, with a comment", "syntax error", "too deep"],
    )
    def test_document_leaves_no_reference_cycle(self, text: str) -> None:
        with suppress(GraphQLError):  # creates what is created only once
            load_document(text)
        with collect_garbage("gateway", "graphql") as garbage, suppress(GraphQLError):
            load_document(text)
        assert not garbage

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
        executor = CoreExecutor.build(SCHEMA, parse("{ items { number } }"))
        collected = weakref.ref(executor)
        gc.disable()
        try:
            del executor
            assert collected() is None
        finally:
            gc.enable()


class TestAsyncHelpers:
    async def test_resolver_can_track_and_gather_coroutines(self) -> None:
        tracked: list[str] = []

        async def track() -> None:
            tracked.append("done")

        async def number(text: str) -> int:
            return int(text)

        async def resolve(_: Any, info: GraphQLResolveInfo[Any]) -> int:
            info.async_helpers.track([track()])
            return sum(await info.async_helpers.gather([number("1"), number("2")]))

        query = GraphQLObjectType("Query", {"sum": GraphQLField(GraphQLInt, resolve=resolve)})
        result = await execute(GraphQLSchema(query), parse("{ sum }"), executor_class=CoreExecutor)  # type: ignore[misc]
        assert (result.data, result.errors, tracked) == ({"sum": 3}, None, ["done"])


class TestEvents:
    def test_sub_fields_of_an_event_are_not_kept_for_the_next(self) -> None:
        subscription = CoreExecutor.build(SCHEMA, parse("{ items { number } items { text } }"))
        assert isinstance(subscription, CoreExecutor)
        events = [subscription.build_per_event_executor([Item(number, "a")]) for number in range(3)]
        results = [event.execute_operation(False) for event in events]
        assert [result.data for result in results] == [{"items": [{"number": each, "text": "a"}]} for each in range(3)]
        assert [len(each._relevant_sub_fields) for each in (subscription, *events)] == [0, 1, 1, 1]
