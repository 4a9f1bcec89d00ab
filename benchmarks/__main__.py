"""`python -m benchmarks`: measures, and prints one JSON object a figure."""

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
    identity_figures,
    ingest_figures,
    latency_figures,
    results_page,
    system_figures,
    topup_figures,
)
from benchmarks.figure import BenchError, Options, Part
from loadtests.console import print_progress
from stack.process import StartError

PARTS: Final[tuple[Part, ...]] = (
    bank_figures,
    analytics_figures,
    ingest_figures,
    latency_figures,
    topup_figures,
    identity_figures,
    gateway_figures,
    system_figures,
)
"""Whoever measures something: a module that is a `Part`."""


async def bench(wanted: AbstractSet[str], options: Options, *, keep: bool = False) -> int:
    """Prints the wanted figures as they come, and keeps them for the page if they are to be kept; 0 when each could be
    measured, whatever it is.
    """
    started = time.monotonic()
    try:
        for part in PARTS:
            if wanted.isdisjoint(part.FIGURES):  # a part sets the scene even for one figure
                continue
            async with aclosing(part.measure(wanted, options)) as figures:
                async for figure in figures:
                    sys.stdout.write(f"{figure.line()}\n")
                    sys.stdout.flush()
                    if keep:
                        results_page.keep(figure)
                    verdict = "" if figure.bar is None else f", {'holds' if figure.holds else 'MISSES'} {figure.bar:g}"
                    print_progress(f"== {figure.figure}: {figure.value:.3g} {figure.unit}{verdict}")
    except (BenchError, StartError) as error:
        print_progress(f"error: {error}")
        return 1
    print_progress(f"took {time.monotonic() - started:.0f} s")
    return 0


def main() -> int:
    """Runs the command line and returns the exit code."""
    known = [figure for part in PARTS for figure in part.FIGURES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures; prints JSON lines.")
    parser.add_argument("--figure", action="append", choices=known, metavar="FIGURE", help=f"of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=Options().seconds, help="how long each run is measured")
    parser.add_argument("--kafka", action="store_true", help="with a broker, so that the bank's relay works, too")
    parser.add_argument("--soak", type=float, default=Options().soak_minutes, help="minutes, where memory is measured")
    parser.add_argument("--repeat", type=int, default=1, help="all of it so many times")
    parser.add_argument(
        "--keep", action="store_true", help="add the figures to benchmarks/results/, and write its page anew"
    )
    arguments = parser.parse_args()
    options = Options(seconds=arguments.seconds, kafka=arguments.kafka, soak_minutes=arguments.soak)
    wanted = set(arguments.figure or known)
    failed = [asyncio.run(bench(wanted, options, keep=arguments.keep)) for _ in range(arguments.repeat)]
    if arguments.keep:
        results_page.write()
    return max(failed)


if __name__ == "__main__":
    sys.exit(main())
