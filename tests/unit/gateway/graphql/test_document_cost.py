"""A caller pays for the work of parsing and validating a document before it is done, unless it is cached or trusted."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson
import pytest
from graphql import GraphQLError, get_introspection_query
from hypothesis import HealthCheck, given, settings

from gateway.graphql.execution import documents
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.protection.document_cost import document_cost
from gateway.graphql.protection.limits import Limits, parse_document
from gateway.http.rate_limits import Limit, MemorySlidingWindowStorage, RateLimiter, RateLimitOptions
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from tests.garbage import collect_garbage
from tests.unit.gateway.graphql.example_operations import example_operations
from tests.unit.gateway.graphql.full_services import FullServices
from tests.unit.gateway.graphql.hostile import bodies
from tests.unit.gateway.graphql.policies import load_document, new_policy
from tests.unit.gateway.graphql.test_hostile_requests import EXAMPLES

CALLS_PER_UNIT: Final = 70
"""Function calls of parsing and validating that one unit of cost pays for, at most. They take 3 to 10 µs."""

CUSTOMER: Final = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
OTHER: Final = Principal("issuer", "bob", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
TOKENS: Final = Limits().tokens
QUERY: Final = "query($name: String!) { __type(name: $name) { name } }"
INVALID: Final = "{ wrong }"


def count_calls(function: Callable[[], object]) -> int:
    """Count the calls of Python and C functions."""
    calls: Counter[str] = Counter()

    def count(_frame: object, event: str, _argument: object) -> None:
        calls[event] += 1

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls["call"] + calls["c_call"]


def load(text: str) -> None:
    with suppress(GraphQLError):
        load_document(text)


def texts_of(body: bytes) -> list[str]:
    """Return the documents of a request; nothing if its body is malformed."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    requests = parsed if isinstance(parsed, list) else [parsed]
    return [each["query"] for each in requests if isinstance(each, dict) and isinstance(each.get("query"), str)]


class TestDocumentCost:
    @pytest.mark.parametrize("body", EXAMPLES.values(), ids=EXAMPLES)
    def test_cost_covers_the_work_of_a_known_attack(self, body: bytes) -> None:
        for text in texts_of(body)[:1]:
            assert count_calls(partial(load, text)) <= CALLS_PER_UNIT * document_cost(text, TOKENS)

    @pytest.mark.slow
    @given(body=bodies())
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    def test_cost_covers_the_work_of_a_generated_attack(self, body: bytes) -> None:
        for text in texts_of(body)[:1]:
            assert count_calls(partial(load, text)) <= CALLS_PER_UNIT * document_cost(text, TOKENS)

    def test_ordinary_documents_cost_less_than_one_hundredth_of_the_rate_limit(self) -> None:
        limit = Limit("cost", RateLimitOptions.cost)
        texts = [document.loc.source.body for _, document in example_operations() if document.loc]
        texts.append(get_introspection_query(descriptions=True, input_value_deprecation=True))
        assert len(texts) > 100
        assert max(document_cost(text, TOKENS) for text in texts) < limit.amount / 100

    def test_documents_of_an_application_that_starts_are_far_from_the_rate_limit(self) -> None:
        texts = sorted((document.loc.source.body for _, document in example_operations() if document.loc), key=len)
        assert (
            sum(document_cost(text, TOKENS) for text in texts[-50:]) < Limit("cost", RateLimitOptions.cost).amount / 10
        )

    def test_only_tokens_that_the_parser_reads_are_counted(self) -> None:
        assert document_cost("a " * 30, 20) == document_cost("a " * 20 + "  " * 10, 20)


class Graph:
    """The merged graph with a rate limiter, whose clock stands still."""

    def __init__(self, options: RateLimitOptions | None = None, *, are_documents_trusted: bool = False) -> None:
        policy = new_policy(are_documents_trusted=are_documents_trusted)
        self.now = 0.0
        self.limiter = RateLimiter(options or RateLimitOptions(), MemorySlidingWindowStorage(lambda: self.now))
        self._schema = build_merged_schema(partial(OperationRunner, policy))

    async def execute(
        self, text: str, caller: Principal | None = CUSTOMER, address: str = "192.0.2.1", **variables: Any
    ) -> list[str]:
        """Execute an operation as the only one of its request. Return the codes of its errors."""
        request = request_context.RequestContext("the-request", principal=caller, client_address=address)
        request_context.current_request.set(request)
        context = FullServices().context(self.limiter)
        result = await self._schema.execute(text, variable_values=variables, context_value=context)
        return [(error.extensions or {})["code"] for error in result.errors or ()]

    async def charged(self, limit: Limit, client: str) -> int:
        status = await self.limiter.status(limit, client)
        assert status is not None
        return limit.amount - status.remaining


class TestCharge:
    async def test_document_that_is_not_valid_is_charged_each_time(self) -> None:
        graph = Graph()
        for _ in range(3):
            assert await graph.execute(INVALID) == ["INVALID_GRAPHQL"]
        assert await graph.charged(graph.limiter.cost, CUSTOMER.scope) == 3 * document_cost(INVALID, TOKENS)

    async def test_text_that_is_not_a_document_is_charged(self) -> None:
        graph = Graph()
        assert await graph.execute("}") == ["INVALID_GRAPHQL"]
        assert await graph.charged(graph.limiter.cost, CUSTOMER.scope) == document_cost("}", TOKENS)

    async def test_cached_document_costs_only_its_operation(self) -> None:
        graph = Graph()
        charges = []
        for _ in range(3):
            before = await graph.charged(graph.limiter.cost, CUSTOMER.scope)
            assert await graph.execute(QUERY, name="TopUp") == []
            charges.append(await graph.charged(graph.limiter.cost, CUSTOMER.scope) - before)
        operation = charges[1]
        assert charges == [document_cost(QUERY, TOKENS) + operation, operation, operation]

    async def test_document_that_another_caller_has_loaded_is_not_charged(self) -> None:
        graph = Graph()
        await graph.execute(QUERY, OTHER, name="TopUp")
        await graph.execute(QUERY, CUSTOMER, name="TopUp")
        assert await graph.charged(graph.limiter.cost, CUSTOMER.scope) < document_cost(QUERY, TOKENS)

    async def test_trusted_document_is_not_charged(self) -> None:
        graph = Graph(are_documents_trusted=True)
        assert await graph.execute(INVALID) == ["INVALID_GRAPHQL"]
        assert await graph.charged(graph.limiter.cost, CUSTOMER.scope) == 0

    async def test_document_above_the_rate_limit_is_refused_before_it_is_parsed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parsed = []

        def parse(text: str, *arguments: Any) -> Any:
            parsed.append(text)
            return parse_document(text, *arguments)

        monkeypatch.setattr(documents, "parse_document", parse)
        graph = Graph(RateLimitOptions(cost=f"{document_cost(INVALID, TOKENS)}/minute"))
        assert [await graph.execute(INVALID) for _ in range(3)] == [["INVALID_GRAPHQL"], *[["RATE_LIMITED"]] * 2]
        assert len(parsed) == 1
        graph.now = 120.0
        assert await graph.execute(INVALID) == ["INVALID_GRAPHQL"]

    async def test_document_that_costs_more_than_the_whole_limit_is_executed_once_per_window(self) -> None:
        graph = Graph(RateLimitOptions(cost="10/minute"))
        assert [await graph.execute(INVALID) for _ in range(2)] == [["INVALID_GRAPHQL"], ["RATE_LIMITED"]]

    async def test_anonymous_caller_pays_by_address(self) -> None:
        graph = Graph(RateLimitOptions(anonymous_cost=f"{document_cost(INVALID, TOKENS)}/minute"))
        assert await graph.execute(INVALID, None) == ["INVALID_GRAPHQL"]
        assert await graph.execute(INVALID, None) == ["RATE_LIMITED"]
        assert await graph.execute(INVALID, None, "192.0.2.2") == ["INVALID_GRAPHQL"]
        assert await graph.execute(INVALID, CUSTOMER) == ["INVALID_GRAPHQL"]

    async def test_operations_that_subscribe_pay_too(self) -> None:
        graph = Graph()
        request = request_context.RequestContext("the-request", principal=CUSTOMER)
        request_context.current_request.set(request)
        text = "subscription { wrong }"
        results: Any = await graph._schema.stream(text, context_value=FullServices().context(graph.limiter))
        assert [[error.extensions["code"] for error in result.errors] async for result in results] == [
            ["INVALID_GRAPHQL"]
        ]
        assert await graph.charged(graph.limiter.cost, CUSTOMER.scope) == document_cost(text, TOKENS)

    @pytest.mark.parametrize(
        "text", [INVALID, "}", "{ me " * 20 + "}" * 20, "query A { me { id } } query B { me { id } }"]
    )
    async def test_refused_document_is_freed_without_the_garbage_collector(self, text: str) -> None:
        graph = Graph()
        for _ in range(2):  # the first time creates what later requests share
            with collect_garbage("gateway", "graphql") as garbage:
                assert len(await graph.execute(text)) == 1
                await asyncio.sleep(0)
        assert not garbage
