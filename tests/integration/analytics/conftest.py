"""Fixtures of analytics: an empty broker, an empty database and a bank per test. ClickHouse starts once per session."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from asyncapi.topics import OPERATIONS_TOPIC
from kit.auth.tokens import ServiceTokenProvider
from kit.rpc.channel import ClientLimits
from kit.rpc.server import Service, grpc_server
from stack.engines.apache_kafka import ApacheKafka
from stack.engines.children import ClickHouse
from stack.ports import free_ports
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.migrations.schema import upgrade
from subgraphs.bank.client import BankClient
from subgraphs.bank.service.api.policy import POLICY
from tests.conftest import Keys
from tests.engine_groups import HISTORY_ENGINES, SharedEngines
from tests.integration.analytics.environment import AnalyticsEnvironment, make_settings
from tests.integration.analytics.fake_bank import SERVICE, FakeBank
from tests.kafka.brokers import Broker


@pytest.fixture(scope="session")
async def clickhouse(shared_engines: SharedEngines, tmp_path_factory: pytest.TempPathFactory) -> ClickHouse:
    server = ClickHouse(tmp_path_factory.mktemp("clickhouse"), *free_ports(1))
    return await shared_engines.start(HISTORY_ENGINES, server)


_SCHEMA = """
    SELECT toString(groupArray((table, name, type, default_expression))),
           (SELECT toString(groupArray((number, name, checksum)))
            FROM (SELECT * FROM {database}.schema_migrations ORDER BY number))
    FROM (SELECT * FROM system.columns WHERE database = '{database}' ORDER BY table, position)
"""


class CleanDatabases:
    """Databases with the newest schema and no rows. A database is reused if the test did not change its schema.

    Emptying a database takes two statements, creating one takes a dozen.
    """

    def __init__(self, clickhouse: ClickHouse, http: httpx.AsyncClient) -> None:
        self._clickhouse = clickhouse
        self._http = http
        self._free: list[str] = []
        self._schema: str | None = None

    async def take(self) -> str:
        """Return the name of a clean database."""
        if self._free:
            return self._free.pop()
        name = f"history_{uuid.uuid4().hex}"
        await upgrade(self._clickhouse.dsn(name))
        self._schema = self._schema or await self._read_schema(name)
        return name

    async def give_back(self, name: str) -> None:
        """Empty the database for the next test, or drop it if the test changed its schema."""
        if await self._read_schema(name) == self._schema:
            await self._execute(f"TRUNCATE TABLE {name}.operations")
            self._free.append(name)
        else:
            await self._execute(f"DROP DATABASE IF EXISTS {name}")

    async def _read_schema(self, name: str) -> str | None:
        response = await self._http.post(self._clickhouse.url, content=_SCHEMA.replace("{database}", name))
        return response.text if response.is_success else None

    async def _execute(self, statement: str) -> None:
        (await self._http.post(self._clickhouse.url, content=statement)).raise_for_status()


@pytest.fixture(scope="session")
async def clean_databases(clickhouse: ClickHouse) -> AsyncIterator[CleanDatabases]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        yield CleanDatabases(clickhouse, http)


@pytest.fixture
async def database(clickhouse: ClickHouse, clean_databases: CleanDatabases) -> AsyncIterator[Database]:
    """A separate database with the newest schema."""
    name = await clean_databases.take()
    async with Database.connect(clickhouse.dsn(name)) as database:
        yield database
    await clean_databases.give_back(name)


@pytest.fixture
def history(database: Database) -> History:
    return History(database)


@pytest.fixture
async def env(
    broker: Broker, clickhouse: ClickHouse, database: Database, keys: Keys, tmp_path: Path
) -> AsyncIterator[AnalyticsEnvironment]:
    if isinstance(broker, ApacheKafka):
        await broker.create(OPERATIONS_TOPIC)  # otherwise clients see the topic five seconds after its first use
    bank_port, grpc_port, admin_port = free_ports(3)
    bank, target = FakeBank(), f"127.0.0.1:{bank_port}"  # type: ignore[abstract]  # analytics calls no other method
    async with (
        grpc_server(target, keys.verifier(), {SERVICE: Service(bank.register, POLICY)}),
        BankClient.connect(target, limits=ClientLimits(timeout_seconds=20)) as client,  # for busy machines
        AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer,
    ):
        settings = make_settings(
            keys,
            tmp_path,
            f"{clickhouse.url}/{database._name}",
            kafka_bootstrap_servers=broker.bootstrap_servers,
            bank_grpc_target=target,
            analytics_grpc_listen=f"127.0.0.1:{grpc_port}",
            analytics_admin_listen=f"127.0.0.1:{admin_port}",
        )
        ledger = BankLedger(client, ServiceTokenProvider(keys.signers["analytics"], "analytics"))
        yield AnalyticsEnvironment(bank, client, clickhouse, broker, database, ledger, settings, keys, producer)
