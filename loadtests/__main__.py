"""`make load`: load a running system, or a temporary one, and check the answers afterwards."""

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
from loadtests.customers import CustomerApi
from loadtests.history.storage import HistoryWriter
from loadtests.plan import Plan
from loadtests.run import LoadError, Verdict, create_report_folder, locust_command, run_load
from loadtests.scenarios import NAMES
from loadtests.target import Target, temporary_system
from stack.ports import DEFAULT, Ports
from stack.up import DEFAULT_DATA

_SHAPES: Final = ("ramp", "spike", "soak", "limit")  # importing `shapes` would patch this process for gevent
_STEPS_FILE: Final = "steps.txt"
_WEB_PORT: Final = 8089
_MAX_SECONDS: Final = 24 * 3600.0


async def main(arguments: argparse.Namespace) -> int:
    """Make one run and return its exit code, which is the verdict."""
    folder = create_report_folder()
    async with AsyncExitStack() as stack:
        target = _target_from_arguments(arguments)
        if not arguments.host and not await target.is_ready():
            print_progress(f"nothing answers at {target.host}: starting a temporary system")
            _, target = await stack.enter_async_context(temporary_system())
        plan = Plan(
            host=target.host,
            bank=target.bank,
            scenarios=arguments.scenario.split(","),
            users=arguments.users,
            seconds=arguments.time,
            rate=arguments.rate,
            shape=arguments.shape,
            account_selection=arguments.accounts,
            processes=arguments.processes,
        )
        if arguments.ui:
            return await _run_web_interface(target, plan, arguments.customers, folder)
        try:
            outcome = await run_load(target, plan, arguments.customers, folder)
        except LoadError as error:
            print_progress(str(error))
            return Verdict.UNPROVEN
    if (steps := folder / _STEPS_FILE).exists():
        print_progress(steps.read_text().rstrip())
    print_progress(f"results in {folder}: locust.html, locust_stats.csv; `make report` combines them in one page")
    sys.stdout.write(f"{'+'.join(plan.scenarios)}, {plan.users} users: {outcome}\n")
    return Verdict[outcome.verdict]


async def _run_web_interface(target: Target, plan: Plan, customers: int, folder: Path) -> int:
    """Run Locust's web interface until Ctrl-C. There is no verdict: the load may change at any time."""
    with HistoryWriter(folder) as writer:
        async with CustomerApi(target, writer) as api:
            replace(plan, customers=await api.create_customers(customers)).write(folder)
    print_progress(f"Locust's web interface: http://127.0.0.1:{_WEB_PORT}; press Ctrl-C to stop")
    command = locust_command(plan, folder, web_port=_WEB_PORT)
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "LOAD_FOLDER": str(folder)})
    return await process.wait()


def _target_from_arguments(arguments: argparse.Namespace) -> Target:
    """Return the named system, or else the embedded stack with the given port and folder."""
    if arguments.host:
        return Target(host=arguments.host.rstrip("/"), bank=arguments.bank, ledger=arguments.ledger)
    return Target.embedded(Ports.derive(arguments.port), arguments.data.absolute())


def _parse_scenarios(text: str) -> str:
    names = NAMES if text == "all" else tuple(text.split(","))
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(NAMES)}, or all")
    return ",".join(names)


def _parse_seconds(text: str) -> float:
    """Parse `90`, `90s`, `5m` or `2h`."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    seconds = float(text[:-1]) * unit if unit else float(text)
    if not 0 < seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 24h")
    return seconds


def create_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument(
        "--scenario",
        type=_parse_scenarios,
        default="rest",
        help=f"{', '.join(NAMES)}, several separated by commas, or all",
    )
    parser.add_argument("--users", type=int, default=20, help="concurrent users; with --rate, the maximum")
    parser.add_argument("--time", type=_parse_seconds, default=15.0, help="duration, such as 90s or 5m")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="open loop: requests per second, independent of the answers"
    )
    parser.add_argument("--shape", choices=_SHAPES, default="", help="change of the load over time; default: constant")
    parser.add_argument(
        "--accounts", choices=tuple(account_selection.BY_NAME), default="uniform", help="selection of the accounts"
    )
    parser.add_argument("--customers", type=int, default=50, help="number of customers, with one account each")
    parser.add_argument("--processes", type=int, default=1, help="number of Locust processes")
    parser.add_argument("--ui", action="store_true", help="run Locust's web interface, without a verdict")
    parser.add_argument("--port", type=int, default=DEFAULT, help="port of the running stack")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder of the running stack")
    parser.add_argument("--host", default="", help="URL of another system's gateway")
    parser.add_argument("--bank", default="", help="gRPC target of its bank")
    parser.add_argument("--ledger", default="", help="URL of its bank's database; without it, there is no verdict")
    return parser


if __name__ == "__main__":
    sys.exit(asyncio.run(main(create_parser().parse_args())))
