"""Environments of analytics' figures: ClickHouse, and analytics services that each have their own database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from benchmarks.environment import BenchEnvironment
from benchmarks.figure import BenchError
from kit.rpc import request_context
from provisioning.keys import ensure_key_pair
from stack import probes
from stack.engines.children import ClickHouse
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from subgraphs.analytics.client import AnalyticsClient

_QUERY_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class AnalyticsProcess:
    """A running analytics service and its database.

    Attributes:
        database: name of its database in ClickHouse.
        clickhouse: URL of ClickHouse.
        admin: URL of its admin port.
        client: gRPC client of the service.
    """

    database: str
    clickhouse: str
    admin: str
    child: Child
    client: AnalyticsClient

    async def query(self, statement: str) -> str:
        """Run a statement in the database and return ClickHouse's response as text.

        Raises:
            BenchError: ClickHouse refused the statement.
        """
        async with httpx.AsyncClient(trust_env=False, timeout=_QUERY_TIMEOUT_SECONDS) as http:
            response = await http.post(self.clickhouse, params={"database": self.database}, content=statement)
        if response.is_error:
            raise BenchError(f"ClickHouse: {response.text.strip()}")
        return response.text.strip()


class AnalyticsEnvironment(BenchEnvironment):
    """ClickHouse without databases. `start_analytics` runs analytics services on it."""

    clickhouse: ClickHouse

    async def _start(self) -> None:
        self.clickhouse = await self.start_clickhouse()

    @asynccontextmanager
    async def start_analytics(
        self, database: str, brokers: str, bank: str | None = None
    ) -> AsyncIterator[AnalyticsProcess]:
        """Migrate an empty database and run analytics on it; stop the service on exit.

        Args:
            database: name of the database.
            brokers: bootstrap servers of Kafka.
            bank: gRPC target of the bank; None: a free port, so that every call to the bank fails.
        """
        grpc_port, admin_port, no_bank_port = free_ports(3)
        admin = f"http://{HOST}:{admin_port}"
        dsn = self.clickhouse.dsn(database)
        migrations = module("subgraphs.analytics.service.migrations", CLICKHOUSE_DSN=dsn)
        settings = {
            **self.auth_settings,
            "ANALYTICS_ADMIN_LISTEN": f"{HOST}:{admin_port}",
            "ANALYTICS_GRPC_LISTEN": f"{HOST}:{grpc_port}",
            "BANK_GRPC_TARGET": bank or f"{HOST}:{no_bank_port}",
            "CLICKHOUSE_DSN": dsn,
            "KAFKA_BOOTSTRAP_SERVERS": brokers,
            "LOG_FORMAT": "console",
            "LOG_LEVEL": "ERROR",  # without a bank the repair logs a warning every two seconds
            "SERVICE_KEY_FILE": str(ensure_key_pair(self.folder, "analytics").private),
        }
        process = Process(
            name="analytics",
            command=module("subgraphs.analytics.service", **settings),
            ready=probes.http(f"{admin}/health/ready"),
            ports={"gRPC": grpc_port, "admin": admin_port},
        )
        async with (
            Child(Process(name="analytics-migrations", command=migrations)),
            Child(process) as child,
            AnalyticsClient.connect(f"{HOST}:{grpc_port}") as client,
        ):
            yield AnalyticsProcess(database, self.clickhouse.url, admin, child, client)


class TwoHistoriesEnvironment(AnalyticsEnvironment):
    """Two analytics services with empty histories on one ClickHouse: one for a small history, one for a large one.

    A stub of the bank returns every requested account, and an empty list of account versions. So the repair of
    analytics, which compares its rows with these versions, finds no missing operations. The clients call as an
    administrator.
    """

    small: AnalyticsProcess
    large: AnalyticsProcess

    async def _start(self) -> None:
        (bank_port,) = free_ports(1)
        bank = f"{HOST}:{bank_port}"
        stub = Process(name="bank", command=module("benchmarks.service_stubs", bank), ready=probes.tcp(HOST, bank_port))
        await self.start_process(stub)
        brokers = (await self.start_kafka()).bootstrap_servers
        await super()._start()
        self._exit_stack.enter_context(request_context.as_service(lambda: self.tokens.admin))
        self.small, self.large = [
            await self._exit_stack.enter_async_context(self.start_analytics(name, brokers, bank))
            for name in ("small", "large")
        ]
