"""Several replicas behind one address, on one topic: a feed goes on from another one as if nothing had happened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import pytest

from stack.ports import HOST, free_ports
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.analytics.graph.subscriptions import watch_operations
from subgraphs.bank.client import BankClient
from tests.integration.analytics.environment import AnalyticsEnvironment, beside, serving
from tests.integration.analytics.group import Load, joined, process
from tests.kafka.brokers import on_apache
from tests.waiting import until

pytestmark = pytest.mark.slow

FEEDS = 4


@dataclass(frozen=True)
class RequestClients:
    """Clients that a resolver reads from its request."""

    analytics: AnalyticsClient
    bank: BankClient


class Feeds:
    """Feeds of one account from its first operation on, as the gateway holds them, and all that they told."""

    def __init__(self) -> None:
        self.told: list[list[int]] = [[] for _ in range(FEEDS)]

    @asynccontextmanager
    async def followed(self, env: AnalyticsEnvironment, client: AnalyticsClient, account: UUID) -> AsyncIterator[None]:
        context = RequestClients(client, env.bank_client)

        async def follow(told: list[int]) -> None:
            async with aclosing(watch_operations(context, account, 0)) as operations:
                async for operation in operations:
                    told.append(operation.account_version)  # noqa: PERF401  read while it grows

        with env.caller("alice"):
            following = [asyncio.create_task(follow(told)) for told in self.told]
        try:
            yield
        finally:
            for each in following:
                each.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def have_told(self, version: int) -> None:
        """Returns when each has come to the version."""

        async def all_have() -> bool:
            return all(told and told[-1] >= version for told in self.told)

        try:
            await until(all_have)
        except AssertionError:
            raise AssertionError(f"at {[told[-1:] for told in self.told]}, not at {version}") from None


@on_apache
class TestReplicas:
    async def test_stream_has_no_gap_or_repeat_when_replicas_come_and_go(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open("alice"), env.bank.open("bob")
        load, stop, feeds = Load(env, [alice, bob]), asyncio.Event(), Feeds()
        first, second = process(env, bank_target=env.settings.bank_grpc_target), env.settings
        grpc_listen, admin_listen = (f"{HOST}:{port}" for port in free_ports(2))
        third = second.model_copy(update={"analytics_grpc_listen": grpc_listen, "analytics_admin_listen": admin_listen})
        addresses = f"{HOST}:{first.process.ports['grpc']},{second.analytics_grpc_listen},{grpc_listen}"
        async with (
            AnalyticsClient.connect(f"ipv4:{addresses}") as client,
            AsyncExitStack() as replicas,
            beside(load.published_until(stop)) as publishing,
        ):
            await replicas.enter_async_context(first)
            async with serving(second):
                await joined(env, 2)
                await replicas.enter_async_context(feeds.followed(env, client, alice))
                await feeds.have_told(len(load.events))
                first.kill()
                await first.wait()
                await feeds.have_told(len(load.events) + 20)
                await joined(env, 1)
                await replicas.enter_async_context(serving(third))
                await joined(env, 2)
                await feeds.have_told(len(load.events))
            await joined(env, 1)
            stop.set()
            await publishing
            await feeds.have_told(len(load.events))
            assert feeds.told == [list(range(1, len(load.events) + 1))] * FEEDS
            await load.is_stored()
