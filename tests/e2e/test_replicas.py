"""Replicas as with `docker compose up --scale bank=3 --scale analytics=2 --scale gateway=2`.

nginx is in front of the gateways, Apache Kafka is the broker, and Redis stores the counters of rate limits. Killed
processes are restarted.
"""

import asyncio
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from loadtests.plan import Plan
from loadtests.run import Verdict, run_load
from loadtests.target import Target
from stack import probes
from stack.engines.apache_kafka import POM
from stack.engines.cluster import remove_cluster
from stack.engines.jars import JarsUnavailable, fetch_jars
from stack.engines.postgres import Postgres
from stack.plan import AUDIENCE, ISSUER, build_plan
from stack.ports import HOST, Ports, free_ports
from stack.process import Command, Process
from stack.system import System, run_system
from tests.e2e.feeds import OPERATION_ADDED, connected, subscribe
from tests.e2e.plans import CHEAP_HASHES, with_settings
from tests.nginx import Nginx, run_nginx
from tests.openapi import REST
from tests.tools import skip_without_tool
from tests.waiting import until

pytestmark = pytest.mark.slow

REPLICAS = {"bank": 3, "analytics": 2, "gateway": 2}
LOAD_SECONDS = 6.0
LOGINS_PER_MINUTE = 20


def replicated_plan(ports: Ports, data: Path, jars: Path) -> Sequence[Process]:
    """Return the full plan with Apache Kafka, Redis and several replicas."""
    (redis_port,) = free_ports(1)
    listens = {name: [ports_of(ports, name), *free_port_pairs(count - 1)] for name, count in REPLICAS.items()}
    settings = {
        "BANK_GRPC_TARGET": "ipv4:" + ",".join(f"{HOST}:{grpc}" for grpc, _ in listens["bank"]),
        "ANALYTICS_GRPC_TARGET": "ipv4:" + ",".join(f"{HOST}:{grpc}" for grpc, _ in listens["analytics"]),
        "GATEWAY_RATE_STORE": f"redis://{HOST}:{redis_port}/0",
        "GATEWAY_RATE_LOGIN": f"{LOGINS_PER_MINUTE}/minute",
        "GATEWAY_TRUSTED_PROXIES": f'["{HOST}"]',
        **CHEAP_HASHES,
    }
    plan = [redis(redis_port)]
    for process in build_plan(ports, data, Postgres(data, ports.postgres), kafka_jars=jars):
        if process.name not in REPLICAS:
            plan.append(with_settings(process, settings))
        else:
            plan += [replica(process, number, *each, settings) for number, each in enumerate(listens[process.name], 1)]
    return plan


def free_port_pairs(count: int) -> list[tuple[int, int]]:
    """Return pairs of free ports."""
    ports = iter(free_ports(2 * count))
    return list(zip(ports, ports, strict=True))


def ports_of(ports: Ports, name: str) -> tuple[int, int]:
    """Return the service port and the admin port of the first replica."""
    port = ports.gateway if name == "gateway" else getattr(ports, f"{name}_grpc")
    return port, getattr(ports, f"{name}_admin")


def replica(process: Process, number: int, port: int, admin: int, settings: dict[str, str]) -> Process:
    """Return one replica with its ports."""
    name = process.name.upper()
    listen = f"{name}_LISTEN" if name == "GATEWAY" else f"{name}_GRPC_LISTEN"
    own = {listen: f"{HOST}:{port}", f"{name}_ADMIN_LISTEN": f"{HOST}:{admin}"}
    probed = port if name == "GATEWAY" else admin
    return replace(
        with_settings(process, settings | own),
        name=f"{process.name}-{number}",
        ready=probes.http(f"http://{HOST}:{probed}/health/ready"),
        ports={"served": port, "admin": admin},
        urls={"admin": f"http://{HOST}:{admin}"},
    )


def redis(port: int) -> Process:
    program = shutil.which("redis-server")
    if program is None:
        skip_without_tool("there is no redis-server")

    async def command() -> Command:
        return Command(
            (program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"), dict(os.environ)
        )

    return Process(name="redis", command=command, ready=probes.tcp(HOST, port), ports={"redis": port})


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    try:
        jars = await asyncio.to_thread(fetch_jars, POM)
    except JarsUnavailable as error:
        skip_without_tool(f"there is no Apache Kafka: {error}")
    data = tmp_path_factory.mktemp("replicas")
    async with run_system(Ports.free(), data, planner=lambda ports, data: replicated_plan(ports, data, jars)) as system:
        yield system
    remove_cluster(data)


@pytest.fixture(scope="module")
async def front(system: System, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nginx]:
    children = system.supervisor.children
    gateways = [child.process.ports["served"] for name, child in children.items() if name.startswith("gateway")]
    async with run_nginx(tmp_path_factory.mktemp("nginx"), *(f"{HOST}:{port}" for port in gateways)) as front:
        yield front


@pytest.fixture(scope="module")
def signer(system: System) -> TokenSigner:
    return TokenSigner.from_file(ISSUER, system.data / "keys" / "development.pem", AUDIENCE)


@pytest.fixture(scope="module")
async def ledger(system: System) -> AsyncIterator[asyncpg.Pool]:
    """Connection pool of the bank's database."""
    async with asyncpg.create_pool(
        Postgres(system.data, system.ports.postgres).dsn("bank"), min_size=0, max_size=2
    ) as pool:
        yield pool


@dataclass
class Customer:
    """Customer with an account."""

    account: str
    http: httpx.AsyncClient

    async def pay(self, recipient: str, amount: str) -> int:
        """Pay with one key and retry until the outcome is known; return the HTTP status."""
        key = str(uuid.uuid4())

        async def known() -> int | None:
            with suppress(httpx.TransportError):
                response = await self.http.post(
                    f"/accounts/{self.account}/transfers",
                    json={"recipientId": recipient, "amount": amount},
                    headers={"Idempotency-Key": key},
                )
                return None if response.status_code in {503, 504} else response.status_code
            return None

        status = await until(known, within=30)
        assert status is not None
        return status


NewCustomer = Callable[[], Awaitable[Customer]]


@pytest.fixture
async def new_customer(front: Nginx, signer: TokenSigner, ledger: asyncpg.Pool) -> AsyncIterator[NewCustomer]:
    clients: list[httpx.AsyncClient] = []

    async def new_customer() -> Customer:
        subject = str(uuid.uuid4())
        statement = "INSERT INTO accounts (owner_id, balance) VALUES ($1, 1000) RETURNING id"
        http = httpx.AsyncClient(
            base_url=f"https://{front.https}",
            verify=front.trust,
            headers={"Authorization": f"Bearer {signer.sign(subject, 600, (Role.CUSTOMER,))}"},
            event_hooks={"response": [REST.check_hook]},
            timeout=15,
            trust_env=False,
        )
        clients.append(http)
        return Customer(str(await ledger.fetchval(statement, subject)), http)

    yield new_customer
    for each in clients:
        await each.aclose()


async def follow_operations(customer: Customer, front: Nginx, balances: list[Decimal]) -> None:
    """Subscribe over one WebSocket from the customer's first operation, and append the balance after each operation."""
    token = customer.http.headers["Authorization"].removeprefix("Bearer ")
    async with connected(f"wss://{front.https}/graphql", token, ssl=front.trust, proxy=None) as connection:
        feed = subscribe(connection, OPERATION_ADDED, account=customer.account, after="djA")
        while True:
            balances.append(Decimal((await anext(feed))["operationAdded"]["balanceAfter"]["amount"]))


async def metric_sum(system: System, name: str, metric: str) -> float:
    """Return the sum of a process's samples that start with `metric`."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{admin_url(system, name)}/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(metric))


def admin_url(system: System, name: str) -> str:
    return system.supervisor.children[name].process.urls["admin"]


async def is_ready(system: System, name: str) -> bool:
    return await probes.http(f"{admin_url(system, name)}/health/ready")()


REQUESTS = "wallet_gateway_request_duration_seconds_count"
TRANSFERS = 'wallet_rpc_duration_seconds_count{code="OK",method="/wallet.bank.v1.BankService/TransferMoney"'


class TestReplicas:
    async def test_history_is_sound_when_replicas_are_killed_under_load(
        self,
        system: System,
        front: Nginx,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for variable in ("SSL_CERT_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE"):
            monkeypatch.setenv(variable, str(front.authority))
        target = Target(
            host=f"https://{front.https}",
            ledger=Postgres(system.data, system.ports.postgres).dsn("bank"),
            data=system.data,  # contains the key that signs tokens
            admins={"card": admin_url(system, "card")} | {name: admin_url(system, f"{name}-2") for name in REPLICAS},
        )

        async def kill_replicas() -> Sequence[Mapping[str, Any]]:
            for name in ("bank-1", "analytics-1"):
                await asyncio.sleep(LOAD_SECONDS / 3)
                os.kill(system.pid(name), signal.SIGKILL)
            await asyncio.sleep(LOAD_SECONDS / 3)
            return ()

        plan = Plan(host=target.host, scenarios=("rest", "graphql", "subscribers"), users=12, seconds=LOAD_SECONDS)
        outcome = await run_load(target, plan, 8, tmp_path, kill_replicas)
        print(outcome)  # noqa: T201  shown by -s
        assert outcome.verdict == Verdict.SOUND.name, outcome.violations
        assert outcome.answered > 50

    async def test_live_feeds_move_to_another_analytics_replica(
        self, system: System, front: Nginx, new_customer: NewCustomer
    ) -> None:
        alice, bob = await new_customer(), await new_customer()
        feeds: list[list[Decimal]] = [[], []]  # one per gateway: nginx balances round-robin
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(follow_operations(bob, front, balances)) for balances in feeds]
            for number in range(1, 31):
                assert await alice.pay(bob.account, "1.00") == 201
                if number in {10, 20}:
                    name = f"analytics-{number // 10}"
                    await until(lambda name=name: is_ready(system, name), within=30)  # type: ignore[misc]
                    os.kill(system.pid(name), signal.SIGKILL)

            async def all_received() -> bool:
                return all(len(balances) >= 30 for balances in feeds)

            await until(all_received, within=40)
            for each in following:
                each.cancel()
        assert feeds == [[Decimal(1_000 + number) for number in range(1, 31)]] * 2

    async def test_restarted_replicas_share_the_work_and_one_bank_leads_the_outbox(
        self, system: System, new_customer: NewCustomer
    ) -> None:
        customers = [await new_customer() for _ in range(8)]  # enough for message keys on all four partitions
        work = {"bank": TRANSFERS, "analytics": "wallet_analytics_events_consumed_total", "gateway": REQUESTS}

        async def work_counts() -> dict[str, float]:
            return {
                f"{name}-{number}": await metric_sum(system, f"{name}-{number}", work[name])
                for name, count in REPLICAS.items()
                for number in range(1, count + 1)
            }

        before = await work_counts()

        async def all_replicas_work() -> bool:
            for sender, recipient in zip(customers, reversed(customers), strict=True):
                assert await sender.pay(recipient.account, "0.01") == 201
            return all(now > before[name] for name, now in (await work_counts()).items())

        await until(all_replicas_work, within=30)
        banks = [f"bank-{number}" for number in range(1, REPLICAS["bank"] + 1)]
        assert sum([await metric_sum(system, name, "wallet_bank_outbox_is_leader") for name in banks]) == 1

    async def test_gateways_share_rate_limits(self, front: Nginx) -> None:
        async with front.new_client() as http:
            credentials = (
                {"username": f"stranger{number}", "password": "guessed"} for number in range(2 * LOGINS_PER_MINUTE)
            )
            responses = [await http.post("/auth/login", json=each) for each in credentials]
        allowed = [response for response in responses if response.status_code != 429]
        assert LOGINS_PER_MINUTE <= len(allowed) < 1.5 * LOGINS_PER_MINUTE  # separate limits would allow twice as many
