"""`python -m benchmarks`: measure figures and print one JSON object per figure."""

import argparse
import asyncio
import sys
import time
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from typing import Final

from benchmarks import (
    analytics_figures,
    bank_figures,
    gateway_figures,
    graph_figures,
    identity_figures,
    ingest_figures,
    latency_figures,
    results_page,
    system_figures,
    topup_figures,
)
from benchmarks.figure import BenchError, Figure, FigureModule, Options
from loadtests import options
from loadtests.console import print_progress
from stack.process import StartError

FIGURE_MODULES: Final[tuple[FigureModule, ...]] = (
    bank_figures,
    analytics_figures,
    ingest_figures,
    latency_figures,
    topup_figures,
    identity_figures,
    gateway_figures,
    graph_figures,
    system_figures,
)
"""All modules with figures, in the order of measurement."""

_LEAST_SECONDS: Final = 1.0
_INTERRUPTED: Final = 130


async def measure_figures(names: AbstractSet[str], options: Options, *, keep: bool = False) -> int:
    """Measure the named figures and print each when it is complete.

    Args:
        names: names of the figures.
        options: options of the command line.
        keep: add each figure to the kept results.

    Returns:
        0 if all figures are valid, whether or not they meet their targets; else 1.
    """
    started = time.monotonic()
    try:
        for module in FIGURE_MODULES:
            if names.isdisjoint(module.FIGURES):  # else some modules would start processes for nothing
                continue
            async with aclosing(module.measure(names, options)) as figures:
                async for figure in figures:
                    sys.stdout.write(f"{figure.to_json()}\n")
                    sys.stdout.flush()
                    if keep:
                        results_page.keep_figure(figure)
                    print_progress(f"== {_summary(figure)}")
    except (BenchError, StartError) as error:
        print_progress(f"error: {error}")
        return 1
    print_progress(f"took {time.monotonic() - started:.0f} s")
    return 0


def _summary(figure: Figure) -> str:
    value = f"{figure.figure}: {figure.value:.3g} {figure.unit}"
    if figure.bar is None:
        return value
    return f"{value}, target {figure.bar:g} {'met' if figure.meets_target else 'MISSED'}"


def _parse_seconds(text: str) -> float:
    seconds = options.positive_number(text)
    if seconds < _LEAST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is invalid: must be at least {_LEAST_SECONDS:g}, because pgbench reports a rate per second"
        )
    return seconds


def main() -> int:
    """Run the command line and return the exit code. Invalid options end it with a message and exit code 2."""
    known = [figure for module in FIGURE_MODULES for figure in module.FIGURES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure figures and print one JSON object per line."
    )
    parser.add_argument(
        "--figure", action="append", choices=known, metavar="FIGURE", help=f"default: all of {', '.join(known)}"
    )
    parser.add_argument(
        "--seconds", type=_parse_seconds, default=Options().seconds, help="duration of each measured run"
    )
    parser.add_argument("--kafka", action="store_true", help="start a broker, to which the bank publishes")
    parser.add_argument(
        "--soak",
        type=options.positive_number,
        default=Options().soak_minutes,
        help="duration in minutes of the soak, a long run that measures memory",
    )
    parser.add_argument(
        "--repeat", type=options.whole_number(1), default=1, help="number of times that the figures are measured"
    )
    parser.add_argument(
        "--keep", action="store_true", help="add the figures to benchmarks/results/ and write its page again"
    )
    arguments = parser.parse_args()
    chosen = Options(seconds=arguments.seconds, kafka=arguments.kafka, soak_minutes=arguments.soak)
    names = set(arguments.figure or known)
    try:
        codes = [asyncio.run(measure_figures(names, chosen, keep=arguments.keep)) for _ in range(arguments.repeat)]
    except KeyboardInterrupt:
        print_progress("stopped by Ctrl-C")
        return _INTERRUPTED
    if arguments.keep:
        results_page.write_page()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
