"""Outages: stop one component under load, start it again, and measure the errors and the recovery."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtests.customers import CHECKER
from loadtests.faults.recovery import RecoveryProbe
from loadtests.history.storage import read_records
from loadtests.plan import Plan
from loadtests.run import run_load
from loadtests.target import Target
from stack.system import System

COMPONENTS: Final = (
    "postgres",
    "kafka",
    "clickhouse",
    "bank",
    "card",
    "analytics",
    "identity",
    "gateway",
    "acquirer",
)

_LOAD_BEFORE_SECONDS: Final = 2.0
_RECOVERY_TIMEOUT_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Effects of the outage of one component.

    Attributes:
        component: the stopped component.
        seconds: duration of the outage.
        requests: number of requests during the outage and the recovery, by name.
        failed: number of those requests without a correct response, by name.
        errors: number of failed requests by error.
        longest_ms: longest duration of one of those requests, successful or not, without subscriptions.
        recovery_seconds: time from the start command until everything works again, without manual steps.
        verdict: verdict of the history checker.
    """

    component: str
    seconds: float
    requests: Mapping[str, int]
    failed: Mapping[str, int]
    errors: Mapping[str, int]
    longest_ms: float
    recovery_seconds: float
    verdict: str


async def run_outage(
    system: System, component: str, folder: Path, *, seconds: float, plan: Plan, accounts: int
) -> Outage:
    """Stop one component under load, and start it again.

    Args:
        system: running system.
        component: name from `COMPONENTS`.
        folder: empty folder for all results of the run.
        seconds: duration of the outage.
        plan: plan of the load, which ends after the recovery.
        accounts: number of customers.

    Raises:
        NotRecoveredError: the system did not recover on its own.
    """
    target = Target.embedded(system.ports, system.data)

    async def inject() -> Sequence[Mapping[str, Any]]:
        async with RecoveryProbe(target) as probe:
            await probe.wait_until_recovered(_RECOVERY_TIMEOUT_SECONDS)
            await asyncio.sleep(_LOAD_BEFORE_SECONDS)
            began = time.monotonic()
            await system.supervisor.stop_process(component)
            await asyncio.sleep(seconds)
            ended = time.monotonic()
            await system.supervisor.start_process(component)
            await probe.wait_until_recovered(_RECOVERY_TIMEOUT_SECONDS)
            recovered = time.monotonic() - ended
            return [{"name": f"{component} is stopped", "began": began, "ended": ended, "recovered": recovered}]

    longest = replace(plan, seconds=seconds + 4 * _RECOVERY_TIMEOUT_SECONDS)
    outcome = await run_load(target, longest, accounts, folder, inject)
    (fault,) = outcome.faults
    until = fault["ended"] + fault["recovered"]
    during = [
        each
        for each in read_records(folder)
        if each.name != CHECKER and each.ended > fault["began"] and each.began < until
    ]
    return Outage(
        component=component,
        seconds=seconds,
        requests=dict(Counter(each.name for each in during)),
        failed=dict(Counter(each.name for each in during if each.error)),
        errors=dict(Counter(each.error for each in during if each.error)),
        longest_ms=max((1_000 * (each.ended - each.began) for each in during if not each.subscription), default=0.0),
        recovery_seconds=fault["recovered"],
        verdict=outcome.verdict,
    )


def outages_to_markdown(outages: Sequence[Outage]) -> str:
    """Return the outages as a Markdown table."""
    rows = [
        "| stopped | failed requests | longest wait | recovery | checker |",
        "|---|---|---|---|---|",
    ]
    for each in outages:
        counts = [f"{count} of {each.requests[name]} {name}" for name, count in sorted(each.failed.items())]
        failed = f"{', '.join(sorted(each.errors))}: {', '.join(counts)}" if counts else "none"
        rows.append(
            f"| {each.component} | {failed} | {each.longest_ms / 1_000:.1f} s | {each.recovery_seconds:.1f} s |"
            f" {each.verdict.lower()} |"
        )
    return "\n".join(rows)
