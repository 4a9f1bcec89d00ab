"""The gateway in front of services that do nothing, and what else is put there: each is one process.

The gateway runs as anywhere: it verifies tokens, holds limits, writes a line of log a request.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import orjson

from benchmarks import bank_load, hive, http1_client, load_generator, service_stubs
from benchmarks.accounts import ACCOUNTS, OWNERS, account_id
from benchmarks.bank_environment import Callers
from benchmarks.bank_load import Calls, Window
from benchmarks.figure import BenchError, Options
from benchmarks.run import Run, cpu_meter
from loadtests.statistics import percentiles
from loadtests.target import NO_RATE_LIMIT
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Probe, Process, module

_IN_FLIGHT: Final = 32
_REQUESTS: Final = 1_000  # different ones, again and again: these services remember none
_PATIENCE_SECONDS: Final = 30.0
UNLIMITED: Final = {
    **{f"GATEWAY_RATE_{limit}": NO_RATE_LIMIT for limit in ("REQUESTS", "COST", "ANONYMOUS")},
    "GATEWAY_STREAMS": "1000000",
}
"""What a gateway is told where one caller is many."""
_TRANSFER: Final = """mutation Transfer($input: TransferMoneyInput!) {
  transferMoney(input: $input) {
    ... on TransferMoneySuccess { transfer { id } balance { amount } }
    ... on Error { code message }
  }
}"""
_OPERATIONS: Final = """query Operations($id: ID!, $first: Int!) {
  account(id: $id) {
    operations(first: $first) {
      edges {
        node {
          id type direction amount { amount currency } balanceAfter { amount } counterparty { id } occurredAt cursor
        }
      }
      pageInfo { hasNextPage hasPreviousPage }
    }
  }
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a figure: who is asked, for what, and by which generator."""

    name: str
    load: http1_client.Load | bank_load.Load
    generator: str = "benchmarks.http1_client"
    what: str = "transfers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Services that do nothing, and the sides in front of them."""

    folder: Path
    callers: Callers
    bank_at: str
    gateway_at: str
    unguarded_at: str
    bare_at: str
    environment: Mapping[str, str]
    parts: dict[str, Child] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def set(cls) -> AsyncIterator[Self]:
        """Each in a process of its own, gone afterwards."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
            callers = Callers(folder)
            bank_at, analytics_at, gateway_at, unguarded_at, bare_at, *admins_at = (
                f"{HOST}:{port}" for port in free_ports(7)
            )
            environment = {
                **callers.settings,
                "GATEWAY_LISTEN": gateway_at,
                "GATEWAY_ADMIN_LISTEN": admins_at[0],
                "GATEWAY_RATE_REQUESTS": NO_RATE_LIMIT,
                "GATEWAY_RATE_COST": NO_RATE_LIMIT,
                "BANK_GRPC_TARGET": bank_at,
                "ANALYTICS_GRPC_TARGET": analytics_at,
            }
            scene = cls(
                folder=folder,
                callers=callers,
                bank_at=bank_at,
                gateway_at=gateway_at,
                unguarded_at=unguarded_at,
                bare_at=bare_at,
                environment=environment,
            )

            async def start(part: str, name: str, ready: Probe, *arguments: str, **environment: str) -> None:
                await stack.enter_async_context(scene._part(part, name, ready, *arguments, **environment))

            await start("bank", "benchmarks.service_stubs", _accepts(bank_at), bank_at)
            await start("analytics", "benchmarks.service_stubs", _accepts(analytics_at), analytics_at)
            await start("gateway", "gateway", _accepts(gateway_at), **environment)
            unguarded = {
                **environment,
                "GATEWAY_LISTEN": unguarded_at,
                "GATEWAY_ADMIN_LISTEN": admins_at[1],
                "GATEWAY_RATES": "false",
            }
            await start("unguarded", "benchmarks.gateway_without_auth", _accepts(unguarded_at), **unguarded)
            await start("bare", "benchmarks.bare_route", _accepts(bare_at), bare_at, bank_at)
            yield scene

    @asynccontextmanager
    async def _part(
        self, part: str, name: str, ready: Probe, *arguments: str, **environment: str
    ) -> AsyncIterator[None]:
        process = Process(name=part, command=module(name, *arguments, **environment), ready=ready)
        async with Child(process) as self.parts[part]:
            yield
        del self.parts[part]

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[tuple[str, str]]:
        """Two gateways, which are there for their own figure only, and their addresses: one with all its lines of log
        and a tenth of its traces sent to a collector, and one that tells of errors alone.
        """
        telling_at, silent_at, collector_at, *admins_at = (f"{HOST}:{port}" for port in free_ports(5))
        telling = {"OTLP_ENDPOINT": f"http://{collector_at}", "TRACE_RATIO": "0.1"}
        telling |= {"GATEWAY_LISTEN": telling_at, "GATEWAY_ADMIN_LISTEN": admins_at[0]}
        silent = {"LOG_LEVEL": "ERROR", "GATEWAY_LISTEN": silent_at, "GATEWAY_ADMIN_LISTEN": admins_at[1]}
        async with (
            self._part("collector", "benchmarks.service_stubs", _accepts(collector_at), collector_at),
            self._part("telling", "gateway", _accepts(telling_at), **{**self.environment, **telling}),
            self._part("silent", "gateway", _accepts(silent_at), **{**self.environment, **silent}),
        ):
            yield telling_at, silent_at

    @asynccontextmanager
    async def hive(self) -> AsyncIterator[str]:
        """Hive Gateway, which is there for its own figure only: its address."""
        async with hive.running(self.bank_at, self.folder) as (self.parts["hive"], target):
            yield target
        del self.parts["hive"]

    async def drive(self, side: Side, options: Options) -> Run:
        """One side, measured.

        Raises:
            BenchError: a request failed.
        """
        async with load_generator.running(side.generator) as generator:
            generator.tell(side.load)
            await generator.hear(_PATIENCE_SECONDS)
            since = time.monotonic() + options.warm_up
            window = Window(since=since, until=since + options.seconds)
            generator.tell(window)
            await _sleep_until(window.since)
            used = cpu_meter({kind: [part.pid or 0] for kind, part in self.parts.items()} | {"load": [generator.pid]})
            await _sleep_until(window.until)
            cpu = used()
            calls = Calls(**orjson.loads(await generator.hear(_PATIENCE_SECONDS)))
        if calls.error:
            raise BenchError(f"{side.name}: a request failed: {calls.error}")
        return Run(
            name=side.name,
            rate=calls.transfers / options.seconds,
            acknowledged=calls.acknowledged,
            what=side.what,
            details={"latency_ms": percentiles(calls.latencies_ms), "cpu_seconds": cpu},
        ).told()

    def rest(self, name: str, target: str) -> Side:
        """Transfers by the REST contract, which the gateway and the bare route have."""

        def request(number: int) -> str:
            headers = {**self._headers(number), "Idempotency-Key": f"key-{number}"}
            body = {"recipientId": account_id(number), "amount": "1.00", "currency": "RUB"}
            return http1_client.post(f"/accounts/{account_id(number + 1)}/transfers", headers, body)

        return Side(name=name, load=_many(target, request, status=201, sign='"createdAt"'))

    def graphql(self) -> Side:
        """Transfers by the graph: one text, other variables each time."""

        def request(number: int) -> str:
            given = {
                "senderId": account_id(number + 1),
                "recipientId": account_id(number),
                "amount": "1.00",
                "idempotencyKey": f"key-{number}",
            }
            return self._query(_TRANSFER, {"input": given}, number)

        return Side(name="gateway", load=_many(self.gateway_at, request, status=200, sign='"balance"'))

    def by_hive(self, target: str) -> Side:
        """The same by Hive Gateway's graph."""

        def request(number: int) -> str:
            given = {
                "sender_id": account_id(number + 1),
                "recipient_id": account_id(number),
                "amount": {"currency_code": "RUB", "units": "1"},
                "idempotency_key": f"key-{number}",
            }
            return self._query(hive.TRANSFER, {"input": given}, number)

        return Side(name="Hive Gateway", load=_many(target, request, status=200, sign='"sender_balance":{'))

    def grpc(self) -> Side:
        """The same calls of the bank as the gateway makes, without the gateway."""
        target, tokens = [self.bank_at], self.callers.customers
        calls = bank_load.Load(targets=target, tokens=tokens, accounts=ACCOUNTS, in_flight=_IN_FLIGHT)
        return Side(name="gRPC alone", load=calls, generator="benchmarks.bank_load")

    def page_by_rest(self) -> Side:
        """A page of operations, one after the other."""
        request = http1_client.get(
            f"/accounts/{service_stubs.ACCOUNT}/operations?limit={service_stubs.PAGE}", self._headers()
        )
        return Side(name="REST", load=_one(self.gateway_at, request, sign='"hasOlder":true'), what="pages")

    def page_by_graphql(self) -> Side:
        """The same page, with the same of each operation."""
        request = self._query(_OPERATIONS, {"id": service_stubs.ACCOUNT, "first": service_stubs.PAGE})
        return Side(name="GraphQL", load=_one(self.gateway_at, request, sign='"hasNextPage":true'), what="pages")

    def _headers(self, caller: int = 0) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.callers.customers[caller % OWNERS]}"}

    def _query(self, query: str, variables: Mapping[str, Any], caller: int = 0) -> str:
        accept = {"Accept": "application/graphql-response+json, application/json;q=0.9"}
        return http1_client.post("/graphql", self._headers(caller) | accept, {"query": query, "variables": variables})


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _many(target: str, request: Callable[[int], str], *, status: int, sign: str) -> http1_client.Load:
    requests = [request(number) for number in range(_REQUESTS)]
    return http1_client.Load(target=target, requests=requests, connections=_IN_FLIGHT, status=status, sign=sign)


def _one(target: str, request: str, *, sign: str) -> http1_client.Load:
    return http1_client.Load(target=target, requests=[request], connections=1, status=200, sign=sign)


def _accepts(address: str) -> Probe:
    host, _, port = address.rpartition(":")
    return probes.tcp(host, int(port))
