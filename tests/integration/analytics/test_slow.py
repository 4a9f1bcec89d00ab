"""Subscribers that do not read, over gRPC and WebSocket: each buffer is bounded, and the stream ends with an error."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from uuid import UUID

import pytest

from gateway.app import build_app
from gateway.graphql.execution.options import GraphOptions
from gateway.http.cors import CorsOptions
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from kit.http.server import http_server
from kit.rpc.server import Service, grpc_server
from subgraphs.analytics.client import AnalyticsClient, Operation
from subgraphs.analytics.service.api.policy import POLICY
from subgraphs.analytics.service.api.servicer import SERVICE, AnalyticsServicer
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.analytics.service.application.service import Analytics
from subgraphs.analytics.service.application.subscription_hub import HubLimits, SubscriptionHub
from subgraphs.card.client import CardClient
from subgraphs.identity.client import IdentityClient
from tests.conftest import Keys
from tests.e2e.feeds import connected, subscribe
from tests.integration.analytics.environment import AnalyticsEnvironment
from wallet import cursor
from wallet.errors import SubscriberTooSlow

BUFFER_SIZE = 50
MAX_OPERATIONS = 5_000
"""Many times the number of operations that the connections' buffers hold."""


@pytest.fixture
async def hub(env: AnalyticsEnvironment, keys: Keys) -> AsyncIterator[SubscriptionHub]:
    """Yield the hub of a running service."""
    hub = env.hub(limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, buffer_size=BUFFER_SIZE))
    servicer = AnalyticsServicer(Analytics(env.history, env.ledger, hub._epochs, hub, AccountOwners(env.bank_client)))
    async with grpc_server(
        env.settings.analytics_grpc_listen, keys.verifier(), {SERVICE: Service(servicer.register, POLICY)}
    ):
        yield hub
        hub.close()


@pytest.fixture
async def client(env: AnalyticsEnvironment, hub: SubscriptionHub) -> AsyncIterator[AnalyticsClient]:
    async with AnalyticsClient.connect(env.settings.analytics_grpc_listen) as client:
        yield client


@pytest.fixture
async def gateway(env: AnalyticsEnvironment, client: AnalyticsClient, keys: Keys) -> AsyncIterator[str]:
    """Run a gateway for the service, and yield its WebSocket address."""
    address = env.settings.analytics_admin_listen  # card and identity are not called
    async with CardClient.connect(address) as card, IdentityClient.connect(address) as identity:
        app = build_app(
            env.bank_client,
            client,
            card,
            identity,
            keys.verifier(),
            RateLimiter(RateLimitOptions()),
            asyncio.Event(),
            cors=CorsOptions(),
            body_limit_bytes=2**16,
            timeout_seconds=10,
            graph=GraphOptions(),
        )
        async with http_server(app, address):
            yield f"ws://{address}/graphql"


async def publish_until_overrun(
    env: AnalyticsEnvironment, hub: SubscriptionHub, alice: UUID, reader: Callable[[], Awaitable[int]]
) -> int:
    """Publish operations while one of two subscribers reads, until the other is too slow.

    Return the version of the last operation.
    """
    bob = env.bank.open("bob")
    for version in range(2, MAX_OPERATIONS):
        hub.publish(env.bank.transfer(alice, bob))
        assert await reader() == version
        streams = hub._subscriptions[alice]
        assert len(streams) == 2
        assert all(len(stream._buffer) <= BUFFER_SIZE for stream in streams)
        if any(stream.is_overrun for stream in streams):
            return version
    raise AssertionError(f"{MAX_OPERATIONS} operations are buffered without limit")


async def read_all(read: Callable[[], Awaitable[int]], versions: list[int]) -> None:
    """Append versions until the stream fails, and raise its error."""
    while True:
        versions.append(await read())


class TestSlowSubscriber:
    async def test_stream_of_slow_grpc_subscriber_ends_without_delaying_others(
        self, env: AnalyticsEnvironment, hub: SubscriptionHub, client: AnalyticsClient
    ) -> None:
        alice = env.bank.open("alice")
        hub.publish(env.bank.transfer(alice, env.bank.open("bob")))
        with env.as_user("alice"):
            async with (
                aclosing(client.watch_operations(alice, 0)) as stuck,
                aclosing(client.watch_operations(alice, 0)) as reader,
            ):

                async def read(feed: AsyncGenerator[Operation, None] = reader) -> int:
                    return (await anext(feed)).account_version

                versions = [await read(stuck)]  # the subscription starts with the first read
                assert await read() == 1
                last = await publish_until_overrun(env, hub, alice, read)
                with pytest.raises(SubscriberTooSlow):
                    await read_all(lambda: read(stuck), versions)
            assert versions == list(range(1, len(versions) + 1))
            assert len(versions) < last
            async with aclosing(client.watch_operations(alice, versions[-1])) as again:
                assert (await anext(again)).account_version == len(versions) + 1

    @pytest.mark.slow
    async def test_stream_of_slow_websocket_subscriber_ends_without_delaying_others(
        self, env: AnalyticsEnvironment, hub: SubscriptionHub, gateway: str, keys: Keys
    ) -> None:
        alice = env.bank.open("alice")
        hub.publish(env.bank.transfer(alice, env.bank.open("bob")))
        # Long aliases make large messages, so that few of them fill the connection's buffers.
        aliases = " ".join(f"{'x' * 90}{number}: id" for number in range(25))
        query = 'subscription($account: ID!) {{ operationAdded(accountId: $account, after: "djA") {{ cursor {} }} }}'
        async with (
            connected(gateway, keys.user("alice"), compression=None, max_queue=4) as stuck_connection,
            connected(gateway, keys.user("alice")) as connection,
        ):
            stuck = subscribe(stuck_connection, query.format(aliases), account=str(alice))
            reader = subscribe(connection, query.format(""), account=str(alice))

            async def read(feed: AsyncIterator[dict[str, dict[str, str]]] = reader) -> int:
                return cursor.decode_version((await anext(feed))["operationAdded"]["cursor"])

            versions = [await read(stuck)]
            assert await read() == 1
            last = await publish_until_overrun(env, hub, alice, read)
            with pytest.raises(LookupError, match="SUBSCRIBER_TOO_SLOW"):
                await read_all(lambda: read(stuck), versions)
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) < last
