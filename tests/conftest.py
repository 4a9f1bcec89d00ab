"""Fixtures of all tests: real servers on loopback, started once, and tokens of callers."""

import gc
import os

# Set before grpc is imported. As root, the tests start PostgreSQL with fork(), and gRPC's fork handlers would crash the
# child during calls.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

import certifi
import hypothesis
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from xdist.scheduler import LoadFileScheduling

from kit.auth.jwk import public_jwk
from kit.auth.keys import KeySet
from kit.auth.principal import Role, TokenVerifier
from kit.auth.tokens import TokenSigner
from kit.rpc import server
from stack.engines.apache_kafka import POM, ApacheKafka
from stack.engines.children import Kafka
from stack.engines.jars import JarsUnavailable, fetch_jars
from stack.engines.postgres import Postgres, temporary_postgres
from stack.ports import free_ports
from tests.databases import CleanDatabases
from tests.engine_groups import HISTORY_ENGINES, LARGE_GROUPS, SharedEngines, group_of
from tests.forks.server import use_fork_server
from tests.kafka.brokers import Broker
from tests.ledger_servers import LedgerServers
from tests.tools import skip_without_tool

# Examples have no deadline, because their duration depends on the machine. pytest-timeout ends a test that hangs.
hypothesis.settings.register_profile("full", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)
hypothesis.settings.load_profile("quick")  # `make test ALL=1` passes --hypothesis-profile=full

# Log tracebacks as in production. The default formatter also renders local variables, which takes 0.1 s for each.
structlog.configure(
    processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)],
    logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
)

_create_default_context = ssl.create_default_context


@cache
def _public_authorities() -> ssl.SSLContext:
    return _create_default_context(cafile=certifi.where())


def _default_context(*arguments: Any, **options: Any) -> ssl.SSLContext:
    is_httpx_default = not arguments and options == {"cafile": certifi.where()}
    return _public_authorities() if is_httpx_default else _create_default_context(*arguments, **options)


# Each new httpx client would read all public certificate authorities (17 ms). The tests create thousands of clients.
ssl.create_default_context = _default_context

USERS = "https://users.test"
SERVICES = ("analytics", "card", "gateway")
AUDIENCE = "wallet"


class ByEngine(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Distribution of test modules over the workers of pytest-xdist: those of a group run on one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the large groups first, so that no worker begins one of them when the other workers are done.

    The tests of the router and of fuzzing come last in their group. They use up the hundred operation names that the
    gateway distinguishes. The tests of traces must precede them, because they expect spans with operation names.
    """
    many_names = ("tests/e2e/test_federation.py", "tests/e2e/test_fuzz.py")
    order = {group: number for number, group in enumerate(LARGE_GROUPS)}
    items.sort(key=lambda item: (order.get(group_of(item.nodeid), len(order)), item.nodeid.startswith(many_names)))


def pytest_collection_finish() -> None:
    """Exempt the objects that exist after the collection from garbage collection. The run takes a fifth less time."""
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByEngine:
    """Return the distribution that `-n` uses. The option `--dist` has no effect."""
    return ByEngine(config, log)


@pytest.fixture(scope="session", autouse=True)
def _no_pause_before_a_stop() -> Iterator[None]:
    """Stop gRPC servers without the pause in which production clients move to another replica."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_DRAIN_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> Iterator[None]:
    """Start the services of the project as forks, without the time for their imports."""
    with use_fork_server():
        yield


class Keys:
    """Signing keys of the test issuers."""

    def __init__(self) -> None:
        self._private = {issuer: Ed25519PrivateKey.generate() for issuer in (USERS, *SERVICES)}
        self.signers = {issuer: TokenSigner(issuer, key, AUDIENCE) for issuer, key in self._private.items()}

    def jwks(self, issuer: str) -> str:
        """Return an issuer's public key set as JSON text."""
        return json.dumps({"keys": [public_jwk(self._private[issuer].public_key())]})

    def private(self, issuer: str) -> Ed25519PrivateKey:
        """Return an issuer's private key."""
        return self._private[issuer]

    def verifier(self) -> TokenVerifier:
        """Return a verifier that trusts all test issuers."""
        sets = {issuer: KeySet.from_text(self.jwks(issuer)) for issuer in self._private}
        return TokenVerifier(USERS, sets, AUDIENCE)

    def user(self, subject: str, *roles: Role, lifetime_seconds: float = 600) -> str:
        """Return a user's token; the default role is customer."""
        return self.signers[USERS].sign(subject, lifetime_seconds, roles or (Role.CUSTOMER,))

    def service(self, name: str) -> str:
        """Return a service's token."""
        return self.signers[name].sign(name, 600)


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="session")
async def shared_engines() -> AsyncIterator[SharedEngines]:
    async with SharedEngines() as engines:
        yield engines


@pytest.fixture(scope="module", autouse=True)
async def _stop_unused_engines(request: pytest.FixtureRequest, shared_engines: SharedEngines) -> None:
    """Stop engines after their last module. They need processor time even if nobody uses them."""
    module = request.node.nodeid
    await shared_engines.stop_all_but(group_of(module), module.rpartition("/")[0])


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """PostgreSQL for the whole session, without durability. Tests that stop or kill a server start their own."""
    async with temporary_postgres(durable=False) as postgres:
        yield postgres


@pytest.fixture(scope="session")
async def ledgers(postgres: Postgres) -> AsyncIterator[CleanDatabases]:
    async with CleanDatabases.create(postgres, "subgraphs.bank.service.migrations") as databases:
        yield databases


@pytest.fixture
async def ledger_url(ledgers: CleanDatabases) -> AsyncIterator[str]:
    """Separate database with an empty ledger."""
    async with ledgers.one() as url:
        yield url


@pytest.fixture(scope="session")
async def ledger_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LedgerServers]:
    async with LedgerServers.create(tmp_path_factory.mktemp("ledger-servers")) as servers:
        yield servers


@pytest.fixture
async def embedded() -> AsyncIterator[Kafka]:
    """Embedded broker of one test."""
    async with Kafka(*free_ports(1)) as broker:
        yield broker


@pytest.fixture(scope="session")
async def apache_kafka(shared_engines: SharedEngines, tmp_path_factory: pytest.TempPathFactory) -> ApacheKafka:
    """Apache Kafka; needs Java and Maven."""
    try:
        jars = await asyncio.to_thread(fetch_jars, POM)
    except JarsUnavailable as error:
        skip_without_tool(f"there is no Apache Kafka: {error}")
    broker = ApacheKafka(jars, tmp_path_factory.mktemp("kafka"), *free_ports(2))
    return await shared_engines.start(HISTORY_ENGINES, broker)


@pytest.fixture
async def apache(apache_kafka: ApacheKafka) -> ApacheKafka:
    """Apache Kafka without topics. A test may stop it and leave it stopped."""
    if apache_kafka.pid is None:
        await apache_kafka.start()
    await apache_kafka.clean()
    return apache_kafka


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    """Broker selected by the test's mark (`tests/kafka/brokers.py`), running and empty."""
    chosen: Broker = request.getfixturevalue(getattr(request, "param", "embedded"))
    return chosen
