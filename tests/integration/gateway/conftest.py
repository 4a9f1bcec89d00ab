"""One gateway for all tests, over services that each test programs anew; and one over services that wait."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

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
from tests.conftest import Keys
from tests.integration.gateway.fake_services import FakeBank, FakeCard
from tests.integration.gateway.gateway_process import Gateway, running, serving
from tests.integration.gateway.slow_services import Patient


@pytest.fixture(scope="session")
async def services(keys: Keys) -> AsyncIterator[tuple[str, FakeBank, FakeCard]]:
    """Where both services answer, and they."""
    target = f"{HOST}:{free_ports(1)[0]}"
    bank, card = FakeBank(), FakeCard()  # type: ignore[abstract]  # by intent: the gateway's tests call the rest nowhere
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


@pytest.fixture(scope="session")
async def patience(keys: Keys) -> AsyncIterator[tuple[str, Patient]]:
    """Where all services answer, and they."""
    target = f"{HOST}:{free_ports(1)[0]}"
    patient = Patient()  # type: ignore[abstract]  # by intent: the rest is not called
    registered = {
        BANK: Service(
            lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(patient, server), bank_policy.POLICY
        ),
        CARD: Service(
            lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(patient, server), card_policy.POLICY
        ),
        ANALYTICS: Service(
            lambda server: analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server(patient, server),
            analytics_policy.POLICY,
        ),
    }
    async with grpc_server(target, keys.verifier(), registered):
        yield target, patient
        patient.answers.set()


@pytest.fixture(scope="session")
async def url(
    patience: tuple[str, Patient], keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A gateway over them."""
    async with serving(keys, tmp_path_factory.mktemp("patience"), patience[0]) as url:
        yield url


@pytest.fixture
def patient(patience: tuple[str, Patient]) -> Iterator[Patient]:
    patience[1].__init__()  # type: ignore[misc]
    yield patience[1]
    patience[1].answers.set()


@pytest.fixture
def patient_services(patience: tuple[str, Patient]) -> str:
    """Where they answer, for a gateway of the test's own."""
    return patience[0]


@pytest.fixture
async def http(url: str, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    """Alice, at the gateway over them."""
    headers = {"Authorization": f"Bearer {keys.user('alice')}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as http:
        yield http
