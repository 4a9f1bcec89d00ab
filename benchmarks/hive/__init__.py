"""Hive Gateway with its gRPC transport, which serves the bank's proto as GraphQL: a reference for the gateway.

Install its packages with `npm ci` in this folder.
"""

import os
import shutil
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Command, Process

TRANSFER: Final = """mutation Transfer($input: wallet__bank__v1__TransferMoneyRequest_Input) {
  wallet_bank_v1_BankService_TransferMoney(input: $input) {
    transfer { id }
    sender_balance { units nanos }
  }
}"""

_FOLDER: Final = Path(__file__).parent
_PROGRAMS: Final = _FOLDER / "node_modules" / ".bin"


def is_installed() -> bool:
    """Return whether node and the packages are installed."""
    return shutil.which("node") is not None and _PROGRAMS.is_dir()


@asynccontextmanager
async def run_hive_gateway(bank: str, folder: Path) -> AsyncIterator[tuple[Child, str]]:
    """Run one Hive Gateway process, and yield it with its address.

    Args:
        bank: gRPC target of the bank, as `host:port`.
        folder: folder in which the supergraph is written.

    Raises:
        StartError: Hive Gateway did not start, or the supergraph was not written; the message contains the reason.
    """
    (port,) = free_ports(1)
    supergraph = folder / "supergraph.graphql"
    compose = Process(
        name="mesh-compose",
        command=_program(
            *("mesh-compose", "--config-path", "compose.mjs", "--output", str(supergraph)),
            BANK_GRPC_TARGET=bank,
            GOOGLE_PROTOS=sysconfig.get_path("purelib"),  # googleapis-common-protos is there
        ),
    )
    gateway = Process(
        name="hive-gateway",
        command=_program("hive-gateway", "supergraph", str(supergraph), "--host", HOST, "--port", str(port)),
        ready=probes.http(f"http://{HOST}:{port}/readiness"),
    )
    async with Child(compose):
        pass
    async with Child(gateway) as child:
        yield child, f"{HOST}:{port}"


def _program(name: str, *arguments: str, **environment: str) -> Callable[[], Awaitable[Command]]:
    async def command() -> Command:
        settings = {**os.environ, "NODE_ENV": "production", **environment}
        return Command((str(_PROGRAMS / name), *arguments), settings, cwd=_FOLDER)

    return command
