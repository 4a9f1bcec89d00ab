"""System under test: the whole system with two replicas of the bank.

Proxies are in front of PostgreSQL, ClickHouse and each replica of the bank.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Self

from loadtests.faults.proxy import Proxy
from loadtests.target import NO_DECLINE_LIMITS, NO_RATE_LIMIT, Target
from stack import probes
from stack.engines.children import ClickHouse
from stack.engines.postgres import Postgres
from stack.plan import build_plan
from stack.ports import HOST, Ports, free_ports
from stack.process import Command, Process
from stack.system import System, run_system

BANKS: Final = ("bank", "bank-2")


@dataclass(frozen=True, slots=True)
class SystemUnderTest:
    """Running system with its proxies and addresses.

    Attributes:
        system: the running processes and their supervisor.
        proxies: proxies by the name of the component behind them.
        target: addresses for the load.
        admins: admin URL by process, including the second replica of the bank, `bank-2`.
    """

    system: System
    proxies: Mapping[str, Proxy]
    target: Target
    admins: Mapping[str, str]

    @classmethod
    @asynccontextmanager
    async def running(cls, data: Path, kafka_jars: Path | None = None) -> AsyncIterator[Self]:
        """Run the system on free ports while the block runs. The data folder is not removed.

        Args:
            data: the data folder.
            kafka_jars: jars of Apache Kafka; None runs the embedded broker.
        """
        ports, (second, second_admin) = Ports.free(), free_ports(2)
        targets = {"postgres": ports.postgres, "clickhouse": ports.clickhouse}
        targets |= {"bank": ports.bank_grpc, "bank-2": second}
        listens = free_ports(len(targets))
        proxies = {name: Proxy(port, end) for (name, end), port in zip(targets.items(), listens, strict=True)}
        async with AsyncExitStack() as stack:
            for proxy in proxies.values():
                await stack.enter_async_context(proxy)
            planner = partial(_plan_processes, proxies=proxies, second=(second, second_admin), kafka_jars=kafka_jars)
            system = await stack.enter_async_context(run_system(ports, data, planner=planner))
            target = Target.embedded(ports, data)
            banks = {"bank": target.admins["bank"], "bank-2": f"http://{HOST}:{second_admin}"}
            yield cls(system, proxies, target, {**target.admins, **banks})


def _plan_processes(
    ports: Ports, data: Path, *, proxies: Mapping[str, Proxy], second: tuple[int, int], kafka_jars: Path | None
) -> Sequence[Process]:
    """Return all processes of the system and a second replica of the bank.

    The clients of PostgreSQL, of ClickHouse and of the bank connect through the proxies.
    """
    postgres = Postgres(data, proxies["postgres"].port)
    banks = ",".join(f"{HOST}:{proxies[name].port}" for name in BANKS)
    addresses = {
        "BANK_DATABASE_URL": postgres.dsn("bank"),
        "CARD_DATABASE_URL": postgres.dsn("card"),
        "IDENTITY_DATABASE_URL": postgres.dsn("identity"),
        "CLICKHOUSE_DSN": ClickHouse(data / "clickhouse", proxies["clickhouse"].port).dsn("wallet"),
        "BANK_GRPC_TARGET": f"ipv4:{banks}",
    }
    plan = {each.name: each for each in build_plan(ports, data, Postgres(data, ports.postgres), kafka_jars=kafka_jars)}
    for name in ("bank", "card", "analytics", "identity", "gateway"):
        plan[name] = _with_environment(plan[name], addresses)
    unlimited = {"GATEWAY_RATE_LOGIN": NO_RATE_LIMIT}  # the recovery probe logs in often
    plan["gateway"] = _with_environment(plan["gateway"], unlimited)
    plan["card"] = _with_environment(plan["card"], NO_DECLINE_LIMITS)
    grpc, admin = second
    listens = {"BANK_GRPC_LISTEN": f"{HOST}:{grpc}", "BANK_ADMIN_LISTEN": f"{HOST}:{admin}"}
    plan["bank-2"] = replace(
        _with_environment(plan["bank"], listens),
        name="bank-2",
        ready=probes.http(f"http://{HOST}:{admin}/health/ready"),
        ports={"gRPC": grpc, "admin": admin},
        urls={},
    )
    return list(plan.values())


def _with_environment(process: Process, environment: Mapping[str, str]) -> Process:
    """Return the process with additional environment variables."""
    prepare = process.command

    async def command() -> Command:
        prepared = await prepare()
        return replace(prepared, environment={**prepared.environment, **environment})

    return replace(process, command=command)
