"""Environment of the gateway's figures: the gateway, servers to compare it with, and stubs of the services behind it.

Each gateway, server and stub is one process. The gateway runs as in production: it verifies tokens, applies rate limits
and logs one line per request.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from benchmarks import hive, http1_client, service_stubs
from benchmarks.accounts import ACCOUNTS, OWNERS, account_id
from benchmarks.bank_load import BankLoad
from benchmarks.environment import BenchEnvironment
from benchmarks.figure import BenchError, Options
from benchmarks.http1_client import UNIQUE_KEY, HttpLoad
from benchmarks.load_generator import LoadResult, LoadWindow, sleep_until, start_generator
from benchmarks.run import Run
from loadtests.statistics import percentiles
from loadtests.target import NO_RATE_LIMIT
from provisioning.keys import ensure_key_pair
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module

_IN_FLIGHT: Final = 32
_REQUESTS: Final = 1_000  # number of different requests; they are repeated with new idempotency keys
_TIMEOUT_SECONDS: Final = 30.0
TRANSFER: Final = """mutation Transfer($input: TransferMoneyInput!) {
  transferMoney(input: $input) {
    ... on TransferMoneySuccess { transfer { id } balance { amount } }
    ... on Error { code message }
  }
}"""
"""Mutation that makes a transfer."""
OPERATIONS: Final = """query Operations($id: ID!, $first: Int!) {
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
"""Query of a page of operations with the fields that REST returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a ratio.

    Attributes:
        name: key of the side in the figure's details.
        load: requests that the generator sends.
        generator: module of the load generator.
        counted: what one response contains: "transfers", "pages" or "operations".
    """

    name: str
    load: HttpLoad | BankLoad
    generator: str = "benchmarks.http_load"
    counted: str = "transfers"


class GatewayEnvironment(BenchEnvironment):
    """The gateway, a gateway without authentication, `benchmarks.bare_route`, and stubs of the bank and of analytics.

    Attributes:
        bank: address of the bank's stub, as `host:port`.
        gateway: address of the gateway.
        gateway_without_auth: address of the gateway that accepts every token.
        bare_route: address of the FastAPI application `benchmarks.bare_route`: one route that only calls the bank.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bank, self._analytics, self.gateway, self.gateway_without_auth, self.bare_route = _addresses(5)
        self._children: dict[str, Child] = {}

    async def _start(self) -> None:
        # The names of the processes are keys in the kept results: do not change them.
        await self._enter("bank", "benchmarks.service_stubs", self.bank, self.bank, str(self.keys.public))
        await self._enter("analytics", "benchmarks.service_stubs", self._analytics, self._analytics)
        await self._enter("gateway", "gateway", self.gateway, **self._gateway_settings(self.gateway))
        settings = self._gateway_settings(self.gateway_without_auth, GATEWAY_RATES="false")
        await self._enter("unguarded", "benchmarks.gateway_without_auth", self.gateway_without_auth, **settings)
        await self._enter("bare", "benchmarks.bare_route", self.bare_route, self.bare_route, self.bank)

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Return the process id of each running process, by its name."""
        return {name: [child.pid or 0] for name, child in self._children.items()}

    async def _enter(self, name: str, module_name: str, address: str, *arguments: str, **settings: str) -> None:
        await self._exit_stack.enter_async_context(self._run(name, module_name, address, *arguments, **settings))

    @asynccontextmanager
    async def _run(
        self, name: str, module_name: str, address: str, *arguments: str, **settings: str
    ) -> AsyncIterator[None]:
        host, _, port = address.rpartition(":")
        command = module(module_name, *arguments, **settings)
        async with Child(Process(name=name, command=command, ready=probes.tcp(host, int(port)))) as child:
            self._children[name] = child
            yield
        del self._children[name]

    def _gateway_settings(self, listen: str, **others: str) -> dict[str, str]:
        return {
            **self.auth_settings,
            "SERVICE_KEY_FILE": str(ensure_key_pair(self.folder, "gateway").private),
            "GATEWAY_LISTEN": listen,
            "GATEWAY_ADMIN_LISTEN": _addresses(1)[0],
            "GATEWAY_RATE_REQUESTS": NO_RATE_LIMIT,
            "GATEWAY_RATE_COST": NO_RATE_LIMIT,
            "BANK_GRPC_TARGET": self.bank,
            "ANALYTICS_GRPC_TARGET": self._analytics,
            **others,
        }

    @asynccontextmanager
    async def gateways_with_and_without_telemetry(self) -> AsyncIterator[tuple[str, str]]:
        """Run two more gateways for one figure and yield their addresses.

        The first one logs as in production and exports a tenth of its traces to a collector. The second one logs errors
        only and exports no traces.
        """
        with_address, without_address, collector = _addresses(3)
        with_telemetry = self._gateway_settings(with_address, OTLP_ENDPOINT=f"http://{collector}", TRACE_RATIO="0.1")
        without_telemetry = self._gateway_settings(without_address, LOG_LEVEL="ERROR")
        async with (
            self._run("collector", "benchmarks.service_stubs", collector, collector),
            self._run("telling", "gateway", with_address, **with_telemetry),
            self._run("silent", "gateway", without_address, **without_telemetry),
        ):
            yield with_address, without_address

    @asynccontextmanager
    async def hive_gateway(self) -> AsyncIterator[str]:
        """Run Hive Gateway for one figure and yield its address."""
        async with hive.run_hive_gateway(self.bank, self.folder) as (child, address):
            self._children["hive"] = child
            yield address
        del self._children["hive"]

    async def measure_side(self, side: Side, options: Options) -> Run:
        """Generate the load of one side and return the measurements.

        Raises:
            BenchError: a request failed.
        """
        async with start_generator(side.generator) as generator:
            generator.send(side.load)
            await generator.receive(_TIMEOUT_SECONDS)
            start = time.monotonic() + options.warm_up_seconds
            window = LoadWindow(start=start, end=start + options.seconds)
            generator.send(window)
            await sleep_until(window.start)
            read_cpu = self.measure_cpu(load=generator.pid)
            await sleep_until(window.end)
            cpu = read_cpu()
            result = LoadResult(**orjson.loads(await generator.receive(_TIMEOUT_SECONDS)))
        if result.error:
            raise BenchError(f"{side.name}: a request failed: {result.error}")
        run = Run(
            name=side.name,
            rate=result.transfers / options.seconds,
            acknowledged=result.acknowledged,
            counted=side.counted,
            details={"latency_ms": percentiles(result.latencies_ms), "cpu_seconds": cpu},
        )
        run.print_summary()
        return run

    def rest_transfers(self, name: str, address: str) -> Side:
        """Return a side that makes transfers over REST. The gateway and the bare route have the same contract."""

        def request(number: int) -> str:
            headers = {**self.caller_headers(number), "Idempotency-Key": UNIQUE_KEY}
            body = {"recipientId": account_id(number), "amount": "1.00", "currency": "RUB"}
            return http1_client.post(f"/accounts/{account_id(number + 1)}/transfers", headers, body)

        return Side(name=name, load=_transfer_load(address, request, status=201, marker='"createdAt"'))

    def graphql_transfers(self) -> Side:
        """Return a side that makes transfers over GraphQL: one mutation, with different variables in each request."""

        def request(number: int) -> str:
            arguments = {
                "senderId": account_id(number + 1),
                "recipientId": account_id(number),
                "amount": "1.00",
                "idempotencyKey": UNIQUE_KEY,
            }
            return self._graphql_request(TRANSFER, {"input": arguments}, number)

        return Side(name="gateway", load=_transfer_load(self.gateway, request, status=200, marker='"balance"'))

    def hive_transfers(self, address: str) -> Side:
        """Return a side that makes the transfers of `graphql_transfers`, with a mutation of Hive Gateway's schema."""

        def request(number: int) -> str:
            arguments = {
                "sender_id": account_id(number + 1),
                "recipient_id": account_id(number),
                "amount": {"currency_code": "RUB", "units": "1"},
                "idempotency_key": UNIQUE_KEY,
            }
            return self._graphql_request(hive.TRANSFER, {"input": arguments}, number)

        load = _transfer_load(address, request, status=200, marker='"sender_balance":{')
        return Side(name="Hive Gateway", load=load)

    def grpc_transfers(self) -> Side:
        """Return a side that calls the bank directly, with the calls that the gateway makes."""
        targets, tokens = [self.bank], self.tokens.customers
        load = BankLoad(targets=targets, tokens=tokens, accounts=ACCOUNTS, in_flight=_IN_FLIGHT)
        return Side(name="gRPC alone", load=load, generator="benchmarks.bank_load")

    def rest_pages(self) -> Side:
        """Return a side that requests a page of operations over REST again and again, one request at a time."""
        path = f"/accounts/{service_stubs.ACCOUNT}/operations?limit={service_stubs.PAGE_SIZE}"
        load = _page_load(self.gateway, http1_client.get(path, self.caller_headers()), marker='"hasOlder":true')
        return Side(name="REST", load=load, counted="pages")

    def graphql_pages(self) -> Side:
        """Return a side that requests the page of `rest_pages`, with the same fields, over GraphQL."""
        variables = {"id": service_stubs.ACCOUNT, "first": service_stubs.PAGE_SIZE}
        load = _page_load(self.gateway, self._graphql_request(OPERATIONS, variables), marker='"hasNextPage":true')
        return Side(name="GraphQL", load=load, counted="pages")

    def graphql_operations(self, name: str, query: str, variables: Mapping[str, Any]) -> Side:
        """Return a side that executes an operation again and again, one request at a time."""
        load = _page_load(self.gateway, self._graphql_request(query, variables), marker='"data":')
        return Side(name=name, load=load, counted="operations")

    def caller_headers(self, caller: int = 0) -> dict[str, str]:
        """Return the headers of a customer."""
        return {"Authorization": f"Bearer {self.tokens.customers[caller % OWNERS]}"}

    def _graphql_request(self, query: str, variables: Mapping[str, Any], caller: int = 0) -> str:
        accept = {"Accept": "application/graphql-response+json, application/json;q=0.9"}
        return http1_client.post(
            "/graphql", self.caller_headers(caller) | accept, {"query": query, "variables": variables}
        )


def _transfer_load(target: str, request: Callable[[int], str], *, status: int, marker: str) -> HttpLoad:
    requests = [request(number) for number in range(_REQUESTS)]
    return HttpLoad(target=target, requests=requests, connections=_IN_FLIGHT, status=status, marker=marker)


def _page_load(target: str, request: str, *, marker: str) -> HttpLoad:
    return HttpLoad(target=target, requests=[request], connections=1, status=200, marker=marker)


def _addresses(count: int) -> list[str]:
    return [f"{HOST}:{port}" for port in free_ports(count)]
