"""Several of each, as `docker compose up --scale bank=3 --scale analytics=2 --scale gateway=2` has them: behind nginx,
on Apache Kafka, with rates in a Redis. What is killed under load is started again, as Docker does.
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
from stack.engines.apache_kafka import ApacheKafka, ApacheKafkaUnavailable, fetch_jars
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.plan import AUDIENCE, ISSUER, build_plan
from stack.ports import HOST, Ports, free_ports
from stack.process import Command, Process
from stack.system import System, run_system
from tests.e2e.feeds import OPERATION_ADDED, connected, subscribe
from tests.nginx import Nginx, nginx
from tests.openapi import REST
from tests.tools import lacking
from tests.waiting import until

pytestmark = pytest.mark.slow

REPLICAS = {"bank": 3, "analytics": 2, "gateway": 2}
LOAD_SECONDS = 6.0
SIGN_INS = 20  # a minute


def replicated(ports: Ports, data: Path, jars: Path) -> Sequence[Process]:
    """The full plan, with Apache Kafka for the embedded one, a Redis, and more than one of some."""
    apache = ApacheKafka(jars, data / "kafka", ports.kafka, *free_ports(1)).process
    (redis_port,) = free_ports(1)
    listens = {name: [ports_of(ports, name), *more(count - 1)] for name, count in REPLICAS.items()}
    settings = {
        "BANK_GRPC_TARGET": "ipv4:" + ",".join(f"{HOST}:{grpc}" for grpc, _ in listens["bank"]),
        "ANALYTICS_GRPC_TARGET": "ipv4:" + ",".join(f"{HOST}:{grpc}" for grpc, _ in listens["analytics"]),
        "GATEWAY_RATE_STORE": f"redis://{HOST}:{redis_port}/0",
        "GATEWAY_RATE_SIGN_IN": f"{SIGN_INS}/minute",
        "GATEWAY_TRUSTED_PROXIES": f'["{HOST}"]',
        "IDENTITY_HASH_MEMORY_KIB": "1024",
        "IDENTITY_HASH_PASSES": "1",
    }
    plan = [redis(redis_port)]
    for process in build_plan(ports, data, Postgres(data, ports.postgres)):
        if process.name == "kafka":
            plan.append(replace(apache, name="kafka"))
        elif process.name not in REPLICAS:
            plan.append(given(process, settings))
        else:
            plan += [replica(process, number, *each, settings) for number, each in enumerate(listens[process.name], 1)]
    return plan


def more(count: int) -> list[tuple[int, int]]:
    """Pairs of free ports."""
    found = iter(free_ports(2 * count))
    return list(zip(found, found, strict=True))


def ports_of(ports: Ports, name: str) -> tuple[int, int]:
    """What the first of a service serves at, and its admin port."""
    served = ports.gateway if name == "gateway" else getattr(ports, f"{name}_grpc")
    return served, getattr(ports, f"{name}_admin")


def replica(process: Process, number: int, port: int, admin: int, settings: dict[str, str]) -> Process:
    """One of several, at ports of its own."""
    name = process.name.upper()
    listen = f"{name}_LISTEN" if name == "GATEWAY" else f"{name}_GRPC_LISTEN"
    own = {listen: f"{HOST}:{port}", f"{name}_ADMIN_LISTEN": f"{HOST}:{admin}"}
    asked = port if name == "GATEWAY" else admin
    return replace(
        given(process, settings | own),
        name=f"{process.name}-{number}",
        ready=probes.http(f"http://{HOST}:{asked}/health/ready"),
        ports={"served": port, "admin": admin},
        urls={"admin": f"http://{HOST}:{admin}"},
    )


def given(process: Process, settings: dict[str, str]) -> Process:
    """The process with other settings; nobody has to be restarted because Kafka was."""

    async def command() -> Command:
        usual = await process.command()
        return replace(usual, environment={**usual.environment, **settings})

    return replace(process, command=command, restart_with=())


def redis(port: int) -> Process:
    program = shutil.which("redis-server")
    if program is None:
        lacking("there is no redis-server")

    async def command() -> Command:
        return Command(
            (program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"), dict(os.environ)
        )

    return Process(name="redis", command=command, ready=probes.tcp(HOST, port), ports={"redis": port})


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    try:
        jars = await asyncio.to_thread(fetch_jars)
    except ApacheKafkaUnavailable as error:
        lacking(f"there is no Apache Kafka: {error}")
    data = tmp_path_factory.mktemp("replicas")
    async with run_system(Ports.free(), data, planner=lambda ports, data: replicated(ports, data, jars)) as system:
        yield system
    remove_cluster(data)


@pytest.fixture(scope="module")
async def front(system: System, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nginx]:
    children = system.supervisor.children
    gateways = [child.process.ports["served"] for name, child in children.items() if name.startswith("gateway")]
    async with nginx(tmp_path_factory.mktemp("nginx"), *(f"{HOST}:{port}" for port in gateways)) as front:
        yield front


@pytest.fixture(scope="module")
def signer(system: System) -> TokenSigner:
    return TokenSigner.from_file(ISSUER, system.data / "keys" / "development.pem", AUDIENCE)


@pytest.fixture(scope="module")
async def ledger(system: System) -> AsyncIterator[asyncpg.Pool]:
    """The ledger's database, seen from behind."""
    async with asyncpg.create_pool(
        Postgres(system.data, system.ports.postgres).dsn("bank"), min_size=0, max_size=2
    ) as pool:
        yield pool


@dataclass
class Customer:
    """Somebody with an account."""

    account: str
    http: httpx.AsyncClient

    async def pay(self, recipient: str, amount: str) -> int:
        """Asks with one key until the outcome is known, as callers are told to; its status. Whatever else is answered
        stays as it is.
        """
        key = str(uuid.uuid4())

        async def known() -> int | None:
            with suppress(httpx.TransportError):
                answer = await self.http.post(
                    f"/accounts/{self.account}/transfers",
                    json={"recipientId": recipient, "amount": amount},
                    headers={"Idempotency-Key": key},
                )
                return None if answer.status_code in {503, 504} else answer.status_code
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


async def follow_operations(customer: Customer, front: Nginx, seen: list[Decimal]) -> None:
    """Adds the balance after each of the customer's operations, from the first on, over one WebSocket."""
    token = customer.http.headers["Authorization"].removeprefix("Bearer ")
    async with connected(f"wss://{front.https}/graphql", token, ssl=front.trust, proxy=None) as connection:
        feed = subscribe(connection, OPERATION_ADDED, account=customer.account, after="djA")
        while True:
            seen.append(Decimal((await anext(feed))["operationAdded"]["balanceAfter"]["amount"]))


async def served(system: System, name: str, metric: str) -> float:
    """The sum of a metric's samples, of those that have these words."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{admin_of(system, name)}/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(metric))


def admin_of(system: System, name: str) -> str:
    return system.supervisor.children[name].process.urls["admin"]


async def ready(system: System, name: str) -> bool:
    return await probes.http(f"{admin_of(system, name)}/health/ready")()


REQUESTS = "wallet_gateway_request_duration_seconds_count"
TRANSFERS = 'wallet_rpc_duration_seconds_count{code="OK",method="/wallet.bank.v1.BankService/TransferMoney"'


class TestReplicas:
    async def test_are_lost_under_load_and_everybody_is_told_the_truth(
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
            data=system.data,  # whose key signs tokens
            admins={"card": admin_of(system, "card")} | {name: admin_of(system, f"{name}-2") for name in REPLICAS},
        )

        async def losing() -> Sequence[Mapping[str, Any]]:
            for name in ("bank-1", "analytics-1"):
                await asyncio.sleep(LOAD_SECONDS / 3)
                os.kill(system.pid(name), signal.SIGKILL)
            await asyncio.sleep(LOAD_SECONDS / 3)
            return ()

        plan = Plan(host=target.host, scenarios=("rest", "graphql", "subscribers"), users=12, seconds=LOAD_SECONDS)
        outcome = await run_load(target, plan, 8, tmp_path, losing)
        print(outcome)  # noqa: T201  shown by -s
        assert outcome.verdict == Verdict.SOUND.name, outcome.violations
        assert outcome.answered > 50

    async def test_of_analytics_take_live_feeds_over_from_each_other(
        self, system: System, front: Nginx, new_customer: NewCustomer
    ) -> None:
        alice, bob = await new_customer(), await new_customer()
        feeds: list[list[Decimal]] = [[], []]  # one at each gateway, as nginx takes them in turn
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(follow_operations(bob, front, seen)) for seen in feeds]
            for number in range(1, 31):
                assert await alice.pay(bob.account, "1.00") == 201
                if number in {10, 20}:
                    name = f"analytics-{number // 10}"
                    await until(lambda name=name: ready(system, name), within=30)  # type: ignore[misc]
                    os.kill(system.pid(name), signal.SIGKILL)

            async def all_seen() -> bool:
                return all(len(seen) >= 30 for seen in feeds)

            await until(all_seen, within=40)
            for each in following:
                each.cancel()
        assert feeds == [[Decimal(1_000 + number) for number in range(1, 31)]] * 2

    async def test_share_the_work_also_with_those_that_came_back_and_one_bank_leads_the_outbox(
        self, system: System, new_customer: NewCustomer
    ) -> None:
        customers = [await new_customer() for _ in range(8)]  # as many keys, on four partitions
        work = {"bank": TRANSFERS, "analytics": "wallet_analytics_events_consumed_total", "gateway": REQUESTS}

        async def done() -> dict[str, float]:
            return {
                f"{name}-{number}": await served(system, f"{name}-{number}", work[name])
                for name, count in REPLICAS.items()
                for number in range(1, count + 1)
            }

        before = await done()

        async def all_take_part() -> bool:
            for sender, recipient in zip(customers, reversed(customers), strict=True):
                assert await sender.pay(recipient.account, "0.01") == 201
            return all(now > before[name] for name, now in (await done()).items())

        await until(all_take_part, within=30)
        banks = [f"bank-{number}" for number in range(1, REPLICAS["bank"] + 1)]
        assert sum([await served(system, name, "wallet_bank_outbox_leads") for name in banks]) == 1

    async def test_of_the_gateway_count_together_what_a_caller_asks_for(self, front: Nginx) -> None:
        async with front.client as http:
            strangers = ({"username": f"stranger{number}", "password": "guessed"} for number in range(2 * SIGN_INS))
            answers = [await http.post("/auth/login", json=stranger) for stranger in strangers]
        let_through = [answer for answer in answers if answer.status_code != 429]
        assert SIGN_INS <= len(let_through) < 1.5 * SIGN_INS  # alone, each would let through so many
