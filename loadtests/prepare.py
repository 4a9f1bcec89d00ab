"""`python -m loadtests.prepare < PLAN`: create the folder and the customers of a run that Locust starts.

PLAN is JSON. The command prints the path of the folder. Locust runs it as a process of its own, because Locust patches
its own process for gevent.
"""

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from loadtests.console import print_progress
from loadtests.customers import CustomerApi, SetUpError
from loadtests.history.storage import HistoryWriter
from loadtests.plan import Plan
from loadtests.run import COULD_NOT_RUN, create_report_folder
from loadtests.target import Target


async def prepare(plan: Plan, customers: int, folder: Path) -> Plan:
    """Create the customers, and write the plan with them to the folder.

    Raises:
        SetUpError: the system does not respond as expected.
    """
    with HistoryWriter(folder) as writer:
        async with CustomerApi(Target(host=plan.host), writer) as api:
            plan = replace(plan, customers=await api.create_customers(customers))
    plan.write(folder)
    return plan


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.prepare", description=__doc__)
    parser.add_argument("--customers", type=int, default=50, help="number of customers, with one account each")
    customers: int = parser.parse_args().customers
    plan = Plan.from_json(sys.stdin.buffer.read())
    folder = create_report_folder()
    try:
        asyncio.run(prepare(plan, customers, folder))
    except SetUpError as error:
        print_progress(f"could not run: {error}")
        return COULD_NOT_RUN
    print_progress(f"{customers} customers with accounts; seed {plan.seed}; records in {folder}")
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
