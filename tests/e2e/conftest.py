"""The whole system on free ports, its clients, and accounts for each test."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import asyncpg
import httpx
import pytest

from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from loadtests.target import NO_DECLINE_LIMITS
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.plan import AUDIENCE, ISSUER
from stack.ports import Ports
from stack.system import System, run_system
from tests.collector import Collector, run_collector
from tests.e2e.plans import CHEAP_HASHES, full_system_with, no_rate_limits
from tests.e2e.users import NewUser, OpenAccount, User
from tests.engine_groups import SHARED_SYSTEM, SharedEngines
from tests.openapi import REST


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Collector that receives the traces of the system."""
    with run_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
async def system(
    shared_engines: SharedEngines, tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> System:
    settings = {
        "GATEWAY_FEDERATION": "true",
        "OTLP_ENDPOINT": collector.endpoint,
        **no_rate_limits("REQUESTS", "COST", "ANONYMOUS", "LOGIN"),
        **NO_DECLINE_LIMITS,
        **CHEAP_HASHES,
    }
    return await shared_engines.start(SHARED_SYSTEM, run_shared_system(tmp_path_factory.mktemp("wallet"), settings))


@asynccontextmanager
async def run_shared_system(data: Path, settings: Mapping[str, str]) -> AsyncIterator[System]:
    async with run_system(Ports.free(), data, planner=full_system_with(settings)) as system:
        yield system
    remove_cluster(data)


@pytest.fixture
def sign_token(system: System) -> Callable[..., str]:
    """Function that signs a user's token; the role is customer by default."""
    signer = TokenSigner.from_file(ISSUER, system.data / "keys" / "development.pem", AUDIENCE)
    return lambda subject, *roles: signer.sign(subject, 600, roles or (Role.CUSTOMER,))


@pytest.fixture
async def open_account(system: System) -> AsyncIterator[OpenAccount]:
    """Function that inserts an account into the ledger's database and returns its id."""
    connection = await asyncpg.connect(Postgres(system.data, system.ports.postgres).dsn("bank"))

    async def open_account(owner: str, balance: str = "1000.00", currency: str = "RUB") -> str:
        return str(
            await connection.fetchval(
                "INSERT INTO accounts (owner_id, balance, currency) VALUES ($1, $2, $3) RETURNING id",
                owner,
                Decimal(balance),
                currency,
            ),
        )

    yield open_account
    await connection.close()


@pytest.fixture
async def new_user(
    system: System,
    sign_token: Callable[..., str],
    open_account: OpenAccount,
) -> AsyncIterator[NewUser]:
    """Function that creates a user with an account."""
    clients: list[httpx.AsyncClient] = []

    async def new_user(balance: str = "1000.00", currency: str = "RUB") -> User:
        subject = str(uuid.uuid4())
        token = sign_token(subject)
        http = httpx.AsyncClient(
            base_url=system.url,
            headers={"Authorization": f"Bearer {token}"},
            event_hooks={"response": [REST.check_hook]},
            timeout=15,
        )
        clients.append(http)
        return User(subject, await open_account(subject, balance, currency), http, token)

    yield new_user
    for client in clients:
        await client.aclose()


@pytest.fixture
async def alice(new_user: NewUser) -> User:
    return await new_user()


@pytest.fixture
async def bob(new_user: NewUser) -> User:
    return await new_user("500.00")
