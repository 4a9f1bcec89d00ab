"""What the gateway costs: transfers a second through it, to those through a bare route that makes the same call.

Both are one process each, in front of a bank that answers at once. The gateway runs as anywhere: it verifies tokens,
holds limits, writes a line of log a request. The two sides take turns in one run.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import orjson

from loadtests.bench import child
from loadtests.bench.accounts import account_id
from loadtests.bench.figure import BenchError, Figure, Options, percentiles, say
from loadtests.bench.load import Calls, Window
from loadtests.bench.run import Run, cpu_meter, fastest
from loadtests.bench.scene import Callers
from loadtests.bench.web import Load, post
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Probe, Process, module

_GRAPHQL: Final = "graphql.mutation_vs_bare_route"
_REST: Final = "rest.transfer_vs_bare_route"
_BARS: Final[Mapping[str, float]] = {_GRAPHQL: 0.55, _REST: 0.7}
FIGURES: Final[Collection[str]] = tuple(_BARS)

_ROUNDS: Final = 3
_CONNECTIONS: Final = 32
_REQUESTS: Final = 1_000  # different ones, again and again: this bank remembers none
_PATIENCE_SECONDS: Final = 30.0
_QUERY: Final = """mutation Transfer($input: TransferMoneyInput!) {
  transferMoney(input: $input) {
    ... on TransferMoneySuccess { transfer { id } balance { amount } }
    ... on Error { code message }
  }
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The stub of a bank, and both sides in front of it."""

    bank: Child
    gateway: Child
    bare: Child
    gateway_at: str
    bare_at: str
    token: str

    @classmethod
    @asynccontextmanager
    async def set(cls) -> AsyncIterator[Self]:
        """Each in a process of its own, gone afterwards."""
        async with AsyncExitStack() as stack:
            callers = Callers(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-"))))
            bank_at, gateway_at, bare_at, nobody = (f"{HOST}:{port}" for port in free_ports(4))
            environment = {
                **callers.settings,
                "GATEWAY_LISTEN": gateway_at,
                "BANK_GRPC_TARGET": bank_at,
                "ANALYTICS_GRPC_TARGET": nobody,
            }

            async def start(name: str, ready: Probe, *arguments: str, **environment: str) -> Child:
                process = Process(name=name, command=module(name, *arguments, **environment), ready=ready)
                return await stack.enter_async_context(Child(process))

            yield cls(
                bank=await start("loadtests.bench.stub_bank", _accepts(bank_at), bank_at),
                gateway=await start("gateway", _accepts(gateway_at), **environment),
                bare=await start("loadtests.bench.bare", _accepts(bare_at), bare_at, bank_at),
                gateway_at=gateway_at,
                bare_at=bare_at,
                token=callers.customers[0],
            )

    async def drive(self, load: Load, name: str, options: Options) -> Run:
        """The load, measured.

        Raises:
            BenchError: a request failed.
        """
        async with child.running("loadtests.bench.web") as generator:
            generator.tell(load)
            await generator.hear(_PATIENCE_SECONDS)
            since = time.monotonic() + options.warm_up
            window = Window(since=since, until=since + options.seconds)
            generator.tell(window)
            await asyncio.sleep(options.warm_up)
            parts = {"bank": self.bank, "gateway": self.gateway, "bare": self.bare}
            used = cpu_meter({kind: [part.pid or 0] for kind, part in parts.items()} | {"load": [generator.pid]})
            await asyncio.sleep(options.seconds)
            cpu = used()
            calls = Calls(**orjson.loads(await generator.hear(_PATIENCE_SECONDS)))
        if calls.error:
            raise BenchError(f"{name}: a request failed: {calls.error}")
        return Run(
            name=name,
            rate=calls.transfers / options.seconds,
            acknowledged=calls.acknowledged,
            details={"latency_ms": percentiles(calls.latencies_ms), "cpu_seconds": cpu},
        ).told()

    def rest(self, target: str) -> Load:
        """Transfers by the REST contract, which both sides have."""

        def request(number: int) -> str:
            headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": f"key-{number}"}
            body = {"recipientId": account_id(number), "amount": "1.00", "currency": "RUB"}
            return post(f"/accounts/{account_id(number + 1)}/transfers", headers, body)

        return _load(target, request, status=201, sign='"createdAt"')

    def graphql(self) -> Load:
        """Transfers by the graph: one text, other variables each time."""

        def request(number: int) -> str:
            headers = {
                "Authorization": f"Bearer {self.token}",
                "Accept": "application/graphql-response+json, application/json;q=0.9",
            }
            given = {
                "senderId": account_id(number + 1),
                "recipientId": account_id(number),
                "amount": "1.00",
                "idempotencyKey": f"key-{number}",
            }
            return post("/graphql", headers, {"query": _QUERY, "variables": {"input": given}})

        return _load(self.gateway_at, request, status=200, sign='"balance"')


async def against_bare_route(scene: Scene, figure: str, options: Options) -> Figure:
    """The gateway's best run by the bare route's best."""
    kind, load = ("graphql", scene.graphql()) if figure == _GRAPHQL else ("rest", scene.rest(scene.gateway_at))
    bare: list[Run] = []
    gateway: list[Run] = []
    for _ in range(_ROUNDS):
        bare.append(await scene.drive(scene.rest(scene.bare_at), "bare route", options))
        gateway.append(await scene.drive(load, f"gateway, {kind}", options))
    return Figure(
        figure=figure,
        value=fastest(gateway).rate / fastest(bare).rate,
        unit="ratio",
        bar=_BARS[figure],
        details={
            "gateway": fastest(gateway).as_details(),
            "bare": fastest(bare).as_details(),
            "rounds": {"bare": [run.rate for run in bare], "gateway": [run.rate for run in gateway]},
            "connections": _CONNECTIONS,
        },
    )


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    async with Scene.set() as scene:
        for figure in FIGURES:
            if figure in wanted:
                say(f"{figure}: the gateway's best of {_ROUNDS} runs by the bare route's best")
                yield await against_bare_route(scene, figure, options)


def _load(target: str, request: Callable[[int], str], *, status: int, sign: str) -> Load:
    requests = [request(number) for number in range(_REQUESTS)]
    return Load(target=target, requests=requests, connections=_CONNECTIONS, status=status, sign=sign)


def _accepts(address: str) -> Probe:
    host, _, port = address.rpartition(":")
    return probes.tcp(host, int(port))
