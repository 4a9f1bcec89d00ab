"""Figures of the gateway, compared with a bare route, with gRPC alone and with another gateway.

The bare route is a FastAPI application that only calls the bank (`bare_route`). gRPC alone means the calls to the bank
without a gateway. The services behind the gateway are stubs, which respond at once. The two sides of a ratio, such as
the gateway and the bare route, run in turns.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from typing import Final

from benchmarks import hive, service_stubs
from benchmarks.figure import Figure, Options
from benchmarks.gateway_environment import GatewayEnvironment, Side
from benchmarks.run import Run, fastest
from loadtests.console import print_progress

_MUTATION_VS_BARE_ROUTE: Final = "graphql.mutation_vs_bare_route"
_REST_VS_BARE_ROUTE: Final = "rest.transfer_vs_bare_route"
_REST_VS_GRPC: Final = "gateway.overhead_vs_grpc"
_GRAPHQL_PAGE: Final = "graphql.list_1000_us_per_item"
_MUTATION_VS_HIVE: Final = "graphql.mutation_vs_hive"
_AUTH_OVERHEAD: Final = "gateway.auth_overhead"
_TELEMETRY_OVERHEAD: Final = "gateway.telemetry_overhead"
_BARS: Final[Mapping[str, float | None]] = {
    _MUTATION_VS_BARE_ROUTE: 0.55,
    _REST_VS_BARE_ROUTE: 0.7,
    _REST_VS_GRPC: None,
    _AUTH_OVERHEAD: 0.85,
    _TELEMETRY_OVERHEAD: 0.85,
    _GRAPHQL_PAGE: 0.9,
    _MUTATION_VS_HIVE: 1.5,
}
FIGURES: Final[Collection[str]] = tuple(_BARS)

_ROUNDS: Final = 3


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    async with GatewayEnvironment() as environment:
        for figure in FIGURES:
            if figure not in names:
                continue
            if figure == _MUTATION_VS_HIVE and not hive.is_installed():
                print_progress(f"{figure}: skipped, Hive Gateway is not installed: run `npm ci` in benchmarks/hive")
                continue
            print_progress(f"{figure}: best of {_ROUNDS} runs of each side")
            yield await _measure_figure(environment, figure, options)


async def _measure_figure(environment: GatewayEnvironment, figure: str, options: Options) -> Figure:
    rest = environment.rest_transfers("gateway", environment.gateway)
    graphql = environment.graphql_transfers()
    bare_route = environment.rest_transfers("bare route", environment.bare_route)
    without_auth = environment.rest_transfers("unguarded", environment.gateway_without_auth)
    sides = {
        _MUTATION_VS_BARE_ROUTE: (graphql, bare_route),
        _REST_VS_BARE_ROUTE: (rest, bare_route),
        _AUTH_OVERHEAD: (rest, without_auth),
        _REST_VS_GRPC: (rest, environment.grpc_transfers()),
    }
    if figure in sides:
        return await measure_ratio(environment, figure, *sides[figure], options)
    if figure == _TELEMETRY_OVERHEAD:
        return await measure_telemetry_overhead(environment, options)
    if figure == _GRAPHQL_PAGE:
        return await measure_page_latency(environment, options)
    async with environment.hive_gateway() as address:
        return await measure_ratio(environment, figure, graphql, environment.hive_transfers(address), options)


async def measure_ratio(
    environment: GatewayEnvironment, figure: str, measured: Side, reference: Side, options: Options
) -> Figure:
    """Divide the best rate of the measured side by that of the reference."""
    runs: dict[str, list[Run]] = {side.name: [] for side in (reference, measured)}
    for _ in range(_ROUNDS):
        for side in (reference, measured):
            runs[side.name].append(await environment.measure_side(side, options))
    best = {name: fastest(runs_of_side) for name, runs_of_side in runs.items()}
    return Figure(
        figure=figure,
        value=best[measured.name].rate / best[reference.name].rate,
        unit="ratio",
        bar=_BARS[figure],
        details={
            **{name: run.as_details() for name, run in best.items()},
            "rounds": {name: [run.rate for run in runs_of_side] for name, runs_of_side in runs.items()},
        },
    )


async def measure_telemetry_overhead(environment: GatewayEnvironment, options: Options) -> Figure:
    """Divide the best rate with telemetry by the best rate without it.

    The details have the processor time per transfer of both gateways. On a busy machine it is a better measure than the
    rates.
    """
    async with environment.gateways_with_and_without_telemetry() as (with_telemetry, without_telemetry):
        sides = (
            environment.rest_transfers("telling", with_telemetry),
            environment.rest_transfers("silent", without_telemetry),
        )
        figure = await measure_ratio(environment, _TELEMETRY_OVERHEAD, *sides, options)
    microseconds = {}
    for side in sides:
        run = figure.details[side.name]
        transfers = run["transfers_per_second"] * options.seconds
        microseconds[side.name] = 1_000_000 * run["cpu_seconds"][side.name] / transfers
    return replace(figure, details={"cpu_microseconds_per_transfer": microseconds, **figure.details})


async def measure_page_latency(environment: GatewayEnvironment, options: Options) -> Figure:
    """Divide the latency of a page over GraphQL by that of the same page over REST.

    Each side requests its pages one after the other, so the ratio of the latencies is the inverse ratio of the rates:
    the rate over REST divided by that over GraphQL.
    """
    rest, graphql = environment.rest_pages(), environment.graphql_pages()
    figure = await measure_ratio(environment, _GRAPHQL_PAGE, rest, graphql, options)
    microseconds = {
        side.name: 1_000_000 / figure.details[side.name]["pages_per_second"] / service_stubs.PAGE_SIZE
        for side in (rest, graphql)
    }
    return replace(figure, better="lower", details={"microseconds_per_item": microseconds, **figure.details})
