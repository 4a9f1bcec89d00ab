"""`python -m loadtests.bench`: measures, and prints one JSON object a figure."""

import argparse
import asyncio
import sys
import time
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from typing import Final

from loadtests.bench import analytics, bank, gateway, identity, ingest, live, topups
from loadtests.bench.figure import BenchError, Options, Part, say
from stack.process import StartError

PARTS: Final[tuple[Part, ...]] = (bank, analytics, ingest, live, topups, identity, gateway)
"""Whoever measures something: a module that is a `Part`."""


async def bench(wanted: AbstractSet[str], options: Options) -> int:
    """Prints the wanted figures as they come; 0 when each could be measured, whatever it is."""
    started = time.monotonic()
    try:
        for part in PARTS:
            if wanted.isdisjoint(part.FIGURES):  # a part sets the scene even for one figure
                continue
            async with aclosing(part.measure(wanted, options)) as figures:
                async for figure in figures:
                    sys.stdout.write(f"{figure.line()}\n")
                    sys.stdout.flush()
                    verdict = "" if figure.bar is None else f", {'holds' if figure.holds else 'MISSES'} {figure.bar:g}"
                    say(f"== {figure.figure}: {figure.value:.3g} {figure.unit}{verdict}")
    except (BenchError, StartError) as error:
        say(f"error: {error}")
        return 1
    say(f"took {time.monotonic() - started:.0f} s")
    return 0


def main() -> int:
    """Runs the command line and returns the exit code."""
    known = [figure for part in PARTS for figure in part.FIGURES]
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description="Measures; prints JSON lines.")
    parser.add_argument("--only", action="append", choices=known, metavar="FIGURE", help=f"of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=Options().seconds, help="how long each run is measured")
    parser.add_argument("--kafka", action="store_true", help="with a broker, so that the bank's relay works, too")
    arguments = parser.parse_args()
    options = Options(seconds=arguments.seconds, kafka=arguments.kafka)
    return asyncio.run(bench(set(arguments.only or known), options))


if __name__ == "__main__":
    sys.exit(main())
