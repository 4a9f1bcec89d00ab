"""The system that is loaded: one that runs, or one of the run's own."""

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

_PEOPLE: Final = Path("keys") / "development.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where everything is.

    Attributes:
        host: the front door, as a URL.
        bank: the bank's gRPC target.
        ledger: the URL of the bank's database; empty where it cannot be looked at, and then nothing can be proven.
        data: the folder of an embedded stack, which has its keys and the list of its processes; None elsewhere.
        admins: the admin address of each service whose metrics can be read.
    """

    host: str
    bank: str = ""
    ledger: str = ""
    data: Path | None = None
    admins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def embedded(cls, ports: Ports, data: Path) -> Self:
        """The stack on these ports and this folder."""
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
        """Who issues tokens for the users of an embedded stack; None where users have to sign in."""
        file = self.data / _PEOPLE if self.data else None
        return TokenSigner.from_file(ISSUER, file, AUDIENCE) if file and file.exists() else None

    async def is_there(self) -> bool:
        """Whether it answers."""
        return await probes.http(f"{self.host}/health/ready")()


@asynccontextmanager
async def own(**settings: str) -> AsyncIterator[tuple[System, Target]]:
    """A stack on free ports, with these settings besides its own; gone afterwards."""
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-load-")))
        stack.callback(remove_cluster, data)
        stack.enter_context(patch.dict(os.environ, settings))  # the stack hands them on
        system = await stack.enter_async_context(run_system(Ports.free(), data))
        yield system, Target.embedded(system.ports, data)
