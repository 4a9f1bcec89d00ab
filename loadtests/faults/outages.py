"""Each thing that the system stands on, taken away under load and given back: what callers saw, and for how long."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtests.customers import CHECKER
from loadtests.faults.canary import Canary
from loadtests.history import log
from loadtests.plan import Plan
from loadtests.run import run
from loadtests.target import Target
from stack.system import System

PARTS: Final = ("postgres", "kafka", "clickhouse", "bank", "card", "analytics", "identity", "gateway", "acquirer")

_BEFORE_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What the loss of one part cost.

    Attributes:
        part: what was away.
        seconds: for how long.
        asked: requests that were made while it was away or on its way back, by what they were.
        failed: those of them that were not answered as they should be.
        errors: how these were answered.
        longest_ms: the longest that anybody waited for an answer, whatever it was.
        recovery_seconds: from when it was given back until all worked again, without a person.
        verdict: of the checker.
    """

    part: str
    seconds: float
    asked: Mapping[str, int]
    failed: Mapping[str, int]
    errors: Mapping[str, int]
    longest_ms: float
    recovery_seconds: float
    verdict: str


async def outage(system: System, part: str, folder: Path, *, seconds: float, plan: Plan, accounts: int) -> Outage:
    """Takes one part away while there is load.

    Args:
        system: one that runs.
        part: a name of `PARTS`.
        folder: an empty one, for all that is known of the run.
        seconds: how long it is away.
        plan: the load. It ends when all works again.
        accounts: how many customers there are.

    Raises:
        NotBackError: something did not come back by itself.
    """
    target = Target.embedded(system.ports, system.data)

    async def beside() -> Sequence[Mapping[str, Any]]:
        async with Canary(target) as canary:
            await canary.until_well(_PATIENCE_SECONDS)
            await asyncio.sleep(_BEFORE_SECONDS)
            began = time.monotonic()
            await system.supervisor.stop_process(part)
            await asyncio.sleep(seconds)
            ended = time.monotonic()
            await system.supervisor.start_process(part)
            await canary.until_well(_PATIENCE_SECONDS)
            return [{"name": f"{part} is away", "began": began, "ended": ended, "recovered": time.monotonic() - ended}]

    outcome = await run(target, replace(plan, seconds=seconds + 4 * _PATIENCE_SECONDS), accounts, folder, beside)
    (fault,) = outcome.faults
    until = fault["ended"] + fault["recovered"]
    during = [
        line for line in log.read(folder) if line.name != CHECKER and line.ended > fault["began"] and line.began < until
    ]
    return Outage(
        part=part,
        seconds=seconds,
        asked=dict(Counter(line.name for line in during)),
        failed=dict(Counter(line.name for line in during if line.error)),
        errors=dict(Counter(line.error for line in during if line.error)),
        longest_ms=max((1_000 * (line.ended - line.began) for line in during if not line.feed), default=0.0),
        recovery_seconds=fault["recovered"],
        verdict=outcome.verdict,
    )


def table(outages: Sequence[Outage]) -> str:
    """For a page, as Markdown."""
    rows = [
        "| away | callers saw, of what they asked | longest wait | all works again after | the checker |",
        "|---|---|---|---|---|",
    ]
    for each in outages:
        failed = [f"{count} of {each.asked[name]} {name}" for name, count in sorted(each.failed.items())]
        kinds = ", ".join(sorted(each.errors))
        saw = f"{kinds}: {', '.join(failed)}" if failed else "nothing"
        rows.append(
            f"| {each.part} | {saw} | {each.longest_ms / 1_000:.1f} s | {each.recovery_seconds:.1f} s |"
            f" {each.verdict.lower()} |"
        )
    return "\n".join(rows)
