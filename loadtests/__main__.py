"""`make load`: load a running system, or a temporary one, and check the responses afterwards."""

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from loadtests import account_selection, options
from loadtests.console import print_progress
from loadtests.customers import CustomerApi, SetUpError
from loadtests.history.storage import HistoryWriter
from loadtests.interrupts import Interrupts
from loadtests.plan import Plan
from loadtests.run import (
    COULD_NOT_RUN,
    LoadError,
    Verdict,
    check_ledger,
    create_report_folder,
    locust_command,
    run_load,
)
from loadtests.scenarios import NAMES
from loadtests.target import NO_ADDRESS_LIMITS, Target, temporary_system
from stack.ports import PortError, Ports
from stack.process import StartError
from stack.running import NotFoundError, find_system, list_systems

_SHAPES: Final = ("ramp", "spike", "soak", "limit")  # not imported, because `shapes` patches its process for gevent
_STEPS_FILE: Final = "steps.txt"
_WEB_PORT: Final = 8089
_MAX_PROCESSES: Final = 64
_SEEDS: Final = 10**6
_INTERRUPTED: Final = 130


async def run(arguments: argparse.Namespace) -> int:
    """Run one load test and return the exit code: the number of the `Verdict`, or `COULD_NOT_RUN`."""
    try:
        return await _run(arguments)
    except LoadError as error:
        print_progress(str(error))
        return Verdict.UNPROVEN
    except (SetUpError, StartError) as error:
        print_progress(f"could not run: {error}")
        return COULD_NOT_RUN


async def _run(arguments: argparse.Namespace) -> int:
    try:
        folder = create_report_folder()
    except OSError as error:
        raise SetUpError(f"the folder of the results cannot be created: {error}") from None
    interrupts = Interrupts()
    async with AsyncExitStack() as stack:
        stack.enter_context(interrupts.handled())
        target = Target(host=arguments.host, bank=arguments.bank or "", ledger=arguments.ledger or "")
        if not arguments.host:
            target = (
                await _find_target(arguments.data, arguments.port)
                or (await stack.enter_async_context(temporary_system(**NO_ADDRESS_LIMITS)))[1]
            )
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
            seed=random.randrange(_SEEDS) if arguments.seed is None else arguments.seed,  # noqa: S311  no secret
        )
        if arguments.ui:
            return await _run_web_interface(target, plan, arguments.customers, folder)
        outcome = await run_load(target, plan, arguments.customers, folder, interrupts=interrupts)
    if (steps := folder / _STEPS_FILE).exists():
        print_progress(steps.read_text().rstrip())
    print_progress(
        f"results in {folder}: locust.html, locust_stats.csv; `make report` shows the newest run on one page"
    )
    sys.stdout.write(f"{'+'.join(plan.scenarios)}, {plan.users} users: {outcome}\n")
    return Verdict[outcome.verdict]


async def _run_web_interface(target: Target, plan: Plan, customers: int, folder: Path) -> int:
    """Run Locust's web interface until Ctrl-C. There is no verdict, because the user may change the load."""
    await check_ledger(target)
    with HistoryWriter(folder) as writer:
        async with CustomerApi(target, writer) as api:
            replace(plan, customers=await api.create_customers(customers)).write(folder)
    print_progress(f"Locust's web interface: http://127.0.0.1:{_WEB_PORT}; seed {plan.seed}; press Ctrl-C to stop")
    command = locust_command(plan, folder, web_port=_WEB_PORT)
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "LOAD_FOLDER": str(folder)})
    try:
        code = await process.wait()
    except asyncio.CancelledError:  # Locust receives Ctrl-C too, but no SIGTERM
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if code:
        raise LoadError(f"Locust ended with exit code {code}")
    return Verdict.UNPROVEN


async def _find_target(data: Path | None, port: int | None) -> Target | None:
    """Return the running system with this data folder and port; None if no system runs and none was named.

    Raises:
        SetUpError: none has this data folder and port, several do, or the system is not ready.
    """
    if data is None and port is None and not list_systems():
        print_progress("no wallet runs on this machine: starting a temporary one")
        return None
    try:
        system = find_system(data, port)
    except NotFoundError as error:
        raise SetUpError(str(error)) from None
    target = Target.embedded(Ports.derive(system.port), system.data)
    if not await target.is_ready():
        raise SetUpError(f"the wallet at {target.host} is not ready: see `make status`")
    return target


def _parse_port(text: str) -> int:
    port = options.whole_number(1)(text)
    try:
        Ports.derive(port)
    except PortError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return port


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line. Invalid options end the process with a message and exit code 2."""
    parser = create_parser()
    parsed = parser.parse_args(arguments)
    if not parsed.host and (parsed.bank or parsed.ledger):
        parser.error("--bank and --ledger describe another system: name its gateway with --host")
    if parsed.host and "grpc" in parsed.scenario.split(",") and not parsed.bank:
        parser.error("the scenario grpc calls the bank directly: name its gRPC target with --bank")
    return parsed


def create_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument(
        "--scenario",
        type=options.scenarios,
        default="rest",
        help=f"{', '.join(NAMES)}, several separated by commas, or all",
    )
    parser.add_argument(
        "--users", type=options.whole_number(1), default=20, help="number of concurrent users; with --rate, the maximum"
    )
    parser.add_argument("--time", type=options.duration, default=15.0, help="duration, such as 90s or 5m")
    parser.add_argument(
        "--rate",
        type=options.positive_number,
        default=0.0,
        help="open loop: send this number of requests per second, independent of the responses",
    )
    parser.add_argument("--shape", choices=_SHAPES, default="", help="change of the load over time; default: constant")
    parser.add_argument(
        "--accounts", choices=tuple(account_selection.BY_NAME), default="uniform", help="selection of the accounts"
    )
    parser.add_argument(
        "--customers", type=options.whole_number(2), default=50, help="number of customers, with one account each"
    )
    processes = options.whole_number(1, _MAX_PROCESSES)
    parser.add_argument("--processes", type=processes, default=1, help="number of Locust processes")
    parser.add_argument(
        "--seed",
        type=options.whole_number(0),
        help="repeat the users' choices of the run that printed this seed; default: a new random seed",
    )
    parser.add_argument("--ui", action="store_true", help="run Locust's web interface, without a verdict")
    parser.add_argument("--port", type=_parse_port, help="port of a running local system, if several run (PORT)")
    parser.add_argument("--data", type=Path, help="data folder of a running local system, if several run (DATA)")
    parser.add_argument("--host", type=options.http_url, help="URL of the gateway of another system")
    parser.add_argument("--bank", type=options.grpc_target, help="gRPC target of the bank behind --host")
    parser.add_argument(
        "--ledger",
        type=options.postgres_url,
        help="URL of the bank's database behind --host; without it, there is no verdict",
    )
    return parser


def main() -> int:
    """Run the command line and return the exit code."""
    arguments = parse_arguments()
    try:
        return asyncio.run(run(arguments))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print_progress("stopped by Ctrl-C or SIGTERM, without a verdict")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
