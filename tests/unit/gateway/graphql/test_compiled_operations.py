"""Compiled operations have the results, the errors and the calls of resolvers that graphql-core has."""

import asyncio
import gc
import weakref
from random import Random
from typing import Any

import pytest
from graphql import (
    ExecutionResult,
    NoUnusedFragmentsRule,
    NoUnusedVariablesRule,
    build_schema,
    execute,
    parse,
    specified_rules,
    validate,
)
from graphql.execution import Executor
from hypothesis import assume, given, note
from hypothesis import strategies as st

from gateway.graphql.execution.compiled import CompiledOperation, LongLists, NotCompilable, OperationCompiler, Options
from tests.unit.gateway.graphql.generated_graphs import Graph, variables

SEEDS = st.integers(0, 2**32)
RULES = [each for each in specified_rules if each not in {NoUnusedFragmentsRule, NoUnusedVariablesRule}]


def describe(result: ExecutionResult) -> tuple[Any, list[tuple[Any, ...]]]:
    """Return the data of a result with the order of its keys, and its errors in a fixed order."""
    errors = [(str(error.path), error.message, str(error.locations)) for error in result.errors or ()]
    return repr(result.data), sorted(errors)


async def run_core(graph: Graph, text: str, values: dict[str, Any], random: Random) -> list[ExecutionResult]:
    """Execute an operation with graphql-core, a subscription for two events."""
    document = parse(text)
    if text.startswith("subscription"):
        executor: Any = Executor.build(graph.schema, document, None, "context", values)
        if isinstance(executor, list):
            return [ExecutionResult(None, executor)]
        events = [executor.build_per_event_executor(event_source(graph, random)) for _ in range(2)]
        results = [event.execute_operation(False) for event in events]
    else:
        results = [execute(graph.schema, document, event_source(graph, random), "context", values)]
    return [await each if asyncio.iscoroutine(each) else each for each in results]


async def run_compiled(graph: Graph, text: str, values: dict[str, Any], random: Random) -> list[ExecutionResult]:
    """Execute a compiled operation, a subscription for two events."""
    document = parse(text)
    operation = OperationCompiler(graph.schema).compile(document)
    results: list[Any]
    if text.startswith("subscription"):
        executor: Any = Executor.build(graph.schema, document, None, "context", values)
        if isinstance(executor, list):
            return [ExecutionResult(None, executor)]
        events = [executor.build_per_event_executor(event_source(graph, random)) for _ in range(2)]
        results = [operation.execute_event(event) for event in events]
    else:
        operation._variables.read({"yes": True})  # graphql-core reads the first variables, the compiled reader others
        results = [operation.execute(event_source(graph, random), "context", values)]
    return [await each if asyncio.iscoroutine(each) else each for each in results]


def event_source(graph: Graph, random: Random) -> Any:
    """Return the source of the root fields."""
    query: Any = graph.schema.query_type
    return graph.source(query, random, 3)


# A task that is cancelled before its first step awaits nothing, in graphql-core too.
@pytest.mark.filterwarnings("ignore:.*was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestEquality:
    @given(schema=SEEDS, operation=SEEDS, kind=st.sampled_from(["query", "query", "mutation", "subscription"]))
    def test_result_and_calls_are_those_of_graphql_core(self, schema: int, operation: int, kind: str) -> None:
        expected, actual = Graph(schema), Graph(schema)
        random = Random(operation)
        text, values = expected.document(kind, random), variables(random)
        assume(not validate(expected.schema, parse(text), RULES))
        note(f"{text}\n{values}")
        expected_results = asyncio.run(run_core(expected, text, values, Random(operation)))
        try:
            actual_results = asyncio.run(run_compiled(actual, text, values, Random(operation)))
        except NotCompilable:
            assert values.get("no", 0) is None or values["yes"] is None  # a condition is not valid
            return
        assert [describe(each) for each in actual_results] == [describe(each) for each in expected_results]
        assert actual.calls == expected.calls
        if kind == "mutation":
            assert actual.order == expected.order


ITEMS = build_schema("""
    type Query { items: [Item!] item: Item must: Item! a: Int b: Int }
    type Mutation { a: Int b: Int }
    type Item { number: Int! name: String }
""")


def compile_text(text: str, **options: Any) -> CompiledOperation:
    return OperationCompiler(ITEMS, Options(**options)).compile(parse(text))


class TestLimits:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("{ __schema { types { name } } }", "introspection"),
            ("{ item { name @stream } }", "@stream"),
            ("query A { a } query B { b }", "no operation"),
            ("{ a b item { name number } }", "too many fields"),
        ],
    )
    def test_operation_that_cannot_be_compiled_is_refused_before_a_resolver_is_called(
        self, text: str, reason: str
    ) -> None:
        with pytest.raises(NotCompilable, match=reason):
            compile_text(text, max_fields=4).execute({"a": lambda _: pytest.fail("called")})

    def test_plans_of_all_conditions_count(self) -> None:
        operation = compile_text("query($x: Boolean!, $y: Boolean!) { a @skip(if: $x) b @skip(if: $y) }", max_fields=3)
        for each in (True, False, False):
            operation.execute({}, None, {"x": each, "y": each})
        assert operation.fields == 2
        operation.execute({}, None, {"x": True, "y": False})
        with pytest.raises(NotCompilable):
            operation.execute({}, None, {"x": False, "y": True})


class TestConcurrency:
    async def test_siblings_run_concurrently(self) -> None:
        first, second = asyncio.Event(), asyncio.Event()

        async def a(_: Any) -> int:
            first.set()
            await second.wait()
            return 1

        async def b(_: Any) -> int:
            await first.wait()
            second.set()
            return 2

        result = await compile_text("{ a b }").execute({"a": a, "b": b})  # type: ignore[misc]
        assert (result.data, result.errors) == ({"a": 1, "b": 2}, None)

    async def test_mutation_begins_a_field_when_the_one_before_it_is_complete(self) -> None:
        order: list[str] = []

        async def a(_: Any) -> int:
            order.append("a begins")
            await asyncio.sleep(0)
            order.append("a ends")
            return 1

        await compile_text("mutation { a b }").execute({"a": a, "b": lambda _: order.append("b")})  # type: ignore[misc]
        assert order == ["a begins", "a ends", "b"]

    async def test_cancelled_execution_cancels_its_resolvers(self) -> None:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def a(_: Any) -> None:
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        task = asyncio.ensure_future(compile_text("{ a b }").execute({"a": a, "b": a}))  # type: ignore[arg-type]
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled.is_set()

    async def test_other_tasks_run_after_each_part_of_a_long_list(self) -> None:
        pauses: list[int] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds >= 0)

        items = [{"number": number} for number in range(7)]
        items[4] = {"number": "many"}  # type: ignore[dict-item]
        operation = compile_text("{ items { number } }", long_lists=LongLists(3, pause))
        result = await operation.execute({"items": items[:4]})  # type: ignore[misc]
        assert (result.data["items"], len(pauses)) == (items[:4], 1)
        result = await operation.execute({"items": items})  # type: ignore[misc]
        assert [error.path for error in result.errors or ()] == [["items", 4, "number"]]
        assert (result.data, len(pauses)) == ({"items": None}, 2)
        assert isinstance(operation.execute({"items": items[:3]}), ExecutionResult)


class TestMemory:
    @pytest.mark.parametrize("text", ["{ items { number name } }", "{ items { number } must { name } }"])
    def test_execution_leaves_no_reference_cycle(self, text: str) -> None:
        class Item:
            name, number = "a", "many"

        operation, gone = compile_text(text), Item()
        operation.execute({"items": [gone]})
        freed = weakref.ref(gone)
        gc.collect()
        gc.disable()
        try:
            assert operation.execute({"items": [gone]}).errors  # type: ignore[union-attr]
            del gone
            assert freed() is None
        finally:
            gc.enable()
