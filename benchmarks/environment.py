"""Base of the benchmark environments: their processes, keys and tokens."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.accounts import OWNERS, owner_id
from benchmarks.cpu_usage import start_cpu_meter
from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from loadtests.target import NO_ADDRESS_LIMITS, NO_RATE_LIMIT
from provisioning.keys import KeyPair, ensure_key_pair
from stack.engines.children import ClickHouse, Kafka
from stack.engines.postgres import Postgres, temporary_postgres
from stack.ports import free_ports
from stack.process import Child, Process

ISSUER: Final = "bench"
AUDIENCE: Final = "wallet"
TOKEN_SECONDS: Final = 6 * 3_600.0
"""Validity of the tokens; longer than any benchmark."""
UNLIMITED_SYSTEM: Final = {
    **NO_ADDRESS_LIMITS,
    **{f"GATEWAY_RATE_{limit}": NO_RATE_LIMIT for limit in ("REQUESTS", "COST", "ANONYMOUS")},
    "GATEWAY_STREAMS": "1000000",
}
"""Settings whose limits of rates, streams, connections and declined cards are never reached by the few callers."""


class BenchTokens:
    """Bearer tokens of the benchmark's callers.

    Attributes:
        customers: one token per owner, in the order of `accounts.owner_id`.
        admin: token of an administrator, who may transfer in bulk between all accounts.
    """

    def __init__(self, signer: TokenSigner) -> None:
        self.customers = [signer.sign(owner_id(n), TOKEN_SECONDS, [Role.CUSTOMER]) for n in range(OWNERS)]
        self.admin = signer.sign("bulk", TOKEN_SECONDS, [Role.ADMIN])


class BenchEnvironment:
    """Processes of a benchmark, as an async context manager: they are ready inside the block and stopped after it.

    A subclass overrides `_start` and calls the `start_…` methods in it.

    Attributes:
        folder: temporary folder.
    """

    folder: Path

    def __init__(self) -> None:
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:  # if the start fails, stop the processes that run already
            self._exit_stack = stack
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
            await self._start()
            self._exit_stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit_stack.__aexit__(kind, error, trace)

    async def _start(self) -> None:
        """Start the processes of the environment."""

    @cached_property
    def keys(self) -> KeyPair:
        """Key pair of the tokens."""
        return ensure_key_pair(self.folder, "people")

    @cached_property
    def signer(self) -> TokenSigner:
        """Issuer of the tokens."""
        return TokenSigner.from_file(ISSUER, self.keys.private, AUDIENCE)

    @cached_property
    def tokens(self) -> BenchTokens:
        """Tokens of the callers."""
        return BenchTokens(self.signer)

    @property
    def auth_settings(self) -> dict[str, str]:
        """Settings with which a service accepts the tokens."""
        return {
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "AUTH_JWKS": str(self.keys.public),
        }

    async def start_postgres(self) -> Postgres:
        """Start PostgreSQL on an empty cluster, with durable commits as in production."""
        return await self._exit_stack.enter_async_context(temporary_postgres())

    async def start_kafka(self) -> Kafka:
        """Start the embedded broker on a free port."""
        return await self._exit_stack.enter_async_context(Kafka(*free_ports(1)))

    async def start_clickhouse(self) -> ClickHouse:
        """Start an empty ClickHouse on a free port."""
        return await self._exit_stack.enter_async_context(ClickHouse(self.folder / "clickhouse", *free_ports(1)))

    async def start_process(self, process: Process) -> Child:
        """Start a process and wait until it is ready."""
        return await self._exit_stack.enter_async_context(Child(process))

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Return the process ids that `measure_cpu` covers, by kind of process."""
        return {}

    def measure_cpu(self, **others: int) -> Callable[[], dict[str, float]]:
        """Start a measurement of processor time; see `cpu_usage.start_cpu_meter`.

        Args:
            others: further process ids, by kind, for example of load generators.
        """
        return start_cpu_meter({**self.pids(), **{kind: [pid] for kind, pid in others.items()}})
