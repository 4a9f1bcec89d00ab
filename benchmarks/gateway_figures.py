"""What the gateway costs: transfers and pages through it, to those by a bare route, by gRPC alone, by another gateway.

The services behind it answer at once. The two sides of a figure take turns in one run.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from typing import Final

from benchmarks import hive, service_stubs
from benchmarks.figure import Figure, Options
from benchmarks.gateway_environment import Scene, Side
from benchmarks.run import Run, fastest
from loadtests.console import print_progress

_GRAPHQL: Final = "graphql.mutation_vs_bare_route"
_REST: Final = "rest.transfer_vs_bare_route"
_GRPC: Final = "gateway.overhead_vs_grpc"
_PAGE: Final = "graphql.list_1000_us_per_item"
_HIVE: Final = "graphql.mutation_vs_hive"
_AUTH: Final = "gateway.auth_overhead"
_TELEMETRY: Final = "gateway.telemetry_overhead"
_BARS: Final[Mapping[str, float | None]] = {
    _GRAPHQL: 0.55,
    _REST: 0.7,
    _GRPC: None,
    _AUTH: 0.85,
    _TELEMETRY: 0.85,
    _PAGE: 3.0,
    _HIVE: 1.5,
}
FIGURES: Final[Collection[str]] = tuple(_BARS)

_ROUNDS: Final = 3


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    async with Scene.set() as scene:
        for figure in FIGURES:
            if figure not in wanted:
                continue
            if figure == _HIVE and not hive.is_there():
                print_progress(f"{figure}: skipped, since there is no Hive Gateway: npm ci in benchmarks/hive")
                continue
            print_progress(f"{figure}: the best of {_ROUNDS} runs of each side")
            yield await _measured(scene, figure, options)


async def _measured(scene: Scene, figure: str, options: Options) -> Figure:
    by_rest, by_graphql = scene.rest("gateway", scene.gateway_at), scene.graphql()
    bare_route, unguarded = scene.rest("bare route", scene.bare_at), scene.rest("unguarded", scene.unguarded_at)
    sides = {
        _GRAPHQL: (by_graphql, bare_route),
        _REST: (by_rest, bare_route),
        _AUTH: (by_rest, unguarded),
        _GRPC: (by_rest, scene.grpc()),
    }
    if figure in sides:
        return await ratio(scene, figure, *sides[figure], options)
    if figure == _TELEMETRY:
        return await price_of_telling(scene, options)
    if figure == _PAGE:
        return await time_of_a_page(scene, options)
    async with scene.hive() as target:
        return await ratio(scene, figure, by_graphql, scene.by_hive(target), options)


async def ratio(scene: Scene, figure: str, one: Side, other: Side, options: Options) -> Figure:
    """One side's best run by the other's."""
    runs: dict[str, list[Run]] = {side.name: [] for side in (other, one)}
    for _ in range(_ROUNDS):
        for side in (other, one):
            runs[side.name].append(await scene.drive(side, options))
    best = {name: fastest(each) for name, each in runs.items()}
    return Figure(
        figure=figure,
        value=best[one.name].rate / best[other.name].rate,
        unit="ratio",
        bar=_BARS[figure],
        details={
            **{name: run.as_details() for name, run in best.items()},
            "rounds": {name: [run.rate for run in each] for name, each in runs.items()},
        },
    )


async def price_of_telling(scene: Scene, options: Options) -> Figure:
    """The ratio of the rates, and in the details the processor time that each gateway took over a transfer, which says
    more where the machine is busy with something else.
    """
    async with scene.telling() as (telling_at, silent_at):
        telling, silent = scene.rest("telling", telling_at), scene.rest("silent", silent_at)
        figure = await ratio(scene, _TELEMETRY, telling, silent, options)
    each = {}
    for name in (telling.name, silent.name):
        run = figure.details[name]
        each[name] = 1_000_000 * run["cpu_seconds"][name] / (run["transfers_per_second"] * options.seconds)
    return replace(figure, details={"cpu_microseconds_per_transfer": each, **figure.details})


async def time_of_a_page(scene: Scene, options: Options) -> Figure:
    """The time that a page takes by GraphQL, by the time that it takes by REST: the ratio of the rates, upside down."""
    by_rest, by_graphql = scene.page_by_rest(), scene.page_by_graphql()
    figure = await ratio(scene, _PAGE, by_rest, by_graphql, options)
    each = {
        side.name: 1_000_000 / figure.details[side.name]["pages_per_second"] / service_stubs.PAGE
        for side in (by_rest, by_graphql)
    }
    return replace(figure, better="lower", details={"microseconds_per_item": each, **figure.details})
