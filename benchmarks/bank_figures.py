"""Figures of the bank. Both sides of a ratio run in turns on one PostgreSQL server."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from benchmarks.accounts import ACCOUNTS
from benchmarks.bank_environment import BankEnvironment, BankProcess
from benchmarks.bank_load import BankLoad
from benchmarks.figure import BenchError, Figure, Options
from benchmarks.latency_comparison import ComparedLatencies, LatencyComparison
from benchmarks.load_generator import start_generator
from benchmarks.load_runs import measure_bank_loads
from benchmarks.pgbench import run_pgbench
from benchmarks.run import Run, fastest
from loadtests.console import print_progress
from loadtests.statistics import percentiles

_PGBENCH_CLIENTS: Final = (8, 16, 32)
_UNARY_IN_FLIGHT: Final = (64, 256, 512)
_BULK_CALLS: Final = ((500, 8), (2_000, 4))  # transfers per call, calls in flight
_ZIPF_EXPONENT: Final = 2.0
_ROUNDS: Final = 3
_REPLICAS: Final = 3
_COMPARISON_TIMEOUT_SECONDS: Final = 120.0


async def unary_vs_pgbench(environment: BankEnvironment) -> Figure:
    """Rate of transfers in single calls, divided by the rate of pgbench with one transaction per transfer."""
    loads = {
        f"unary, {n} in flight": {"in_flight": n, "tokens": environment.tokens.customers} for n in _UNARY_IN_FLIGHT
    }
    return await _compare_with_pgbench(environment, "bank.unary_vs_pgbench", 0.8, loads)


async def bulk_vs_pgbench(environment: BankEnvironment) -> Figure:
    """Rate of transfers in bulk calls, divided by the rate of pgbench with one transaction per transfer."""
    loads = {
        f"bulk, {calls} calls of {items:,}": {"in_flight": calls, "items": items, "tokens": [environment.tokens.admin]}
        for items, calls in _BULK_CALLS
    }
    return await _compare_with_pgbench(environment, "bank.bulk_vs_pgbench", 2.5, loads)


async def hot_vs_uniform(environment: BankEnvironment) -> Figure:
    """Rate of bulk transfers between accounts of a Zipf distribution, divided by the rate between uniform accounts."""
    items, calls = _BULK_CALLS[0]
    hot: list[Run] = []
    uniform: list[Run] = []
    seconds = environment.options.seconds / 2
    async with environment.ledgers.create() as ledger, environment.start_banks(ledger) as banks:
        for _ in range(_ROUNDS):
            for runs, skew, kind in ((uniform, 0.0, "uniform"), (hot, _ZIPF_EXPONENT, f"Zipf {_ZIPF_EXPONENT:g}")):
                load = _bank_load(banks, in_flight=calls, items=items, skew=skew, tokens=[environment.tokens.admin])
                name = f"{kind}, {calls} calls of {items:,}"
                runs.append(await measure_bank_loads(environment, ledger, banks, [load], name, seconds=seconds))
    return Figure(
        figure="bank.hot_vs_uniform",
        value=fastest(hot).rate / fastest(uniform).rate,
        unit="ratio",
        bar=0.8,
        details={
            "hot": fastest(hot).as_details(),
            "uniform": fastest(uniform).as_details(),
            "rounds": {"uniform": _rates(uniform), "hot": _rates(hot)},
        },
    )


async def idle_latency_vs_single(environment: BankEnvironment) -> Figure:
    """Latency of a single transfer on an idle bank, divided by that of plain SQL that writes the same kinds of rows."""
    seconds = 2 * environment.options.seconds
    async with environment.ledgers.create() as ledger, environment.start_banks(ledger) as banks:
        await ledger.vacuum()
        async with start_generator("benchmarks.latency_comparison") as comparison:
            comparison.send(
                LatencyComparison(
                    target=banks[0].target,
                    tokens=environment.tokens.customers,
                    database_url=ledger.url,
                    accounts=ACCOUNTS,
                    seconds=seconds,
                ),
            )
            line = await comparison.receive(_COMPARISON_TIMEOUT_SECONDS + 2 * seconds)
        latencies = ComparedLatencies(**orjson.loads(line))
        await ledger.verify(latencies.acknowledged)
    bank, sql = percentiles(latencies.bank_ms), percentiles(latencies.sql_ms)
    print_progress(f"   median: bank {bank['p50']:.2f} ms, plain SQL {sql['p50']:.2f} ms")
    return Figure(
        figure="bank.idle_latency_vs_single",
        value=bank["p50"] / sql["p50"],
        unit="ratio",
        bar=1.5,
        better="lower",
        details={"bank_ms": bank, "plain_ms": sql, "transfers": latencies.acknowledged},
    )


async def transfers_by_replicas(environment: BankEnvironment) -> Figure:
    """Rate of single calls to three replicas of the bank, divided by the rate to one replica; checks the ledger."""
    runs: dict[int, list[Run]] = {count: [] for count in range(1, _REPLICAS + 1)}
    async with environment.ledgers.create() as ledger, environment.start_banks(ledger, _REPLICAS) as banks:
        for _ in range(2):
            for count, runs_of_count in runs.items():
                # Always two generators, so that the runs differ only in the number of banks.
                load = _bank_load(banks[:count], in_flight=128, tokens=environment.tokens.customers)
                name = f"{count} of {_REPLICAS} banks, unary, 256 in flight"
                runs_of_count.append(await measure_bank_loads(environment, ledger, banks, [load, load], name))
        violations = await ledger.count_violations()
    if any(violations.values()):
        raise BenchError(f"the ledger violates its invariants after {_REPLICAS} banks used it: {violations}")
    return Figure(
        figure="scale.transfers_by_replicas",
        value=fastest(runs[_REPLICAS]).rate / fastest(runs[1]).rate,
        unit="ratio",
        details={
            "banks": {str(count): fastest(runs_of_count).as_details() for count, runs_of_count in runs.items()},
            "rounds": {str(count): _rates(runs_of_count) for count, runs_of_count in runs.items()},
            "violations": sum(violations.values()),
        },
    )


_MEASUREMENTS: Final[Mapping[str, Callable[[BankEnvironment], Awaitable[Figure]]]] = {
    "bank.unary_vs_pgbench": unary_vs_pgbench,
    "bank.bulk_vs_pgbench": bulk_vs_pgbench,
    "bank.hot_vs_uniform": hot_vs_uniform,
    "bank.idle_latency_vs_single": idle_latency_vs_single,
    "scale.transfers_by_replicas": transfers_by_replicas,
}

FIGURES: Final[Collection[str]] = tuple(_MEASUREMENTS)


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    async with BankEnvironment(options) as environment:
        for name, measure_figure in _MEASUREMENTS.items():
            if name in names:
                print_progress(f"{name}: {measure_figure.__doc__}")
                yield await measure_figure(environment)


async def _compare_with_pgbench(
    environment: BankEnvironment, name: str, bar: float, loads: Mapping[str, Mapping[str, Any]]
) -> Figure:
    """Divide the bank's best rate by that of pgbench.

    pgbench runs before the bank and, with its fastest number of clients, once more after it. The fastest of these
    runs is the reference. If the machine steadily gets slower or faster, one of these runs has better conditions than
    the bank has, so the ratio can only become too low.
    """
    before = {clients: await _run_pgbench(environment, clients) for clients in _PGBENCH_CLIENTS}
    async with environment.ledgers.create() as ledger, environment.start_banks(ledger) as banks:
        runs = [
            await measure_bank_loads(environment, ledger, banks, [_bank_load(banks, **load)], run_name)
            for run_name, load in loads.items()
        ]
    after = await _run_pgbench(environment, max(before, key=lambda clients: before[clients].rate))
    references = [*before.values(), after]
    bank, reference = fastest(runs), fastest(references)
    return Figure(
        figure=name,
        value=bank.rate / reference.rate,
        unit="ratio",
        bar=bar,
        details={
            "bank": bank.as_details(),
            "reference": reference.as_details(),
            "bank_runs": _rates(runs),
            "reference_runs": _rates(references),
        },
    )


async def _run_pgbench(environment: BankEnvironment, clients: int) -> Run:
    async with environment.ledgers.create() as ledger:
        return await run_pgbench(environment.postgres, ledger, clients, environment.options)


def _bank_load(banks: Sequence[BankProcess], **arguments: Any) -> BankLoad:
    return BankLoad(targets=[bank.target for bank in banks], accounts=ACCOUNTS, **arguments)


def _rates(runs: Sequence[Run]) -> list[dict[str, float]]:
    """Return the rate of each run, in order."""
    return [{run.name: run.rate} for run in runs]
