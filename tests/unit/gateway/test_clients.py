"""The services' gRPC clients: the time-out of each unary call is the time until the deadline of the current request.

`request_context.current_request` has this deadline.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from subgraphs.analytics.client import AnalyticsClient, OperationPageRequest
from subgraphs.bank.client import BalanceRequest, BankClient
from subgraphs.card.client import CardClient, CardDetails, TopUpPageRequest
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
    """gRPC stub that records the time-out of each call and fails it."""

    def __init__(self) -> None:
        self.timeouts: dict[str, float] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def method(_: Any, *, timeout: float, metadata: Any) -> None:  # noqa: ASYNC109  gRPC's signature
            self.timeouts[name] = timeout
            raise Unavailable(name)

        return method


def bank_calls(client: BankClient) -> list[Awaitable[Any]]:
    return [
        client.transfer(ID, ID, RUB, "k"),
        client.batch_transfer([]),
        client.deposit(ID, RUB, "k", {}),
        client.get_balance(ID),
        client.get_transfer(ID),
        client.batch_get_transfers([ID]),
        client.batch_get_accounts([ID]),
        client.get_balance_at(BalanceRequest(ID, version=1)),
        client.open_account("RUB", "k"),
        client.close_account(ID),
        client.freeze_account(ID, "ALL", "r"),
        client.thaw_account(ID, "r"),
        client.set_account_floor(ID, Money.parse("-1"), "r"),
        client.list_account_changes(ID),
        client.list_accounts(),
        client.list_transfers(ID, "r"),
        first_page(client.list_account_versions()),
        client.list_events(ID, 0),
        client.verify_history("", (), ()),
    ]


def analytics_calls(client: AnalyticsClient) -> list[Awaitable[Any]]:
    pages = [OperationPageRequest(ID, limit) for limit in (1, 2)]
    return [
        client.list_operations(ID, limit=1),
        raise_error(client.batch_list_operations(pages)),
        client.get_statistics(ID, from_=NOW, to=NOW, granularity="DAY"),
    ]


def card_calls(client: CardClient) -> list[Awaitable[Any]]:
    return [
        client.create_top_up(ID, RUB, DETAILS, "k"),
        client.get_top_up(ID),
        client.batch_get_top_ups([ID]),
        client.list_top_ups(ID, limit=1),
        raise_error(client.batch_list_top_ups([TopUpPageRequest(ID, limit) for limit in (1, 2)])),
    ]


def identity_calls(client: IdentityClient) -> list[Awaitable[Any]]:
    return [
        client.register("alice", SECRET),
        client.authenticate("alice", SECRET),
        client.refresh(SECRET),
        client.revoke(SECRET),
        client.change_password(SECRET, SECRET),
        client.get_user("1"),
        client.batch_get_users(["1"]),
    ]


async def raise_error(results: Awaitable[Mapping[Any, Any]]) -> None:
    """Raise the error of the pages of a batch."""
    for result in (await results).values():
        raise result


async def first_page(pages: AsyncIterator[Any]) -> Any:
    return await anext(pages)


@pytest.mark.parametrize(
    ("client", "calls", "file"),
    [
        (BankClient, bank_calls, bank_pb2.DESCRIPTOR),
        (AnalyticsClient, analytics_calls, analytics_pb2.DESCRIPTOR),
        (CardClient, card_calls, card_pb2.DESCRIPTOR),
        (IdentityClient, identity_calls, identity_pb2.DESCRIPTOR),
    ],
    ids=["bank", "analytics", "card", "identity"],
)
async def test_timeout_of_every_unary_call_is_the_remaining_time(
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
    assert stub.timeouts.keys() == {method.name for method in service.methods if not method.server_streaming}
    assert all(0 < timeout <= SECONDS_LEFT for timeout in stub.timeouts.values())  # less than the limit of 60 seconds
