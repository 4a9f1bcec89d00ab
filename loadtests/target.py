"""System under load: a running one, or a temporary one."""

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from unittest.mock import patch

from kit.auth.tokens import TokenSigner
from stack import probes
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.plan import AUDIENCE, ISSUER
from stack.ports import HOST, Ports
from stack.system import System, run_system

NO_RATE_LIMIT: Final = "1000000000/hour"
"""Rate limit that counts every request and refuses none."""

NO_DECLINE_LIMITS: Final = {
    f"CARD_DECLINES_PER_{limit}": "1000000" for limit in ("CUSTOMER", "CARD", "ADDRESS", "SHARED_ADDRESS")
}
"""Settings that raise the card service's limits of declined cards, because all load comes from one address."""

NO_ADDRESS_LIMITS: Final = {**NO_DECLINE_LIMITS, "GATEWAY_CONNECTIONS_PER_ADDRESS": "1000000"}
"""Settings that raise all limits per address, because all clients of a load test have one address."""

_USERS_KEY: Final = Path("keys") / "development.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Addresses of the system under load.

    Attributes:
        host: URL of the gateway.
        bank: gRPC target of the bank.
        ledger: URL of the bank's database; if empty, the run cannot be verified.
        data: folder of an embedded stack, with its keys and its process list; None for other systems.
        admins: admin URL by service, for metrics and integrity checks.
    """

    host: str
    bank: str = ""
    ledger: str = ""
    data: Path | None = None
    admins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def embedded(cls, ports: Ports, data: Path) -> Self:
        """Return the addresses of the embedded stack on these ports and in this folder."""
        names = ("bank", "card", "analytics", "identity", "gateway")
        return cls(
            host=f"http://{HOST}:{ports.gateway}",
            bank=f"{HOST}:{ports.bank_grpc}",
            ledger=Postgres(data, ports.postgres).dsn("bank"),
            data=data,
            admins={name: f"http://{HOST}:{getattr(ports, f'{name}_admin')}" for name in names},
        )

    @property
    def signer(self) -> TokenSigner | None:
        """Return the signer of users' tokens of an embedded stack; None if users have to log in."""
        file = self.data / _USERS_KEY if self.data else None
        return TokenSigner.from_file(ISSUER, file, AUDIENCE) if file and file.exists() else None

    async def is_ready(self) -> bool:
        """Return whether the gateway is ready."""
        return await probes.http(f"{self.host}/health/ready")()


@asynccontextmanager
async def temporary_system(**settings: str) -> AsyncIterator[tuple[System, Target]]:
    """Run an embedded stack on free ports in a temporary folder, and remove it afterwards.

    Args:
        settings: environment variables for its processes.
    """
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-load-")))
        stack.callback(remove_cluster, data)
        stack.enter_context(patch.dict(os.environ, settings))  # the stack passes them to its processes
        system = await stack.enter_async_context(run_system(Ports.free(), data))
        yield system, Target.embedded(system.ports, data)
