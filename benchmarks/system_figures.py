"""The whole system by its front door: tokens verified, rates counted, a line of log each. What that leaves of the
bank's own rate, how long people wait at half of what it can do, and whether it grows.
"""

import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final, Self

import asyncpg
import orjson

from benchmarks import bank_load, http1_client, load_generator
from benchmarks.accounts import ACCOUNTS, OWNERS, account_id, owner_id
from benchmarks.bank_load import Calls, Window
from benchmarks.figure import BenchError, Figure, Options
from benchmarks.gateway_environment import UNLIMITED
from benchmarks.run import Run, cpu_meter, fastest
from benchmarks.subscribers import Crowd, Goal, Seen
from kit.auth.principal import Role
from loadtests import account_selection, sampling
from loadtests.console import print_progress
from loadtests.plan import Plan
from loadtests.run import Outcome, create_report_folder, run_load
from loadtests.statistics import percentiles
from loadtests.target import Target, temporary_system
from stack.ports import HOST
from stack.system import System
from wallet import cursor

_TRANSFERS: Final = "system.transfers_vs_bank_grpc"
_ZIPF: Final = "system.zipf_vs_uniform"
_HOT: Final = "system.hot_vs_uniform"
_P99: Final = "system.p99_at_half_ms"
_SUBSCRIBER: Final = "system.commit_to_subscriber_p99_ms"
_MEMORY: Final = "system.memory_after_soak"
FIGURES: Final[Collection[str]] = (_TRANSFERS, _ZIPF, _HOT, _P99, _SUBSCRIBER, _MEMORY)

_ROUNDS: Final = 3
_IN_FLIGHT: Final = 32
_CONNECTIONS: Final = 256  # in an open loop: those that wait are free
_WATCHED: Final = 500  # accounts, each by one WebSocket
_WARM: Final = 0.4  # of a soak, before it, at the limit
_SETTLE: Final = 0.2  # of a soak, before it, with the load that it has
_REQUESTS: Final = 30_000  # each with a key of its own
_TOKEN_SECONDS: Final = 6 * 3_600.0
_PATIENCE_SECONDS: Final = 60.0
_TIGERFANS: Final = 390.0
"""The rate a second that TigerFans is known for: a curiosity, of another program on another machine."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The system as `make up` runs it, with the accounts of the benchmark."""

    system: System
    target: Target
    tokens: list[str]
    options: Options

    @classmethod
    @asynccontextmanager
    async def set(cls, options: Options) -> AsyncIterator[Self]:
        """A system of its own on free ports; it is gone afterwards."""
        async with temporary_system(**UNLIMITED) as (system, target):
            signer = target.signer
            assert signer is not None  # noqa: S101  an embedded stack has its keys
            tokens = [signer.sign(owner_id(n), _TOKEN_SECONDS, [Role.CUSTOMER]) for n in range(OWNERS)]
            await _open_accounts(target.ledger)
            yield cls(system, target, tokens, options)

    async def by_rest(self, choice: str, rate: float = 0.0) -> Run:
        """Transfers by the front door: so many a second in an open loop, or as many as it takes."""
        pairs = account_selection.BY_NAME[choice](random.Random(), ACCOUNTS)  # noqa: S311  chance, no secret
        stem = time.monotonic_ns()
        requests = [
            http1_client.post(
                f"/accounts/{account_id(sender)}/transfers",
                {"Authorization": f"Bearer {self.tokens[sender % OWNERS]}", "Idempotency-Key": f"{stem}-{number}"},
                {"recipientId": account_id(recipient), "amount": "0.01", "currency": "RUB"},
            )
            for number, (sender, recipient) in enumerate(islice(pairs, _REQUESTS))
        ]
        target = f"{HOST}:{self.system.ports.gateway}"
        connections = _IN_FLIGHT if not rate else _CONNECTIONS
        asked = http1_client.Load(
            target=target, requests=requests, connections=connections, status=201, sign='"createdAt"', rate=rate
        )
        return await self._driven(f"REST, {choice}", "benchmarks.http1_client", asked)

    async def by_grpc(self) -> Run:
        """The same by the bank's own gRPC, past the gateway."""
        asked = bank_load.Load(
            targets=[self.target.bank], tokens=self.tokens, accounts=ACCOUNTS, in_flight=_IN_FLIGHT, skew=0.0
        )
        return await self._driven("the bank alone", "benchmarks.bank_load", asked)

    @asynccontextmanager
    async def watched(self, seconds: float) -> AsyncIterator[Callable[[], Awaitable[Seen]]]:
        """Some of the accounts, each watched by WebSocket for so long; then, what was seen.

        Raises:
            BenchError: a subscription failed, or showed something twice.
        """
        signer = self.target.signer
        assert signer is not None  # noqa: S101  an embedded stack has its keys
        versions = await _versions(self.target.ledger, _WATCHED)
        crowd = Crowd(
            url=f"ws://{HOST}:{self.system.ports.gateway}/graphql",
            token=signer.sign("watcher", _TOKEN_SECONDS, [Role.OPERATOR]),
            accounts=list(versions),
            after=[cursor.encode_version(version) for version in versions.values()],
        )
        async with load_generator.running("benchmarks.subscribers") as subscribers:
            subscribers.tell(crowd)
            await subscribers.hear(_PATIENCE_SECONDS)
            subscribers.tell(Goal(operations=sys.maxsize, seconds=seconds))

            async def seen() -> Seen:
                seen = Seen(**orjson.loads(await subscribers.hear(_PATIENCE_SECONDS + seconds)))
                if seen.error or seen.repeats or not seen.latencies_ms:
                    raise BenchError(f"{len(seen.latencies_ms)} messages, {seen.repeats} repeats; {seen.error}")
                return seen

            yield seen

    async def loaded(self, rate: float, seconds: float, *scenarios: str, users: int) -> tuple[Outcome, Path]:
        """An open loop by Locust, judged; and the folder with all that is known of it.

        Raises:
            BenchError: the checker found something.
        """
        plan = Plan(
            host=self.target.host,
            bank=self.target.bank,
            scenarios=scenarios,
            users=users,
            rate=rate,
            seconds=seconds,
        )
        folder = create_report_folder("bench")
        outcome = await run_load(self.target, plan, 100, folder)
        print_progress(f"   {outcome}")
        if outcome.verdict != "SOUND":
            raise BenchError(f"the checker found {len(outcome.violations)} violations: see {folder}")
        return outcome, folder

    async def _driven(self, name: str, generator: str, asked: http1_client.Load | bank_load.Load) -> Run:
        options = self.options
        async with AsyncExitStack() as stack:
            callers = await stack.enter_async_context(load_generator.running(generator))
            callers.tell(asked)
            await callers.hear(_PATIENCE_SECONDS)
            since = time.monotonic() + options.warm_up
            callers.tell(Window(since=since, until=since + options.seconds))
            parts = ("gateway", "bank", "postgres", "analytics", "kafka", "clickhouse")
            used = cpu_meter({part: [self.system.pid(part)] for part in parts} | {"load": [callers.pid]})
            calls = Calls(**orjson.loads(await callers.hear(_PATIENCE_SECONDS + options.seconds)))
            cpu = used()
        if calls.error:
            raise BenchError(f"{name}: a request failed: {calls.error}")
        details = {"latency_ms": percentiles(calls.latencies_ms), "cpu_seconds": cpu}
        return Run(
            name=name, rate=calls.transfers / options.seconds, acknowledged=calls.acknowledged, details=details
        ).told()


async def transfers(scene: Scene) -> Figure:
    """Transfers a second by REST, to those by the same bank's gRPC with nobody in between."""
    rest, grpc = [], []
    for _ in range(_ROUNDS):
        grpc.append(await scene.by_grpc())
        rest.append(await scene.by_rest("uniform"))
    best = fastest(rest)
    return Figure(
        figure=_TRANSFERS,
        value=best.rate / fastest(grpc).rate,
        unit="ratio",
        details={
            "REST": best.as_details(),
            "bank": fastest(grpc).as_details(),
            "rounds": {"REST": [each.rate for each in rest], "bank": [each.rate for each in grpc]},
            "times_tigerfans": best.rate / _TIGERFANS,
        },
    )


async def skewed(scene: Scene, figure: str, choice: str) -> Figure:
    """Transfers a second by REST between few accounts, or all with one, to those between all alike."""
    few, all_alike = [], []
    for _ in range(_ROUNDS):
        all_alike.append(await scene.by_rest("uniform"))
        few.append(await scene.by_rest(choice))
    return Figure(
        figure=figure,
        value=fastest(few).rate / fastest(all_alike).rate,
        unit="ratio",
        bar=0.8,
        details={
            choice: fastest(few).as_details(),
            "uniform": fastest(all_alike).as_details(),
            "rounds": {choice: [each.rate for each in few], "uniform": [each.rate for each in all_alike]},
        },
    )


async def at_half(scene: Scene) -> AsyncIterator[Figure]:
    """How long people wait, and how long after its commit an operation is with who watches, at half of what the front
    door can do, in an open loop.
    """
    limit = (await scene.by_rest("uniform")).rate
    twice = replace(scene, options=replace(scene.options, seconds=2 * scene.options.seconds))
    async with scene.watched(twice.options.warm_up + twice.options.seconds) as watchers:
        run = await twice.by_rest("uniform", rate=limit / 2)
        seen = await watchers()
    latency, told = run.details["latency_ms"], percentiles(seen.latencies_ms)
    details = {"requests_per_second": run.rate, "limit": limit, "cpu_seconds": run.details["cpu_seconds"]}
    yield Figure(figure=_P99, value=latency["p99"], unit="ms", better="lower", details={"ms": latency, **details})
    yield Figure(
        figure=_SUBSCRIBER,
        value=told["p99"],
        unit="ms",
        better="lower",
        details={"ms": told, "messages": len(seen.latencies_ms), "subscribers": _WATCHED, **details},
    )


async def soak(scene: Scene) -> Figure:
    """What a part has of memory for itself at the end of a soak, to what it had when it was warm: the worst of them.

    Warm is not what has just answered its first requests: PostgreSQL's and ClickHouse's caches, and what the embedded
    Kafka keeps, grow to a bound, and so do the threads that ClickHouse reads with. So the system runs at its limit
    first, and then under the soak's own load, until they have reached it. PostgreSQL has a process for each connection,
    and services have as many of those as they need at the moment: growth is of those that were there all the time, and
    `bytes_before` and `bytes_after` are of all.
    """
    minutes, options = scene.options.soak_minutes, scene.options
    runs = ceil(60 * minutes * _WARM / (options.warm_up + options.seconds))
    limit = fastest([await scene.by_rest("uniform") for _ in range(runs)]).rate
    seconds, settled = 60 * minutes * (1 + _SETTLE), 60 * minutes * _SETTLE
    outcome, folder = await scene.loaded(limit / 4, seconds, "rest", "graphql", "reads", users=50)
    samples = [each for each in sampling.read_samples(folder) if outcome.began + settled <= each.at <= outcome.ended]
    first, last = samples[: len(samples) // 10], samples[-len(samples) // 10 :]
    before, after = _typical(first), _typical(last)
    stayed = before.keys() & after.keys()
    growth = {
        part: sum(after[each] for each in stayed if sampling.component_name(each) == part) / used
        for part in {sampling.component_name(each) for each in stayed}
        if (used := sum(before[each] for each in stayed if sampling.component_name(each) == part))
    }
    return Figure(
        figure=_MEMORY,
        value=max(growth.values()),
        unit="ratio",
        bar=1.1,
        better="lower",
        details={
            "minutes": minutes,
            "requests_per_second": limit / 4,
            "growth": growth,
            "bytes_before": _parts(first),
            "bytes_after": _parts(last),
        },
    )


def _typical(samples: list[sampling.Sample]) -> Mapping[str, float]:
    """Bytes of each process that was there all the time."""
    names = set.intersection(*(set(sample.processes) for sample in samples))
    return {name: median(sample.processes[name] for sample in samples) for name in names}


def _parts(samples: list[sampling.Sample]) -> Mapping[str, float]:
    """Bytes of each part, with all the processes that it had then."""
    return {name: median(sample.memory[name] for sample in samples) for name in samples[0].memory}


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    async with Scene.set(options) as scene:
        if _TRANSFERS in wanted:
            print_progress(f"{_TRANSFERS}: the best of {_ROUNDS} runs of each side")
            yield await transfers(scene)
        for figure, choice in ((_ZIPF, "zipf"), (_HOT, "hot")):
            if figure in wanted:
                print_progress(f"{figure}: the best of {_ROUNDS} runs of each side")
                yield await skewed(scene, figure, choice)
        if {_P99, _SUBSCRIBER} & set(wanted):
            print_progress(f"{_P99}, {_SUBSCRIBER}: half of what the front door can do, in an open loop")
            async for each in at_half(scene):
                if each.figure in wanted:
                    yield each
        if _MEMORY in wanted:
            print_progress(f"{_MEMORY}: {options.soak_minutes:g} minutes at a quarter of what the front door can do")
            yield await soak(scene)


async def _versions(dsn: str, accounts: int) -> dict[str, int]:
    """Of the first accounts, by id."""
    connection = await asyncpg.connect(dsn)
    try:
        ids = [account_id(number) for number in range(accounts)]
        rows = await connection.fetch("SELECT id::text, version FROM accounts WHERE id = ANY($1::text[]::uuid[])", ids)
        return {row["id"]: row["version"] for row in rows}
    finally:
        await connection.close()


async def _open_accounts(dsn: str) -> None:
    """The accounts of `accounts.account_id`, rich, each of its owner."""
    rows = [(account_id(number), owner_id(number)) for number in range(ACCOUNTS)]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany(
            "INSERT INTO accounts (id, owner_id, balance) VALUES ($1::text::uuid, $2, 1000000)", rows
        )
    finally:
        await connection.close()
