"""Fault schedule: faults under load, one after the other, in an order that a seed decides."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtests.console import print_progress
from loadtests.faults.actions import Fault, FaultActions
from loadtests.faults.recovery import RecoveryProbe
from loadtests.faults.system import SystemUnderTest
from loadtests.plan import Plan
from loadtests.run import Outcome, run_load

_RECOVERY_TIMEOUT_SECONDS: Final = 90.0
_MAX_CYCLE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRun:
    """Result of a fault schedule.

    Attributes:
        seed: the same seed gives the same faults in the same order, and the same choices of the users; the timing
            depends on the machine.
        cycles: number of faults, each followed by an automatic recovery.
        slowest: longest recovery in seconds, and its fault.
        outcome: result of the load, with the verdict of the history checker.
    """

    seed: int
    cycles: int
    slowest: tuple[float, str]
    outcome: Outcome

    def __str__(self) -> str:
        seconds, name = self.slowest
        return (
            f"seed {self.seed}: {self.cycles} cycles, {len(self.outcome.violations)} violations; "
            f"slowest recovery {seconds:.1f} s, after {name}; {self.outcome}"
        )


def order_faults(names: Sequence[str], seed: int) -> Iterator[str]:
    """Yield fault names without end: first each name once, then random ones."""
    rng = random.Random(seed)  # noqa: S311  reproducible, no secret
    yield from rng.sample(sorted(names), len(names))
    while True:
        yield rng.choice(sorted(names))


async def run_faults(
    system: SystemUnderTest,
    folder: Path,
    *,
    seed: int,
    cycles: int,
    plan: Plan,
    accounts: int,
    include: Callable[[str], bool] = lambda name: True,  # noqa: ARG005
) -> FaultRun:
    """Inject faults under load, and check the responses.

    Args:
        system: system under test.
        folder: empty folder for all results of the run.
        seed: decides the order of the faults, and the random choices of the users.
        cycles: number of faults.
        plan: plan of the load, which lasts as long as the faults.
        accounts: number of customers.
        include: selects faults by name.

    Raises:
        NotRecoveredError: the system did not recover on its own.
        WrongBehaviourError: the system did something that it must never do.
    """
    rng = random.Random(seed)  # noqa: S311  reproducible, no secret
    faults = {name: fault for name, fault in FaultActions(system, rng).by_name().items() if include(name)}
    names = order_faults(list(faults), seed)
    recoveries: list[tuple[float, str]] = [(0.0, "nothing")]

    async def inject() -> Sequence[Mapping[str, Any]]:
        injected = []
        async with RecoveryProbe(system.target) as probe:
            for number in range(cycles):
                name = next(names)
                await asyncio.sleep(rng.uniform(0.1, 0.6))
                times = await _inject_fault(faults[name], probe)
                injected.append({"name": name, **times})
                recoveries.append((times["recovered"], name))
                print_progress(f"   {number + 1}/{cycles} {name}: recovered after {times['recovered']:.1f} s")
        return injected

    longest = replace(plan, seconds=cycles * _MAX_CYCLE_SECONDS, seed=seed)
    outcome = await run_load(system.target, longest, accounts, folder, inject)
    return FaultRun(seed=seed, cycles=cycles, slowest=max(recoveries), outcome=outcome)


async def _inject_fault(fault: Fault, probe: RecoveryProbe) -> dict[str, float]:
    """Inject a fault, wait for the recovery, and return the fault's start and end, and the recovery time in seconds."""
    began = time.monotonic()
    await fault()
    ended = time.monotonic()
    recovered = await probe.wait_until_recovered(_RECOVERY_TIMEOUT_SECONDS)
    return {"began": began, "ended": ended, "recovered": recovered}
