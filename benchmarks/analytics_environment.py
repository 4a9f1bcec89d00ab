"""Analytics in a process of its own, with a database of its own in ClickHouse, and no bank: what is stored is ours."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx

from benchmarks.bank_environment import Callers
from benchmarks.figure import BenchError
from provisioning.keys import ensure_key_pair
from stack import probes
from stack.engines.children import ClickHouse
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from subgraphs.analytics.client import AnalyticsClient

_PATIENCE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Store:
    """One database of the history, and the analytics that works on it."""

    database: str
    url: str
    admin: str
    child: Child
    client: AnalyticsClient

    @classmethod
    @asynccontextmanager
    async def open(cls, clickhouse: ClickHouse, database: str, environment: Mapping[str, str]) -> AsyncIterator[Self]:
        """Analytics on an empty database."""
        grpc_port, admin_port = free_ports(2)
        admin = f"http://{HOST}:{admin_port}"
        dsn = clickhouse.dsn(database)
        migrations = module("subgraphs.analytics.service.migrations", CLICKHOUSE_DSN=dsn)
        process = Process(
            name="analytics",
            command=module(
                "subgraphs.analytics.service",
                **environment,
                CLICKHOUSE_DSN=dsn,
                ANALYTICS_GRPC_LISTEN=f"{HOST}:{grpc_port}",
                ANALYTICS_ADMIN_LISTEN=f"{HOST}:{admin_port}",
            ),
            ready=probes.http(f"{admin}/health/ready"),
            ports={"gRPC": grpc_port, "admin": admin_port},
        )
        async with (
            Child(Process(name="analytics-migrations", command=migrations)),
            Child(process) as child,
            AnalyticsClient.connect(f"{HOST}:{grpc_port}") as client,
        ):
            yield cls(database, clickhouse.url, admin, child, client)

    async def tell(self, statement: str) -> str:
        """What ClickHouse says to a statement."""
        async with httpx.AsyncClient(trust_env=False, timeout=_PATIENCE_SECONDS) as http:
            answer = await http.post(self.url, params={"database": self.database}, content=statement)
        if answer.is_error:
            raise BenchError(f"ClickHouse: {answer.text.strip()}")
        return answer.text.strip()


def settings(folder: Path, callers: Callers, brokers: str) -> dict[str, str]:
    """What every analytics here is told: whom to believe, where the broker is, and a bank that is not there."""
    (bank_port,) = free_ports(1)
    return {
        **callers.settings,
        "BANK_GRPC_TARGET": f"{HOST}:{bank_port}",
        "KAFKA_BOOTSTRAP_SERVERS": brokers,
        "SERVICE_KEY_FILE": str(ensure_key_pair(folder, "analytics").private),
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "ERROR",  # without a bank, repair complains every two seconds
    }
