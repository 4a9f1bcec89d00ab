"""One fault after the other, in an order that a seed decides, while there is load; each is over before the next."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtests.console import print_progress
from loadtests.faults.actions import Actions, Fault
from loadtests.faults.canary import Canary
from loadtests.faults.system import Fragile
from loadtests.plan import Plan
from loadtests.run import Outcome, run

_PATIENCE_SECONDS: Final = 90.0
_CYCLE_SECONDS: Final = 120.0  # at the very most


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of a schedule.

    Attributes:
        seed: the same one makes the same faults in the same order; the timing is the machine's.
        cycles: how many faults there were, each recovered from without a person.
        slowest: the longest time until all worked again, and after what.
        outcome: of the load, with the checker's verdict.
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


def order(names: Sequence[str], seed: int) -> Iterator[str]:
    """Faults without an end, with each of them among the first."""
    chance = random.Random(seed)  # noqa: S311  to be repeatable
    yield from chance.sample(sorted(names), len(names))
    while True:
        yield chance.choice(sorted(names))


async def trial(
    fragile: Fragile,
    folder: Path,
    *,
    seed: int,
    cycles: int,
    plan: Plan,
    accounts: int,
    only: Callable[[str], bool] = lambda name: True,  # noqa: ARG005
) -> Trial:
    """So many faults under load, and the checker's verdict on what everybody was told meanwhile.

    Args:
        fragile: the system.
        folder: an empty one, for all that is known of the run.
        seed: decides what is done in which order.
        cycles: how many faults.
        plan: the load. It lasts as long as the faults do.
        accounts: how many customers there are.
        only: which of the faults there are to be, by name.

    Raises:
        NotBackError: something did not come back by itself.
        WrongError: the system did what it must not.
    """
    chance = random.Random(seed)  # noqa: S311  to be repeatable
    faults = {name: fault for name, fault in Actions(fragile, chance).by_name().items() if only(name)}
    names = order(list(faults), seed)
    slowest: list[tuple[float, str]] = [(0.0, "nothing")]

    async def beside() -> Sequence[Mapping[str, Any]]:
        done = []
        async with Canary(fragile.target) as canary:
            for number in range(cycles):
                name = next(names)
                await asyncio.sleep(chance.uniform(0.1, 0.6))
                times = await _one(faults[name], canary)
                done.append({"name": name, **times})
                slowest.append((times["recovered"], name))
                print_progress(f"   {number + 1}/{cycles} {name}: all works again after {times['recovered']:.1f} s")
        return done

    longest = replace(plan, seconds=cycles * _CYCLE_SECONDS)
    outcome = await run(fragile.target, longest, accounts, folder, beside)
    return Trial(seed=seed, cycles=cycles, slowest=max(slowest), outcome=outcome)


async def _one(fault: Fault, canary: Canary) -> dict[str, float]:
    """When it was broken, when it was let go of, and how many seconds later all worked again."""
    began = time.monotonic()
    await fault()
    ended = time.monotonic()
    return {"began": began, "ended": ended, "recovered": await canary.until_well(_PATIENCE_SECONDS)}
