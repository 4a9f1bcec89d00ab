"""`python -m loadtests.check`: check the recorded responses of a load run that Locust started."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests import options
from loadtests.console import print_progress
from loadtests.customers import SetUpError
from loadtests.plan import FILE, Plan
from loadtests.run import COULD_NOT_RUN, REPORTS, Verdict, check_run
from loadtests.target import Target


def newest_run() -> Path | None:
    """Return the folder of the run that was prepared last; None if there is none."""
    plans = sorted(REPORTS.glob(f"*/{FILE}"), key=lambda file: file.stat().st_mtime)
    return plans[-1].parent if plans else None


async def check(folder: Path, ledger: str) -> int:
    """Check a run, print the result, and return the exit code."""
    plan = Plan.read(folder)
    try:
        outcome = await check_run(Target(host=plan.host, bank=plan.bank, ledger=ledger), folder)
    except SetUpError as error:
        print_progress(f"could not check: {error}")
        return COULD_NOT_RUN
    sys.stdout.write(f"{'+'.join(plan.scenarios)}, {plan.users} users: {outcome}\n")
    return Verdict[outcome.verdict]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: the number of the `Verdict`, or `COULD_NOT_RUN`."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.check", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="folder of the run; default: the newest one")
    parser.add_argument("--ledger", type=options.postgres_url, required=True, help="URL of the bank's database")
    parsed = parser.parse_args(arguments)
    folder = parsed.run or newest_run()
    if folder is None or not (folder / FILE).exists():
        print_progress(f"could not check: there is no run in {folder or REPORTS}")
        return COULD_NOT_RUN
    return asyncio.run(check(folder, parsed.ledger))


if __name__ == "__main__":
    sys.exit(main())
