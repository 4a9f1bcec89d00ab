"""What the figures of the bank are measured on: PostgreSQL, callers, and banks that believe them."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx

from benchmarks.accounts import OWNERS, owner_id
from benchmarks.figure import Options
from benchmarks.ledger import Ledger, Ledgers
from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from loadtests.console import print_progress
from provisioning.keys import ensure_key_pair
from stack import probes
from stack.engines.children import Kafka
from stack.engines.postgres import Postgres, temporary_postgres
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module

ISSUER: Final = "bench"
AUDIENCE: Final = "wallet"

_TOKEN_SECONDS: Final = 3_600.0
_BATCH_SIZE: Final = "wallet_bank_batch_size"


class Callers:
    """Whoever calls the bank, by keys of the benchmark's own."""

    def __init__(self, folder: Path) -> None:
        self._keys = ensure_key_pair(folder, "people")
        signer = TokenSigner.from_file(ISSUER, self._keys.private, AUDIENCE)
        self.customers = [signer.sign(owner_id(n), _TOKEN_SECONDS, [Role.CUSTOMER]) for n in range(OWNERS)]
        self.admin = signer.sign("bulk", _TOKEN_SECONDS, [Role.ADMIN])

    @property
    def settings(self) -> dict[str, str]:
        """What a bank must be told to believe them."""
        return {
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "AUTH_JWKS": str(self._keys.public),
        }


@dataclass(frozen=True, slots=True)
class Bank:
    """A bank that runs in a process of its own, as `python -m subgraphs.bank.service` does anywhere."""

    child: Child
    target: str
    admin: str

    @property
    def pid(self) -> int:
        """Its process id; 0 when it is gone."""
        return self.child.pid or 0

    async def batches(self) -> tuple[float, float]:
        """Batches and the items in them so far, or zeros where the bank does not tell."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return batches((await http.get(f"{self.admin}/metrics")).text)


def batches(exposition: str) -> tuple[float, float]:
    """From Prometheus text: how many batches, and how many items in them; zeros where it has no such histogram."""
    samples = dict(line.rpartition(" ")[::2] for line in exposition.splitlines() if line.startswith(_BATCH_SIZE))
    return float(samples.get(f"{_BATCH_SIZE}_count", 0)), float(samples.get(f"{_BATCH_SIZE}_sum", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that is there for as long as the bank is measured."""

    options: Options
    postgres: Postgres
    ledgers: Ledgers
    callers: Callers
    brokers: str

    @classmethod
    @asynccontextmanager
    async def set(cls, options: Options) -> AsyncIterator[Self]:
        """PostgreSQL as in production, and a broker if it was asked for; without, the bank sees an outage of Kafka, and
        its outbox grows.
        """
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
            postgres = await stack.enter_async_context(temporary_postgres())
            (port,) = free_ports(1)
            if options.kafka:
                await stack.enter_async_context(Kafka(port))
            ledgers = Ledgers(postgres)
            version = await ledgers.prepare()
            print_progress(
                f"PostgreSQL {version}, fsync and synchronous_commit on; {'a' if options.kafka else 'no'} broker"
            )
            yield cls(
                options=options,
                postgres=postgres,
                ledgers=ledgers,
                callers=Callers(folder),
                brokers=f"{HOST}:{port}",
            )

    @asynccontextmanager
    async def banks(self, ledger: Ledger, count: int = 1) -> AsyncIterator[Sequence[Bank]]:
        """Replicas of the bank on one ledger."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self._bank(ledger)) for _ in range(count)]

    @asynccontextmanager
    async def _bank(self, ledger: Ledger) -> AsyncIterator[Bank]:
        grpc_port, admin_port = free_ports(2)
        admin = f"http://{HOST}:{admin_port}"
        environment = {
            **self.callers.settings,
            "BANK_DATABASE_URL": ledger.url,
            "BANK_GRPC_LISTEN": f"{HOST}:{grpc_port}",
            "BANK_ADMIN_LISTEN": f"{HOST}:{admin_port}",
            "KAFKA_BOOTSTRAP_SERVERS": self.brokers,
            "LOG_FORMAT": "console",
            "LOG_LEVEL": "ERROR",  # without a broker, the relay warns every two seconds
        }
        process = Process(
            name="bank",
            command=module("subgraphs.bank.service", **environment),
            ready=probes.http(f"{admin}/health/ready"),
            ports={"gRPC": grpc_port, "admin": admin_port},
        )
        async with Child(process) as child:
            try:
                yield Bank(child, f"{HOST}:{grpc_port}", admin)
            except BaseException:
                if child.last_lines:
                    print_progress("\n".join(("the bank's last words:", *child.last_lines)))
                raise
