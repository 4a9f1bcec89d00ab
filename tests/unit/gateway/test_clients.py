"""What the services are called by: no call lasts longer than whoever it is made for waits."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.descriptor import FileDescriptor

from kit.rpc import request_context
from kit.rpc.channel import ClientLimits
from protos.wallet.analytics.v1 import analytics_pb2
from protos.wallet.bank.v1 import bank_pb2
from protos.wallet.card.v1 import card_pb2
from protos.wallet.identity.v1 import identity_pb2
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient, CardDetails
from subgraphs.identity.client import IdentityClient
from wallet.errors import Unavailable
from wallet.inputs import Secret
from wallet.money import Money

ID = UUID(int=1)
RUB = Money.parse("1.00")
NOW = datetime(2026, 11, 1, tzinfo=UTC)
DETAILS = CardDetails("4242424242424242", 12, 2031, "123")
SECRET = Secret("correct horse battery")
SECONDS_LEFT = 3.0


class Stub:
    """Notes how long each call may take, and answers none."""

    def __init__(self) -> None:
        self.allowed: dict[str, float] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def method(_: Any, *, timeout: float, metadata: Any) -> None:  # noqa: ASYNC109  as gRPC's
            self.allowed[name] = timeout
            raise Unavailable(name)

        return method


def of_the_bank(client: BankClient) -> list[Awaitable[Any]]:
    return [
        client.transfer(ID, ID, RUB, "k"),
        client.batch_transfer([]),
        client.deposit(ID, RUB, "k", {}),
        client.get_balance(ID),
        client.get_transfer(ID),
        client.batch_get_transfers([ID]),
        client.batch_get_accounts([ID]),
        client.open_account("RUB", "k"),
        client.close_account(ID),
        client.list_accounts(),
        first(client.list_account_versions()),
        client.list_events(ID, 0),
    ]


def of_analytics(client: AnalyticsClient) -> list[Awaitable[Any]]:
    return [client.list_operations(ID, limit=1), client.get_statistics(ID, from_=NOW, to=NOW, granularity="DAY")]


def of_card(client: CardClient) -> list[Awaitable[Any]]:
    return [client.top_up(ID, RUB, DETAILS, "k"), client.get(ID), client.top_ups([ID]), client.list(ID, limit=1)]


def of_identity(client: IdentityClient) -> list[Awaitable[Any]]:
    return [
        client.register("alice", SECRET),
        client.authenticate("alice", SECRET),
        client.refresh(SECRET),
        client.revoke(SECRET),
        client.user("1"),
        client.users(["1"]),
    ]


async def first(pages: AsyncIterator[Any]) -> Any:
    return await anext(pages)


@pytest.mark.parametrize(
    ("client", "calls", "file"),
    [
        (BankClient, of_the_bank, bank_pb2.DESCRIPTOR),
        (AnalyticsClient, of_analytics, analytics_pb2.DESCRIPTOR),
        (CardClient, of_card, card_pb2.DESCRIPTOR),
        (IdentityClient, of_identity, identity_pb2.DESCRIPTOR),
    ],
    ids=["bank", "analytics", "card", "identity"],
)
async def test_every_call_of_a_service_has_the_time_that_is_left(
    client: Callable[..., Any], calls: Callable[[Any], list[Awaitable[Any]]], file: FileDescriptor
) -> None:
    request_context.current_request.set(
        request_context.RequestContext("the-request", deadline=time.monotonic() + SECONDS_LEFT)
    )
    stub = Stub()
    for each in calls(client(stub, ClientLimits(timeout_seconds=60.0))):
        with pytest.raises(Unavailable):
            await each
    (service,) = file.services_by_name.values()
    assert stub.allowed.keys() == {method.name for method in service.methods if not method.server_streaming}
    assert all(SECONDS_LEFT - 1 < allowed <= SECONDS_LEFT for allowed in stub.allowed.values())
