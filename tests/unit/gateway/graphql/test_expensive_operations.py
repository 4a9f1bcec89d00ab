"""Expensive operations and large bodies wait for earlier ones of their client, and other tasks run in between."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from graphql import get_introspection_query

from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.http import work_limits
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.work_limits import WorkLimits, hold_body
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from kit.runtime.fair_limit import FairLimit
from subgraphs.analytics import client as analytics
from tests.unit.gateway.graphql.full_services import ID, FullServices
from tests.unit.gateway.graphql.policies import new_policy
from tests.waiting import until

ALICE, BOB = (
    Principal("issuer", name, is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
    for name in ("alice", "bob")
)
STATISTICS = f"""{{ account(id: "{ID}") {{
    statistics(from: "2026-01-01T00:00:00Z", to: "2026-01-11T00:00:00Z", granularity: HOUR) {{ buckets {{ start }} }}
}} }}"""
CHEAP = f'{{ account(id: "{ID}") {{ id }} }}'


class WaitingServices(FullServices):
    """Services whose statistics wait for `proceed`. `waiting` is the number of calls that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.proceed = asyncio.Event()
        self.waiting = 0

    async def get_statistics(self, *arguments: Any, **options: Any) -> analytics.Statistics:
        self.waiting += 1
        await self.proceed.wait()
        self.waiting -= 1
        return await super().get_statistics(*arguments, **options)


class Graph:
    """The merged graph of one gateway."""

    def __init__(self, rates: RateLimitOptions | None = None, work: WorkLimits | None = None) -> None:
        self.services = WaitingServices()
        self.limiter = RateLimiter(rates or RateLimitOptions(is_on=False))
        self._schema = build_merged_schema(partial(OperationRunner, replace(new_policy(), work=work or WorkLimits())))

    async def execute(
        self, text: str, caller: Principal | None, deadline: float | None = None, address: str = "192.0.2.1"
    ) -> list[str]:
        """Execute an operation, and return the codes of its errors."""
        request_context.current_request.set(
            request_context.RequestContext("request", principal=caller, client_address=address, deadline=deadline)
        )
        result = await self._schema.execute(text, context_value=self.services.context(self.limiter))
        return [(error.extensions or {})["code"] for error in result.errors or ()]

    async def until_waiting(self, count: int) -> None:
        """Wait until calls of a service wait, and until nothing else can happen."""

        async def is_reached() -> bool:
            return self.services.waiting >= count

        await until(is_reached)
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_limits, "_PAUSE_SECONDS_PER_COST", 0.0)


async def test_expensive_operations_of_one_caller_are_executed_one_after_another(no_pauses: None) -> None:
    graph = Graph()
    running = [asyncio.create_task(graph.execute(STATISTICS, ALICE)) for _ in range(3)]
    await graph.until_waiting(1)
    assert graph.services.waiting == 1
    neighbour = asyncio.create_task(graph.execute(STATISTICS, BOB))
    other = asyncio.create_task(graph.execute(STATISTICS, BOB, address="198.51.100.1"))
    await graph.until_waiting(1)
    assert graph.services.waiting == 1, "the neighbour waits for his address, and so does his other operation"
    assert await graph.execute(CHEAP, ALICE) == []
    graph.services.proceed.set()
    assert await asyncio.gather(*running, neighbour, other) == [[]] * 5


async def test_expensive_operations_of_one_address_do_not_delay_another_address(no_pauses: None) -> None:
    graph = Graph()
    running = [asyncio.create_task(graph.execute(STATISTICS, ALICE)) for _ in range(3)]
    other = asyncio.create_task(graph.execute(STATISTICS, BOB, address="198.51.100.1"))
    await graph.until_waiting(2)
    graph.services.proceed.set()
    assert await asyncio.gather(*running, other) == [[]] * 4


async def test_concurrent_operations_of_one_address_are_limited() -> None:
    graph = Graph(work=WorkLimits(operations=FairLimit(1)))
    running = asyncio.create_task(graph.execute(STATISTICS, ALICE))
    await graph.until_waiting(1)
    assert await graph.execute(CHEAP, BOB, deadline=0.0) == ["RESOURCE_EXHAUSTED"]
    assert await graph.execute(CHEAP, BOB, address="198.51.100.1") == []
    graph.services.proceed.set()
    assert await running == []
    assert await graph.execute(CHEAP, BOB) == []


async def test_operation_that_cannot_start_before_the_deadline_is_refused(no_pauses: None) -> None:
    graph = Graph()
    running = asyncio.create_task(graph.execute(STATISTICS, ALICE))
    await graph.until_waiting(1)
    assert await graph.execute(STATISTICS, ALICE, deadline=0.0) == ["RESOURCE_EXHAUSTED"]
    graph.services.proceed.set()
    assert await running == []
    assert await graph.execute(STATISTICS, ALICE) == []


async def test_client_has_a_pause_after_an_expensive_operation_if_other_addresses_are_active(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_limits, "_PAUSE_SECONDS_PER_COST", 60.0)
    graph = Graph()
    graph.services.proceed.set()
    graph.limiter.time.is_shared = True
    assert await graph.execute(STATISTICS, ALICE) == []
    assert await graph.execute(STATISTICS, ALICE, deadline=0.0) == ["RESOURCE_EXHAUSTED"]
    assert await graph.execute(CHEAP, ALICE) == []
    assert await graph.execute(STATISTICS, BOB, deadline=0.0, address="198.51.100.1") == []


async def test_client_of_the_only_active_address_has_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_limits, "_PAUSE_SECONDS_PER_COST", 60.0)
    graph = Graph()
    graph.services.proceed.set()
    assert await graph.execute(STATISTICS, ALICE) == []
    assert await graph.execute(STATISTICS, ALICE, deadline=0.0) == []


async def test_introspection_without_a_token_is_charged_to_the_address() -> None:
    graph = Graph(RateLimitOptions(anonymous_cost="12000/hour"))
    introspection = get_introspection_query(descriptions=False)
    outcomes = [await graph.execute(introspection, None) for _ in range(4)]
    assert outcomes[0] == []
    assert outcomes[-1] == ["RATE_LIMITED"]
    assert await graph.execute(CHEAP, ALICE) == []


async def test_large_bodies_of_one_client_are_parsed_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_limits, "_PAUSE_SECONDS_PER_BYTE", 0.0)
    work, parsed, proceed = WorkLimits(bodies=FairLimit(100, 1_000)), list[str](), asyncio.Event()

    async def parse(caller: Principal, size: int) -> None:
        request_context.current_request.set(request_context.RequestContext("request", principal=caller))
        async with hold_body(work.bodies, size):
            parsed.append(caller.subject)
            await proceed.wait()

    tasks = [asyncio.create_task(parse(caller, 90)) for caller in (ALICE, ALICE, BOB)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert parsed == ["alice", "bob"]
    proceed.set()
    await asyncio.gather(*tasks)
    assert parsed == ["alice", "bob", "alice"]
