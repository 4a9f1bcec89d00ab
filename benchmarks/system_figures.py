"""Figures of the complete system over its REST API, with token checks, rate limit counters and request logs.

They compare the system's rate with that of the bank alone, and its rate for skewed accounts with that for uniform
ones. They also measure latencies at half of the system's maximum rate, and the growth of its memory under load.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from math import ceil
from statistics import median
from typing import Final

from benchmarks.figure import Figure, Options
from benchmarks.run import fastest
from benchmarks.system_environment import ManyOwnersEnvironment
from loadtests import sampling
from loadtests.console import print_progress
from loadtests.statistics import percentiles

_TRANSFERS_VS_BANK: Final = "system.transfers_vs_bank_grpc"
_ZIPF: Final = "system.zipf_vs_uniform"
_HOT: Final = "system.hot_vs_uniform"
_P99_AT_HALF: Final = "system.p99_at_half_ms"
_SUBSCRIBER_P99: Final = "system.commit_to_subscriber_p99_ms"
_MEMORY: Final = "system.memory_after_soak"
FIGURES: Final[Collection[str]] = (_TRANSFERS_VS_BANK, _ZIPF, _HOT, _P99_AT_HALF, _SUBSCRIBER_P99, _MEMORY)

_ROUNDS: Final = 3
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


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    async with ManyOwnersEnvironment(options) as environment:
        if _TRANSFERS_VS_BANK in names:
            print_progress(f"{_TRANSFERS_VS_BANK}: best of {_ROUNDS} runs of each side")
            yield await transfers_vs_bank_grpc(environment)
        for name, selection in ((_ZIPF, "zipf"), (_HOT, "hot")):
            if name in names:
                print_progress(f"{name}: best of {_ROUNDS} runs of each side")
                yield await skewed_vs_uniform(environment, name, selection)
        if {_P99_AT_HALF, _SUBSCRIBER_P99} & set(names):
            print_progress(f"{_P99_AT_HALF}, {_SUBSCRIBER_P99}: open loop at half of the maximum rate")
            async for figure in latency_at_half(environment):
                if figure.figure in names:
                    yield figure
        if _MEMORY in names:
            print_progress(f"{_MEMORY}: {options.soak_minutes:g} minutes at a quarter of the maximum rate")
            yield await memory_after_soak(environment)
