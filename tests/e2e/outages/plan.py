"""Plan of the system that the tests of this folder share: mutual TLS, two banks, and rate limits in Redis."""

import asyncio
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from stack import probes
from stack.ports import HOST, Ports, free_ports
from stack.process import Command, Process
from stack.system import full_system_plan
from tests.e2e.plans import CHEAP_HASHES, no_rate_limits, with_settings
from tests.tools import skip_without_tool

CALL_LIMIT: Final = 50
SETTINGS: Final[Mapping[str, str]] = {
    "CALL_TIMEOUT_SECONDS": "2",
    "CALL_LIMIT": str(CALL_LIMIT),
    **no_rate_limits("REQUESTS", "ANONYMOUS", "LOGIN"),
    **CHEAP_HASHES,
}

BANKS: Final = ("bank", "bank-2")
"""Names of the replicas of the bank."""


def delayed(seconds: float, process: Process) -> Process:
    """Return the process with a delay before its first start and without dependencies."""
    first = True

    async def command() -> Command:
        nonlocal first
        await asyncio.sleep(seconds if first else 0)
        first = False
        return await process.command()

    return replace(process, command=command, depends_on=())


def plan_system(seed: int, ports: Ports, data: Path) -> Sequence[Process]:
    """Plan the system. Its processes start in a random order, which the seed determines."""
    program = shutil.which("redis-server")
    if program is None:
        skip_without_tool("there is no redis-server")
    redis, grpc, admin = free_ports(3)

    async def serve_redis() -> Command:
        arguments = ("--port", str(redis), "--bind", HOST, "--save", "", "--appendonly", "no")
        return Command((program, *arguments), dict(os.environ))

    plan = {process.name: with_settings(process, SETTINGS) for process in full_system_plan(ports, data, tls=True)}
    plan["redis"] = Process(name="redis", command=serve_redis, ready=probes.tcp(HOST, redis))
    listens = {"BANK_GRPC_LISTEN": f"{HOST}:{grpc}", "BANK_ADMIN_LISTEN": f"{HOST}:{admin}"}
    plan["bank-2"] = replace(
        with_settings(plan["bank"], listens),
        name="bank-2",
        ready=probes.http(f"http://{HOST}:{admin}/health/ready"),
        ports={},
        urls={"metrics": f"http://{HOST}:{admin}"},
    )
    banks = f"ipv4:{HOST}:{ports.bank_grpc},{HOST}:{grpc}"
    for name in ("card", "analytics", "gateway"):
        targets = {"BANK_GRPC_TARGET": banks, "GATEWAY_RATE_STORE": f"redis://{HOST}:{redis}/0"}
        plan[name] = with_settings(plan[name], targets)
    order = [name for name in plan if plan[name].ready]
    random.Random(seed).shuffle(order)
    print(f"seed {seed}: started in the order {', '.join(order)}")  # noqa: T201  shown when a test fails
    return [delayed(0.3 * order.index(name), plan[name]) if name in order else plan[name] for name in plan]
