"""The events that a subscription replays are charged to the caller's rate limit."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.http.rate_limits import MemorySlidingWindowStorage, RateLimiter, RateLimitOptions
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from subgraphs.analytics import client
from tests.operations import new_operation
from tests.unit.gateway.graphql.full_services import ID, FullServices
from tests.unit.gateway.graphql.policies import new_policy
from wallet import cursor

CUSTOMER = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
SUBSCRIPTION = "subscription($id: ID!, $after: String) { operationAdded(accountId: $id, after: $after) { id type } }"
EVENT_COST = 60 + 10 + 1 + 1
SCHEMA = build_merged_schema(partial(OperationRunner, new_policy(are_documents_trusted=True)))


@dataclass
class History(FullServices):
    """Services with one account, which has `versions` operations. All operations are available immediately."""

    versions: int = 0

    async def watch_operations(self, account_id: Any, after: int, epoch: str) -> AsyncGenerator[client.Operation, None]:
        for version in range(after + 1, self.versions + 1):
            yield new_operation(version)
        await asyncio.Event().wait()


@dataclass
class Time:
    """Manual clock that records the waits."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    request_context.current_request.set(request_context.RequestContext("the-request", principal=CUSTOMER))
    return Time()


def new_limiter(rate: str, time: Time) -> RateLimiter:
    return RateLimiter(RateLimitOptions(cost=rate), MemorySlidingWindowStorage(lambda: time.now), sleep=time.sleep)


async def replay(events: int, limiter: RateLimiter) -> list[str]:
    """Subscribe from the account's first operation, and unsubscribe after `events` events. Return their ids."""
    variables = {"id": str(ID), "after": cursor.encode_version(0)}
    context = History(versions=events).context(limiter)
    results: Any = await SCHEMA.stream(SUBSCRIPTION, variable_values=variables, context_value=context)
    received = []
    async with aclosing(results):
        async for result in results:
            assert result.errors is None
            received.append(result.data["operationAdded"]["id"])
            if len(received) == events:
                break
    return received


async def charged_cost(limiter: RateLimiter) -> int:
    status = await limiter.status(limiter.cost, CUSTOMER.scope)
    assert status is not None
    return limiter.cost.amount - status.remaining


class TestStreamPayment:
    @pytest.mark.parametrize("events", [1, 2, 50, 1_000])
    async def test_every_replayed_event_is_charged(self, time: Time, events: int) -> None:
        limiter = new_limiter("1000000/hour", time)
        assert len(await replay(events, limiter)) == events
        assert await charged_cost(limiter) == events * EVENT_COST
        assert time.waits == []

    async def test_stream_waits_while_the_rate_limit_is_exceeded(self, time: Time) -> None:
        limiter = new_limiter("7200/minute", time)  # the cost of 100 events
        assert len(await replay(1_000, limiter)) == 1_000
        assert 60 * 8 <= time.now <= 60 * 12  # about ten minutes: the events cost 72,000
        assert len(time.waits) < 1_000

    async def test_stream_continues_with_a_rate_limit_below_one_payment(self, time: Time) -> None:
        limiter = new_limiter("100/second", time)
        assert len(await replay(100, limiter)) == 100

    async def test_other_tasks_run_while_history_is_replayed(self, time: Time) -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        await replay(1_000, new_limiter("1000000/hour", time))
        counting.cancel()
        assert turns >= 1_000
