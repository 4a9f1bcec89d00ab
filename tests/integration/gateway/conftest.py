"""Gateways for all tests: a process over fake services, and one in the test process over slow services."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from gateway.http import exchange
from kit.rpc import request_context
from kit.rpc.server import Service, grpc_server
from protos.wallet.analytics.v1 import analytics_pb2_grpc
from protos.wallet.bank.v1 import bank_pb2_grpc
from protos.wallet.card.v1 import card_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.analytics.client import SERVICE as ANALYTICS
from subgraphs.analytics.service.api import policy as analytics_policy
from subgraphs.bank.client import SERVICE as BANK
from subgraphs.bank.service.api import policy as bank_policy
from subgraphs.card.client import SERVICE as CARD
from subgraphs.card.service.api import policy as card_policy
from tests.clock import ManualClock
from tests.conftest import Keys
from tests.integration.gateway.fake_services import FakeBank, FakeCard
from tests.integration.gateway.gateway_process import Gateway, run_gateway, run_gateway_process
from tests.integration.gateway.slow_services import SlowServices


@pytest.fixture(scope="session")
async def services(keys: Keys) -> AsyncIterator[tuple[str, FakeBank, FakeCard]]:
    """The gRPC target of both fake services, and the services."""
    target = f"{HOST}:{free_ports(1)[0]}"
    bank, card = FakeBank(), FakeCard()  # type: ignore[abstract]  # the tests do not call the missing methods
    registered = {
        BANK: Service(lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(bank, server), bank_policy.POLICY),
        CARD: Service(lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(card, server), card_policy.POLICY),
    }
    async with grpc_server(target, keys.verifier(), registered):
        yield target, bank, card


@pytest.fixture(scope="session")
async def gateway(
    services: tuple[str, FakeBank, FakeCard], keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    target, _, _ = services
    async with run_gateway_process(keys, tmp_path_factory.mktemp("gateway"), bank=target, card=target) as gateway:
        yield gateway


@pytest.fixture
def bank(services: tuple[str, FakeBank, FakeCard]) -> FakeBank:
    services[1].__init__()  # type: ignore[misc]  # resets the state of the running service
    return services[1]


@pytest.fixture
def card(services: tuple[str, FakeBank, FakeCard]) -> FakeCard:
    services[2].__init__()  # type: ignore[misc]
    return services[2]


@pytest.fixture(scope="session")
async def slow_server(keys: Keys) -> AsyncIterator[tuple[str, SlowServices]]:
    """The gRPC target of the slow services, and the services."""
    target = f"{HOST}:{free_ports(1)[0]}"
    slow_services = SlowServices()  # type: ignore[abstract]  # the tests do not call the missing methods
    registered = {
        BANK: Service(
            lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(slow_services, server), bank_policy.POLICY
        ),
        CARD: Service(
            lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(slow_services, server), card_policy.POLICY
        ),
        ANALYTICS: Service(
            lambda server: analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server(slow_services, server),
            analytics_policy.POLICY,
        ),
    }
    async with grpc_server(target, keys.verifier(), registered):
        yield target, slow_services
        slow_services.proceed.set()


@pytest.fixture(scope="session")
async def url(
    slow_server: tuple[str, SlowServices], keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """URL of a gateway over the slow services."""
    async with run_gateway(keys, tmp_path_factory.mktemp("slow_server"), slow_server[0]) as url:
        yield url


@pytest.fixture
def slow_services(slow_server: tuple[str, SlowServices]) -> Iterator[SlowServices]:
    slow_server[1].__init__()  # type: ignore[misc]
    yield slow_server[1]
    slow_server[1].proceed.set()


@pytest.fixture
def slow_target(slow_server: tuple[str, SlowServices]) -> str:
    """gRPC target of the slow services, for a gateway with other settings."""
    return slow_server[0]


@pytest.fixture
def request_clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Clock of the requests' durations and deadlines, in the gateways of this process."""
    clock = ManualClock()
    monkeypatch.setattr(exchange, "time", clock)
    monkeypatch.setattr(request_context, "time", clock)
    return clock


@pytest.fixture
async def http(url: str, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    """Client of the gateway over the slow services, with alice's token."""
    headers = {"Authorization": f"Bearer {keys.user('alice')}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as http:
        yield http
