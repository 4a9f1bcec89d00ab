"""Several replicas in one gRPC target: a stream continues on another replica without gaps or repeats."""

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
from tests.integration.analytics.environment import AnalyticsEnvironment, background, run_analytics
from tests.integration.analytics.group import Load, analytics_process, until_group_size
from tests.kafka.brokers import on_apache
from tests.waiting import until
from wallet.cursor import HistoryPosition

pytestmark = pytest.mark.slow

FEEDS = 4


@dataclass(frozen=True)
class RequestClients:
    """The clients that resolvers read from the context of their request."""

    analytics: AnalyticsClient
    bank: BankClient


class Feeds:
    """Streams of one account from its first operation, opened as in the gateway, and the versions they yielded."""

    def __init__(self) -> None:
        self.versions: list[list[int]] = [[] for _ in range(FEEDS)]

    @asynccontextmanager
    async def open_streams(
        self, env: AnalyticsEnvironment, client: AnalyticsClient, account: UUID
    ) -> AsyncIterator[None]:
        context = RequestClients(client, env.bank_client)

        async def follow(versions: list[int]) -> None:
            async with aclosing(watch_operations(context, account, HistoryPosition(0, ""))) as operations:
                async for operation in operations:
                    versions.append(operation.account_version)  # noqa: PERF401  the test reads the growing list

        with env.as_user("alice"):
            following = [asyncio.create_task(follow(versions)) for versions in self.versions]
        try:
            yield
        finally:
            for each in following:
                each.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def until_reached(self, version: int) -> None:
        """Wait until each stream has reached the version."""

        async def all_have() -> bool:
            return all(versions and versions[-1] >= version for versions in self.versions)

        try:
            await until(all_have)
        except AssertionError:
            reached = [versions[-1:] for versions in self.versions]
            raise AssertionError(f"the streams have reached versions {reached}, not {version}") from None


@on_apache
class TestReplicas:
    async def test_stream_has_no_gap_or_repeat_when_replicas_start_and_stop(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open("alice"), env.bank.open("bob")
        load, stop, feeds = Load(env, [alice, bob]), asyncio.Event(), Feeds()
        first, second = analytics_process(env, bank_target=env.settings.bank_grpc_target), env.settings
        grpc_listen, admin_listen = (f"{HOST}:{port}" for port in free_ports(2))
        third = second.model_copy(update={"analytics_grpc_listen": grpc_listen, "analytics_admin_listen": admin_listen})
        addresses = f"{HOST}:{first.process.ports['grpc']},{second.analytics_grpc_listen},{grpc_listen}"
        async with (
            AnalyticsClient.connect(f"ipv4:{addresses}") as client,
            AsyncExitStack() as replicas,
            background(load.publish_until(stop)) as publishing,
        ):
            await replicas.enter_async_context(first)
            async with run_analytics(second):
                await until_group_size(env, 2)
                await replicas.enter_async_context(feeds.open_streams(env, client, alice))
                await feeds.until_reached(len(load.events))
                first.kill()
                await first.wait()
                await feeds.until_reached(len(load.events) + 20)
                await until_group_size(env, 1)
                await replicas.enter_async_context(run_analytics(third))
                await until_group_size(env, 2)
                await feeds.until_reached(len(load.events))
            await until_group_size(env, 1)
            stop.set()
            await publishing
            await feeds.until_reached(len(load.events))
            assert feeds.versions == [list(range(1, len(load.events) + 1))] * FEEDS
            await load.until_stored()
