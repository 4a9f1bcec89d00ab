"""Compiled operations have the results, the errors and the calls of resolvers that graphql-core has."""

import asyncio
from random import Random
from typing import Any

from graphql import (
    ExecutionResult,
    NoUnusedFragmentsRule,
    NoUnusedVariablesRule,
    execute,
    parse,
    specified_rules,
    validate,
)
from graphql.execution import Executor
from hypothesis import assume, given, note
from hypothesis import strategies as st

from gateway.graphql.execution.compiled import NotCompilable, OperationCompiler
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
