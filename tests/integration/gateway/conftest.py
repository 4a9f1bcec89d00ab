"""One gateway for all tests, over services that each test programs anew."""

from collections.abc import AsyncIterator

import pytest

from kit.server import grpc_server
from protos.bank.v1 import bank_pb2_grpc
from protos.card.v1 import card_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.bank.client import SERVICE as BANK
from subgraphs.card.client import SERVICE as CARD
from tests.conftest import Keys
from tests.integration.gateway.running import Gateway, running
from tests.integration.gateway.services import FakeBank, FakeCard


@pytest.fixture(scope="session")
async def services(keys: Keys) -> AsyncIterator[tuple[str, FakeBank, FakeCard]]:
    """Where both services answer, and they."""
    target = f"{HOST}:{free_ports(1)[0]}"
    bank, card = FakeBank(), FakeCard()  # type: ignore[abstract]  # by intent: the gateway's tests call the rest nowhere
    registered = {
        BANK: lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(bank, server),
        CARD: lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(card, server),
    }
    async with grpc_server(target, keys.verifier(), registered):
        yield target, bank, card


@pytest.fixture(scope="session")
async def gateway(
    services: tuple[str, FakeBank, FakeCard], keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    target, _, _ = services
    async with running(keys, tmp_path_factory.mktemp("gateway"), bank=target, card=target) as gateway:
        yield gateway


@pytest.fixture
def bank(services: tuple[str, FakeBank, FakeCard]) -> FakeBank:
    services[1].__init__()  # type: ignore[misc]  # as new, at the address where it is known
    return services[1]


@pytest.fixture
def card(services: tuple[str, FakeBank, FakeCard]) -> FakeCard:
    services[2].__init__()  # type: ignore[misc]
    return services[2]
