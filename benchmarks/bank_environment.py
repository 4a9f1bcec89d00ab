"""Environment of the bank's figures: PostgreSQL, ledger databases and replicas of the bank service."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from benchmarks.environment import BenchEnvironment
from benchmarks.figure import Options
from benchmarks.ledger import Ledger, LedgerFactory
from loadtests.console import print_progress
from stack import probes
from stack.engines.postgres import Postgres
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module

_BATCH_SIZE: Final = "wallet_bank_batch_size"


@dataclass(frozen=True, slots=True)
class BankProcess:
    """A running bank service.

    Attributes:
        target: its gRPC target.
        admin: URL of its admin port.
    """

    child: Child
    target: str
    admin: str

    @property
    def pid(self) -> int:
        """Its process id; 0 if it has ended."""
        return self.child.pid or 0

    async def count_batches(self) -> tuple[float, float]:
        """Return the number of batches so far, and the number of transfers in them."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return parse_batches((await http.get(f"{self.admin}/metrics")).text)


def parse_batches(exposition: str) -> tuple[float, float]:
    """Return count and sum of the batch size histogram from Prometheus text; zeros if it is missing."""
    samples = dict(line.rpartition(" ")[::2] for line in exposition.splitlines() if line.startswith(_BATCH_SIZE))
    return float(samples.get(f"{_BATCH_SIZE}_count", 0)), float(samples.get(f"{_BATCH_SIZE}_sum", 0))


class BankEnvironment(BenchEnvironment):
    """PostgreSQL as in production, and a broker if the options request one.

    Without a broker the bank runs as in an outage of Kafka: its outbox grows.
    """

    postgres: Postgres
    ledgers: LedgerFactory

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self._brokers = f"{HOST}:{free_ports(1)[0]}"
        self._banks: Sequence[BankProcess] = ()

    async def _start(self) -> None:
        self.postgres = await self.start_postgres()
        if self.options.kafka:
            self._brokers = (await self.start_kafka()).bootstrap_servers
        self.ledgers = LedgerFactory(self.postgres)
        version = await self.ledgers.create_template()
        print_progress(
            f"PostgreSQL {version}, fsync and synchronous_commit on; {'a' if self.options.kafka else 'no'} broker"
        )

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Return the process ids of the banks and of PostgreSQL."""
        return {"bank": [bank.pid for bank in self._banks], "postgres": [self.postgres.pid or 0]}

    @asynccontextmanager
    async def start_banks(self, ledger: Ledger, count: int = 1) -> AsyncIterator[Sequence[BankProcess]]:
        """Run replicas of the bank on one ledger, and stop them on exit."""
        async with AsyncExitStack() as stack:
            self._banks = [await stack.enter_async_context(self._start_bank(ledger)) for _ in range(count)]
            yield self._banks
        self._banks = ()

    @asynccontextmanager
    async def _start_bank(self, ledger: Ledger) -> AsyncIterator[BankProcess]:
        grpc_port, admin_port = free_ports(2)
        admin = f"http://{HOST}:{admin_port}"
        environment = {
            **self.auth_settings,
            "BANK_DATABASE_URL": ledger.url,
            "BANK_GRPC_LISTEN": f"{HOST}:{grpc_port}",
            "BANK_ADMIN_LISTEN": f"{HOST}:{admin_port}",
            "KAFKA_BOOTSTRAP_SERVERS": self._brokers,
            "LOG_FORMAT": "console",
            "LOG_LEVEL": "ERROR",  # without a broker the relay logs a warning every two seconds
        }
        process = Process(
            name="bank",
            command=module("subgraphs.bank.service", **environment),
            ready=probes.http(f"{admin}/health/ready"),
            ports={"gRPC": grpc_port, "admin": admin_port},
        )
        async with Child(process) as child:
            try:
                yield BankProcess(child, f"{HOST}:{grpc_port}", admin)
            except BaseException:
                if child.last_lines:
                    print_progress("\n".join(("last lines of the bank's log:", *child.last_lines)))
                raise
