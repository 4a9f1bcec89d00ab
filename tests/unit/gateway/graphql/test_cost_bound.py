"""The estimated cost of any valid query is at least the actual cost of its response."""

import json
import random
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.protection.access import guard_root_fields
from gateway.graphql.protection.limits import Limits
from gateway.graphql.protection.prices import ARGUMENT_BYTES_PER_UNIT, FREE_ARGUMENT_BYTES, ROW_COST
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from tests.unit.gateway.graphql.full_services import FullServices
from tests.unit.gateway.graphql.policies import new_policy
from tests.unit.gateway.graphql.valid_operations import valid_queries
from wallet.graph import PAGE_COST

CUSTOMER = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
MAX_BYTES_PER_UNIT = 80
"""Maximum size of the response per unit of cost.

A unit pays for an id of 36 characters with its quotes, a key that is just too short to cost more, and punctuation.
"""
UNLIMITED = replace(
    Limits(), cost=2**31 - 1, tokens=100_000, fields=10_000, aliases=10_000, directives=10_000, depth=99
)
SCHEMA = build_merged_schema(partial(OperationRunner, new_policy(UNLIMITED)))
guard_root_fields(SCHEMA.core_schema)


class TestBound:
    @pytest.mark.slow
    @given(query=valid_queries(), seed=st.integers(0, 2**32), nulls=st.sets(st.sampled_from(("owner", "transfer"))))
    @settings(max_examples=60)
    async def test_estimate_is_at_least_the_actual_cost(self, query: Any, seed: int, nulls: set[str]) -> None:
        text, variables = query
        lengths = random.Random(seed)
        services = FullServices(lambda limit: lengths.choice((0, limit // 2, limit)), frozenset(nulls))
        await assert_bounded(services, text, variables)

    @pytest.mark.parametrize(
        "text",
        [
            '{ account(id: "ID") { operations { edges { node { id a: id __typename } } pageInfo { endCursor } } } }',
            '{ account(id: "ID") { topUps(first: 3) { edges { node { account { topUps { edges { cursor } } } } } } } }',
            """{ account(id: "ID") {
                statistics(from: "2026-01-31T12:00:00Z", to: "2026-03-01T00:00:01Z", granularity: WEEK) {
                    buckets { byType { type incoming { amount { amount } } } }
                }
            } }""",
            "{ accounts(first: 2) { edges { node { owner { username accounts { edges { node { id } } } } } } } }",
        ],
    )
    async def test_estimate_of_full_lists_is_close_to_the_actual_cost(self, text: str) -> None:
        estimated, actual = await assert_bounded(FullServices(), text.replace("ID", str(FULL_ID)), {})
        assert estimated <= 1.5 * actual

    @pytest.mark.parametrize(
        "text",
        [
            '{ account(id: "ID") { operations(first: 900) { isComplete } topUps(last: 9) { __typename } } }',
            "{ accounts(first: 10) { edges { node { owner { accounts { __typename } } topUps { __typename } } } } }",
            """{ account(id: "ID") {
                statistics(from: "2026-01-01T00:00:00Z", to: "2026-02-11T00:00:00Z", granularity: HOUR) { isComplete }
            } }""",
        ],
    )
    async def test_estimate_covers_the_rows_of_pages_whose_items_are_not_selected(self, text: str) -> None:
        services = FullServices()
        await assert_bounded(services, text.replace("ID", FULL_ID), {})
        assert services.rows > 100

    @pytest.mark.parametrize("length", [1, 31, 32, 63, 95])
    async def test_estimate_covers_the_bytes_of_long_leaves_with_aliases(self, length: int) -> None:
        keys = [f"{number:02}".rjust(length, "a") if length > 2 else f"a{number}" for number in range(50)]
        aliases = " ".join(f"{key}: id" for key in keys)
        text = f'{{ account(id: "{FULL_ID}") {{ operations(first: 200) {{ edges {{ node {{ {aliases} }} }} }} }} }}'
        await assert_bounded(FullServices(), text, {})

    @pytest.mark.parametrize("uses", [1, 24])
    async def test_estimate_covers_the_arguments_of_all_uses_of_a_variable(self, uses: int) -> None:
        numbers = range(1, uses + 1)
        pages = " ".join(f"a{number}: operations(first: {number}, filter: $f) {{ isComplete }}" for number in numbers)
        text = f"query($f: OperationFilter) {{ accounts(first: 9) {{ edges {{ node {{ {pages} }} }} }} }}"
        services = FullServices()
        await assert_bounded(services, text, {"f": {"types": ["TOP_UP"] * 700, "minAmount": "9" * 7_000}})
        assert services.filter_bytes == 9 * uses * (700 * len("TOP_UP") + 7_000)


FULL_ID = "123e4567-e89b-12d3-a456-426614174000"


async def assert_bounded(services: FullServices, text: str, variables: dict[str, Any]) -> tuple[int, int]:
    """Execute a query, assert that its estimate covers its work, and return the estimated and the actual cost."""
    request_context.current_request.set(request_context.RequestContext("the-request", principal=CUSTOMER))
    context = services.context()
    context.operations = []
    result = await SCHEMA.execute(text, variable_values=variables, context_value=context)
    assert result.errors is None, (text, result.errors)
    assert context.cost.estimated >= context.cost.actual
    assert context.cost.estimated >= PAGE_COST * services.pages + ROW_COST * services.rows, text
    paid_bytes = FREE_ARGUMENT_BYTES * services.pages + ARGUMENT_BYTES_PER_UNIT * context.cost.estimated
    assert paid_bytes >= services.filter_bytes, text
    data = json.dumps(result.data, separators=(",", ":"))
    assert len(data) <= len("{}") + MAX_BYTES_PER_UNIT * context.cost.estimated, text
    return context.cost.estimated, context.cost.actual
