"""Figures of the complete system over its REST API, with token checks, rate limit counters and request logs.

They compare the system's rate with that of the bank alone, and its rate for skewed accounts with that for uniform
ones. They also measure latencies at half of the system's maximum rate, and the growth of its memory under load.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from math import ceil
from statistics import median
from typing import Final

from benchmarks.bank_environment import BankEnvironment
from benchmarks.figure import Figure, Options
from benchmarks.pgbench import run_pgbench
from benchmarks.run import Run, fastest
from benchmarks.system_environment import ManyOwnersEnvironment
from loadtests import sampling
from loadtests.console import print_progress
from loadtests.statistics import percentiles

_TRANSFERS_VS_BANK: Final = "system.transfers_vs_bank_grpc"
_CPU_VS_PGBENCH: Final = "system.cpu_per_transfer_vs_pgbench"
_MANY_CALLERS: Final = "system.transfers_10k_callers"
_BY_IN_FLIGHT: Final = "system.transfers_by_in_flight"
_ZIPF: Final = "system.zipf_vs_uniform"
_HOT: Final = "system.hot_vs_uniform"
_P99_AT_HALF: Final = "system.p99_at_half_ms"
_SUBSCRIBER_P99: Final = "system.commit_to_subscriber_p99_ms"
_MEMORY: Final = "system.memory_after_soak"
FIGURES: Final[Collection[str]] = (
    _TRANSFERS_VS_BANK,
    _CPU_VS_PGBENCH,
    _MANY_CALLERS,
    _BY_IN_FLIGHT,
    _ZIPF,
    _HOT,
    _P99_AT_HALF,
    _SUBSCRIBER_P99,
    _MEMORY,
)

_ROUNDS: Final = 3
_IN_FLIGHT: Final = (1, 8, 32, 128)
_PGBENCH_CLIENTS: Final = 32
_SUBSCRIBERS: Final = 500
_MAXIMUM_LOAD_SHARE: Final = 0.4  # duration of the load at the maximum rate before the soak, divided by the soak's
_SETTLE_SHARE: Final = 0.2  # duration of the soak's load before the measurement starts, divided by the soak's
_TIGERFANS_PER_SECOND: Final = 390.0
"""Published rate of TigerFans, a program of others, on another machine. It is shown for comparison and is no target."""


async def transfers_vs_bank_grpc(environment: ManyOwnersEnvironment) -> Figure:
    """Divide the rate of transfers over REST by the rate over the gRPC API of the same bank."""
    rest, grpc = [], []
    for _ in range(_ROUNDS):
        grpc.append(await environment.measure_grpc())
        rest.append(await environment.measure_rest("uniform"))
    best = fastest(rest)
    return Figure(
        figure=_TRANSFERS_VS_BANK,
        value=best.rate / fastest(grpc).rate,
        unit="ratio",
        details={
            "REST": best.as_details(),
            "bank": fastest(grpc).as_details(),
            "rounds": {"REST": [run.rate for run in rest], "bank": [run.rate for run in grpc]},
            "times_tigerfans": best.rate / _TIGERFANS_PER_SECOND,
        },
    )


async def cpu_per_transfer_vs_pgbench(environment: ManyOwnersEnvironment, reference: BankEnvironment) -> Figure:
    """Divide the processor time of a transfer over REST by that of a transaction of pgbench, which writes the same
    rows.

    The time of a transfer is that of all processes of the system, from the gateway to ClickHouse. The time of a
    transaction is that of pgbench and of PostgreSQL. Both sides have 32 transfers in flight.
    """
    rest: list[Run] = []
    pgbench: list[Run] = []
    async with reference.ledgers.create() as ledger:
        for _ in range(_ROUNDS):
            pgbench.append(await run_pgbench(reference.postgres, ledger, _PGBENCH_CLIENTS, environment.options))
            rest.append(await environment.measure_rest("uniform"))
    rest_us, pgbench_us = ([sum(_cpu_us(run).values()) for run in runs] for runs in (rest, pgbench))
    return Figure(
        figure=_CPU_VS_PGBENCH,
        value=median(rest_us) / median(pgbench_us),
        unit="ratio",
        bar=2.5,
        better="lower",
        details={
            "microseconds": {"REST": median(rest_us), "pgbench": median(pgbench_us)},
            "microseconds_by_process": {"REST": _cpu_us(fastest(rest)), "pgbench": _cpu_us(fastest(pgbench))},
            "rounds": {"REST": rest_us, "pgbench": pgbench_us},
            "REST": fastest(rest).as_details(),
            "pgbench": fastest(pgbench).as_details(),
        },
    )


def _cpu_us(run: Run) -> dict[str, float]:
    """Return the processor time of a transfer in microseconds, by process, without load generator and other programs.

    The time covers the whole run, with its warm-up, and so do the acknowledged transfers.
    """
    seconds = run.details["cpu_seconds"]
    return {name: 1e6 * seconds[name] / run.acknowledged for name in seconds if name not in {"load", "others"}}


async def many_callers_vs_100(environment: ManyOwnersEnvironment) -> Figure:
    """Divide the rate of REST transfers of 10,000 callers, more than any cache of tokens holds, by that of 100."""
    many: list[Run] = []
    few: list[Run] = []
    for number in range(2 * _ROUNDS):
        # The sides alternate in pairs (few, many, many, few, …), so that each often pays for the merges of ClickHouse
        # that the other one has caused.
        is_many = number % 4 in {1, 2}
        (many if is_many else few).append(await environment.measure_rest("uniform", one_owner_each=is_many))
    return Figure(
        figure=_MANY_CALLERS,
        value=median(run.rate for run in many) / median(run.rate for run in few),
        unit="ratio",
        bar=0.8,
        details={
            "10,000 callers": fastest(many).as_details(),
            "100 callers": fastest(few).as_details(),
            "rounds": {"10,000 callers": [run.rate for run in many], "100 callers": [run.rate for run in few]},
        },
    )


async def transfers_by_in_flight(environment: ManyOwnersEnvironment) -> Figure:
    """Measure the rate of REST transfers, their latency and processor time, by the number of requests in flight."""
    runs = {
        number: [await environment.measure_rest("uniform", connections=number) for _ in range(_ROUNDS)]
        for number in _IN_FLIGHT
    }
    rates = {number: median(run.rate for run in each) for number, each in runs.items()}
    return Figure(
        figure=_BY_IN_FLIGHT,
        value=rates[_IN_FLIGHT[-1]],
        unit="transfers/s",
        details={
            "transfers_per_second": {str(number): rate for number, rate in rates.items()},
            "microseconds": {
                str(number): median(sum(_cpu_us(run).values()) for run in each) for number, each in runs.items()
            },
            "runs": {str(number): fastest(each).as_details() for number, each in runs.items()},
        },
    )


async def skewed_vs_uniform(environment: ManyOwnersEnvironment, figure: str, selection: str) -> Figure:
    """Divide the rate of REST transfers between accounts of a skewed selection by the rate between uniform accounts."""
    skewed, uniform = [], []
    for _ in range(_ROUNDS):
        uniform.append(await environment.measure_rest("uniform"))
        skewed.append(await environment.measure_rest(selection))
    return Figure(
        figure=figure,
        value=fastest(skewed).rate / fastest(uniform).rate,
        unit="ratio",
        bar=0.8,
        details={
            selection: fastest(skewed).as_details(),
            "uniform": fastest(uniform).as_details(),
            "rounds": {selection: [run.rate for run in skewed], "uniform": [run.rate for run in uniform]},
        },
    )


async def latency_at_half(environment: ManyOwnersEnvironment) -> AsyncIterator[Figure]:
    """Measure the latency of requests, and the time from a commit to its subscriber, at half of the maximum rate.

    The load is an open loop: requests start at a constant rate, independent of the responses.
    """
    limit = (await environment.measure_rest("uniform")).rate
    options = environment.options
    seconds = 2 * options.seconds
    async with environment.subscribe(_SUBSCRIBERS, 2 * options.warm_up_seconds + seconds) as receive_result:
        run = await environment.measure_rest("uniform", rate=limit / 2, seconds=seconds)
        result = await receive_result()
    requests_ms, messages_ms = run.details["latency_ms"], percentiles(result.latencies_ms)
    details = {"requests_per_second": run.rate, "limit": limit, "cpu_seconds": run.details["cpu_seconds"]}
    yield Figure(
        figure=_P99_AT_HALF, value=requests_ms["p99"], unit="ms", better="lower", details={"ms": requests_ms, **details}
    )
    yield Figure(
        figure=_SUBSCRIBER_P99,
        value=messages_ms["p99"],
        unit="ms",
        better="lower",
        details={
            "ms": messages_ms,
            "messages": len(result.latencies_ms),
            "subscribers": _SUBSCRIBERS,
            **details,
        },
    )


async def memory_after_soak(environment: ManyOwnersEnvironment) -> Figure:
    """Divide each service's memory at the end of a soak by that at its start, and report the largest ratio.

    A soak is a long run under constant load. Memory means private memory, which processes do not share.

    Memory is stable only after the caches of PostgreSQL and ClickHouse, the log of the embedded Kafka and ClickHouse's
    reader threads have reached their limits. So the system runs at its maximum rate first, and then under the load of
    the soak, before the measurement starts.

    PostgreSQL has one process per connection, and the number of connections varies. So the growth covers only the
    processes that exist from start to end; `bytes_before` and `bytes_after` in the details cover all.
    """
    minutes, options = environment.options.soak_minutes, environment.options
    run_seconds = options.warm_up_seconds + options.seconds
    runs = ceil(60 * minutes * _MAXIMUM_LOAD_SHARE / run_seconds)
    limit = fastest([await environment.measure_rest("uniform") for _ in range(runs)]).rate
    settle_seconds = 60 * minutes * _SETTLE_SHARE
    outcome, folder = await environment.run_load_test(
        limit / 4, 60 * minutes + settle_seconds, "rest", "graphql", "reads", users=50
    )
    start = outcome.began + settle_seconds
    samples = [sample for sample in sampling.read_samples(folder) if start <= sample.at <= outcome.ended]
    first, last = samples[: len(samples) // 10], samples[-len(samples) // 10 :]
    before, after = _memory_by_process(first), _memory_by_process(last)
    stable = before.keys() & after.keys()
    growth = {
        service: sum(after[process] for process in stable if sampling.component_name(process) == service) / used
        for service in {sampling.component_name(process) for process in stable}
        if (used := sum(before[process] for process in stable if sampling.component_name(process) == service))
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
            "bytes_before": _memory_by_service(first),
            "bytes_after": _memory_by_service(last),
        },
    )


def _memory_by_process(samples: list[sampling.Sample]) -> Mapping[str, float]:
    """Return the median bytes of each process that is in all samples."""
    names = set.intersection(*(set(sample.processes) for sample in samples))
    return {name: median(sample.processes[name] for sample in samples) for name in names}


def _memory_by_service(samples: list[sampling.Sample]) -> Mapping[str, float]:
    """Return the median bytes of each service, with all of its processes."""
    return {name: median(sample.memory[name] for sample in samples) for name in samples[0].memory}


_FIGURES_OF_RUNS: Final[Mapping[str, Callable[[ManyOwnersEnvironment], Awaitable[Figure]]]] = {
    _TRANSFERS_VS_BANK: transfers_vs_bank_grpc,
    _MANY_CALLERS: many_callers_vs_100,
    _BY_IN_FLIGHT: transfers_by_in_flight,
    _ZIPF: partial(skewed_vs_uniform, figure=_ZIPF, selection="zipf"),
    _HOT: partial(skewed_vs_uniform, figure=_HOT, selection="hot"),
}
"""Figures that need only runs of the complete system."""


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    async with ManyOwnersEnvironment(options) as environment:
        for name, measure_figure in _FIGURES_OF_RUNS.items():
            if name in names:
                print_progress(f"{name}: {_ROUNDS} runs of each side")
                yield await measure_figure(environment)
        if _CPU_VS_PGBENCH in names:
            print_progress(f"{_CPU_VS_PGBENCH}: {_ROUNDS} runs of each side")
            async with BankEnvironment(options) as reference:
                yield await cpu_per_transfer_vs_pgbench(environment, reference)
        if {_P99_AT_HALF, _SUBSCRIBER_P99} & set(names):
            print_progress(f"{_P99_AT_HALF}, {_SUBSCRIBER_P99}: open loop at half of the maximum rate")
            async for figure in latency_at_half(environment):
                if figure.figure in names:
                    yield figure
        if _MEMORY in names:
            print_progress(f"{_MEMORY}: {options.soak_minutes:g} minutes at a quarter of the maximum rate")
            yield await memory_after_soak(environment)
