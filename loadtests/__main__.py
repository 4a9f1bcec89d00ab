"""`make load`: load on a running system, or on one of its own, and the checker's verdict on it."""

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from loadtests import account_selection
from loadtests.console import print_progress
from loadtests.customers import Api
from loadtests.history.log import Log
from loadtests.plan import Plan
from loadtests.run import LoadError, Verdict, command, new_folder, run
from loadtests.scenarios import NAMES
from loadtests.target import Target, own
from stack.ports import DEFAULT, Ports
from stack.up import DEFAULT_DATA

_SHAPES: Final = ("ramp", "spike", "soak", "limit")  # not from `shapes`: that would patch this process for gevent
_STEPS_FILE: Final = "steps.txt"
_WEB_PORT: Final = 8089
_LONGEST_SECONDS: Final = 24 * 3600.0


async def main(arguments: argparse.Namespace) -> int:
    """One run; the exit code is the verdict's."""
    folder = new_folder()
    async with AsyncExitStack() as stack:
        target = _target(arguments)
        if not arguments.host and not await target.is_there():
            print_progress(f"nothing answers at {target.host}: starting a system for this run")
            _, target = await stack.enter_async_context(own())
        plan = Plan(
            host=target.host,
            bank=target.bank,
            scenarios=arguments.scenario.split(","),
            users=arguments.users,
            seconds=arguments.time,
            rate=arguments.rate,
            shape=arguments.shape,
            choice=arguments.accounts,
            processes=arguments.processes,
        )
        if arguments.ui:
            return await _page(target, plan, arguments.customers, folder)
        try:
            outcome = await run(target, plan, arguments.customers, folder)
        except LoadError as error:
            print_progress(str(error))
            return Verdict.UNPROVEN
    if (steps := folder / _STEPS_FILE).exists():
        print_progress(steps.read_text().rstrip())
    print_progress(f"in {folder}: locust.html, locust_stats.csv; `make report` makes one page of all of it")
    sys.stdout.write(f"{'+'.join(plan.scenarios)}, {plan.users} users: {outcome}\n")
    return Verdict[outcome.verdict]


async def _page(target: Target, plan: Plan, customers: int, folder: Path) -> int:
    """Locust's own page, until Ctrl-C: nothing is judged, since a person may change everything meanwhile."""
    with Log(folder) as log:
        async with Api(target, log) as api:
            replace(plan, customers=await api.customers(customers)).write(folder)
    print_progress(f"http://127.0.0.1:{_WEB_PORT} shows and steers the load; Ctrl-C ends it")
    line = command(plan, folder, web_port=_WEB_PORT)
    process = await asyncio.create_subprocess_exec(*line, env={**os.environ, "LOAD_FOLDER": str(folder)})
    return await process.wait()


def _target(arguments: argparse.Namespace) -> Target:
    """The embedded stack of a port and a folder, unless another system is named."""
    if arguments.host:
        return Target(host=arguments.host.rstrip("/"), bank=arguments.bank, ledger=arguments.ledger)
    return Target.embedded(Ports.derive(arguments.port), arguments.data.absolute())


def _scenarios(text: str) -> str:
    names = NAMES if text == "all" else tuple(text.split(","))
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(NAMES)}, and all")
    return ",".join(names)


def _seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `2h`."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    seconds = float(text[:-1]) * unit if unit else float(text)
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError("a time between nothing and a day")
    return seconds


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    made.add_argument(
        "--scenario", type=_scenarios, default="rest", help=f"{', '.join(NAMES)}, several by commas, or all"
    )
    made.add_argument("--users", type=int, default=20, help="at once; with --rate, at most")
    made.add_argument("--time", type=_seconds, default=15.0, help="such as 90s or 5m")
    made.add_argument("--rate", type=float, default=0.0, help="requests a second, whatever becomes of those before")
    made.add_argument("--shape", choices=_SHAPES, default="", help="how the load changes; none: not at all")
    made.add_argument("--accounts", choices=tuple(account_selection.BY_NAME), default="uniform", help="who pays whom")
    made.add_argument("--customers", type=int, default=50, help="how many accounts there are")
    made.add_argument("--processes", type=int, default=1, help="of Locust's")
    made.add_argument("--ui", action="store_true", help="Locust's own page instead of a verdict")
    made.add_argument("--port", type=int, default=DEFAULT, help="of the running stack")
    made.add_argument("--data", type=Path, default=DEFAULT_DATA, help="its folder")
    made.add_argument("--host", default="", help="another system's front door, as a URL")
    made.add_argument("--bank", default="", help="its bank's gRPC target")
    made.add_argument("--ledger", default="", help="its bank's database, as a URL: without, nothing is proven")
    return made


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser().parse_args())))
