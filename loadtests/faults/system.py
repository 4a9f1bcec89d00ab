"""The whole system with two banks, and wires that can be cut to PostgreSQL, ClickHouse and the banks."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Self

from loadtests.faults.proxy import Proxy
from loadtests.target import NO_RATE_LIMIT, Target
from stack import probes
from stack.engines.children import ClickHouse
from stack.engines.postgres import Postgres
from stack.plan import build_plan
from stack.ports import HOST, Ports, free_ports
from stack.process import Command, Process
from stack.system import System, run_system

BANKS: Final = ("bank", "bank-2")

Broker = Callable[[Ports, Path], Process]
"""Another Kafka than the embedded one, on the port of that."""


@dataclass(frozen=True, slots=True)
class Fragile:
    """The system, its wires by the name of what is at their end, and how it is loaded."""

    system: System
    wires: Mapping[str, Proxy]
    target: Target
    admins: Mapping[str, str]

    @classmethod
    @asynccontextmanager
    async def running(cls, data: Path, broker: Broker | None = None) -> AsyncIterator[Self]:
        """On free ports and this folder, which is left as it is."""
        ports, (second, second_admin) = Ports.free(), free_ports(2)
        ends = {"postgres": ports.postgres, "clickhouse": ports.clickhouse, "bank": ports.bank_grpc, "bank-2": second}
        wires = {name: Proxy(port, end) for (name, end), port in zip(ends.items(), free_ports(len(ends)), strict=True)}
        async with AsyncExitStack() as stack:
            for wire in wires.values():
                await stack.enter_async_context(wire)
            planner = partial(_plan, wires=wires, second=(second, second_admin), broker=broker)
            system = await stack.enter_async_context(run_system(ports, data, planner=planner))
            target = Target.embedded(ports, data)
            banks = {"bank": target.admins["bank"], "bank-2": f"http://{HOST}:{second_admin}"}
            yield cls(system, wires, target, {**target.admins, **banks})


def _plan(
    ports: Ports, data: Path, *, wires: Mapping[str, Proxy], second: tuple[int, int], broker: Broker | None
) -> Sequence[Process]:
    """The full plan, where whoever uses something goes by its wire."""
    postgres = Postgres(data, wires["postgres"].port)
    banks = ",".join(f"{HOST}:{wires[name].port}" for name in BANKS)
    detours = {
        "BANK_DATABASE_URL": postgres.dsn("bank"),
        "CARD_DATABASE_URL": postgres.dsn("card"),
        "IDENTITY_DATABASE_URL": postgres.dsn("identity"),
        "CLICKHOUSE_DSN": ClickHouse(data / "clickhouse", wires["clickhouse"].port).dsn("wallet"),
        "BANK_GRPC_TARGET": f"ipv4:{banks}",
    }
    plan = {each.name: each for each in build_plan(ports, data, Postgres(data, ports.postgres))}
    for name in ("bank", "card", "analytics", "identity", "gateway"):
        plan[name] = _told(plan[name], detours)
    plan["gateway"] = _told(plan["gateway"], {"GATEWAY_RATE_SIGN_IN": NO_RATE_LIMIT})  # a canary asks often
    grpc, admin = second
    listens = {"BANK_GRPC_LISTEN": f"{HOST}:{grpc}", "BANK_ADMIN_LISTEN": f"{HOST}:{admin}"}
    plan["bank-2"] = replace(
        _told(plan["bank"], listens),
        name="bank-2",
        ready=probes.http(f"http://{HOST}:{admin}/health/ready"),
        ports={"gRPC": grpc, "admin": admin},
        urls={},
    )
    if broker:
        plan["kafka"] = replace(broker(ports, data / "kafka"), name="kafka")
        plan["analytics"] = replace(plan["analytics"], restart_with=())  # this one keeps what it knew
    return list(plan.values())


def _told(process: Process, environment: Mapping[str, str]) -> Process:
    """The same process, told other things in its environment; only what it was told anyway, or listens on."""
    prepare = process.command

    async def command() -> Command:
        prepared = await prepare()
        return replace(prepared, environment={**prepared.environment, **environment})

    return replace(process, command=command)
