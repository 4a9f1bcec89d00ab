"""The bank's figures. Both sides of each ratio run on one PostgreSQL, in turns, each on accounts of its own."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from benchmarks import load_generator, pgbench
from benchmarks.accounts import ACCOUNTS
from benchmarks.bank_environment import Bank, Scene
from benchmarks.bank_load import Load
from benchmarks.figure import BenchError, Figure, Options
from benchmarks.latency_comparison import Duel, Latencies
from benchmarks.load_runs import drive
from benchmarks.run import Run, fastest
from loadtests.console import print_progress
from loadtests.statistics import percentiles

_CLIENTS: Final = (8, 16, 32)
_IN_FLIGHT: Final = (64, 256, 512)
_BULKS: Final = ((500, 8), (2_000, 4))  # items a call, calls in flight
_HOT: Final = 2.0
_ROUNDS: Final = 3
_REPLICAS: Final = 3
_PATIENCE_SECONDS: Final = 120.0


async def unary_vs_pgbench(scene: Scene) -> Figure:
    """Transfers by single calls, against PostgreSQL's own tool with a transaction for each."""
    loads = {f"unary, {n} in flight": {"in_flight": n, "tokens": scene.callers.customers} for n in _IN_FLIGHT}
    return await _against_pgbench(scene, "bank.unary_vs_pgbench", 0.8, loads)


async def bulk_vs_pgbench(scene: Scene) -> Figure:
    """Transfers by calls of many, of a service, against the same reference."""
    loads = {
        f"bulk, {calls} calls of {items:,}": {"in_flight": calls, "items": items, "tokens": [scene.callers.admin]}
        for items, calls in _BULKS
    }
    return await _against_pgbench(scene, "bank.bulk_vs_pgbench", 2.5, loads)


async def hot_vs_uniform(scene: Scene) -> Figure:
    """Transfers in bulk between few accounts, most of all one, against the same between all alike."""
    items, calls = _BULKS[0]
    hot: list[Run] = []
    uniform: list[Run] = []
    async with scene.ledgers.fresh() as ledger, scene.banks(ledger) as banks:
        for _ in range(_ROUNDS):
            for runs, skew, kind in ((uniform, 0.0, "uniform"), (hot, _HOT, f"Zipf {_HOT:g}")):
                load = _load(banks, in_flight=calls, items=items, skew=skew, tokens=[scene.callers.admin])
                name = f"{kind}, {calls} calls of {items:,}"
                runs.append(await drive(scene, ledger, banks, [load], name, seconds=scene.options.seconds / 2))
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


async def idle_latency_vs_single(scene: Scene) -> Figure:
    """How long a lone transfer takes, against the same rows in one transaction without any service."""
    async with scene.ledgers.fresh() as ledger, scene.banks(ledger) as banks:
        await ledger.settle()
        async with load_generator.running("benchmarks.latency_comparison") as single:
            single.tell(
                Duel(
                    target=banks[0].target,
                    tokens=scene.callers.customers,
                    database_url=ledger.url,
                    accounts=ACCOUNTS,
                    seconds=2 * scene.options.seconds,
                ),
            )
            took = Latencies(**orjson.loads(await single.hear(_PATIENCE_SECONDS + 4 * scene.options.seconds)))
        await ledger.check(took.acknowledged)
    bank, plain = percentiles(took.bank_ms), percentiles(took.plain_ms)
    print_progress(f"   median: bank {bank['p50']:.2f} ms, one plain transaction {plain['p50']:.2f} ms")
    return Figure(
        figure="bank.idle_latency_vs_single",
        value=bank["p50"] / plain["p50"],
        unit="ratio",
        bar=1.5,
        better="lower",
        details={"bank_ms": bank, "plain_ms": plain, "transfers": took.acknowledged},
    )


async def transfers_by_replicas(scene: Scene) -> Figure:
    """Single calls on one, two and three banks over one ledger; and that the ledger holds afterwards."""
    runs: dict[int, list[Run]] = {count: [] for count in range(1, _REPLICAS + 1)}
    async with scene.ledgers.fresh() as ledger, scene.banks(ledger, _REPLICAS) as banks:
        for _ in range(2):
            for count, of_so_many in runs.items():
                # As many generators in any case, so that only the banks differ.
                load = _load(banks[:count], in_flight=128, tokens=scene.callers.customers)
                name = f"{count} of {_REPLICAS} banks, unary, 256 in flight"
                of_so_many.append(await drive(scene, ledger, banks, [load, load], name))
        violations = await ledger.violations()
    if any(violations.values()):
        raise BenchError(f"several banks broke the ledger: {violations}")
    return Figure(
        figure="scale.transfers_by_replicas",
        value=fastest(runs[_REPLICAS]).rate / fastest(runs[1]).rate,
        unit="ratio",
        details={
            "banks": {str(count): fastest(of_so_many).as_details() for count, of_so_many in runs.items()},
            "rounds": {str(count): _rates(of_so_many) for count, of_so_many in runs.items()},
            "violations": sum(violations.values()),
        },
    )


_MEASURED: Final[Mapping[str, Callable[[Scene], Awaitable[Figure]]]] = {
    "bank.unary_vs_pgbench": unary_vs_pgbench,
    "bank.bulk_vs_pgbench": bulk_vs_pgbench,
    "bank.hot_vs_uniform": hot_vs_uniform,
    "bank.idle_latency_vs_single": idle_latency_vs_single,
    "scale.transfers_by_replicas": transfers_by_replicas,
}

FIGURES: Final[Collection[str]] = tuple(_MEASURED)


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    async with Scene.set(options) as scene:
        for name, figure in _MEASURED.items():
            if name in wanted:
                print_progress(f"{name}: {figure.__doc__}")
                yield await figure(scene)


async def _against_pgbench(scene: Scene, name: str, bar: float, loads: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The bank's best run by the reference's best. The reference runs before and, as it was fastest, after: a machine
    that changes its speed meanwhile then speaks against the bank, never for it.
    """
    before = {clients: await _pgbench(scene, clients) for clients in _CLIENTS}
    async with scene.ledgers.fresh() as ledger, scene.banks(ledger) as banks:
        runs = [await drive(scene, ledger, banks, [_load(banks, **load)], run) for run, load in loads.items()]
    after = await _pgbench(scene, max(before, key=lambda clients: before[clients].rate))
    references = [*before.values(), after]
    best, held_against = fastest(runs), fastest(references)
    return Figure(
        figure=name,
        value=best.rate / held_against.rate,
        unit="ratio",
        bar=bar,
        details={
            "bank": best.as_details(),
            "reference": held_against.as_details(),
            "bank_runs": _rates(runs),
            "reference_runs": _rates(references),
        },
    )


async def _pgbench(scene: Scene, clients: int) -> Run:
    async with scene.ledgers.fresh() as ledger:
        return await pgbench.run(scene.postgres, ledger, clients, scene.options)


def _load(banks: Sequence[Bank], **given: Any) -> Load:
    return Load(targets=[bank.target for bank in banks], accounts=ACCOUNTS, **given)


def _rates(runs: Sequence[Run]) -> list[dict[str, float]]:
    """Transfers a second of each, in order."""
    return [{run.name: run.rate} for run in runs]
