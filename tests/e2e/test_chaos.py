"""The short form of the long tier: some faults on the whole system under load, recovered from, and a true history."""

from pathlib import Path

import pytest

from loadtests import watch
from loadtests.faults.schedule import trial
from loadtests.faults.system import Fragile
from loadtests.plan import Plan
from stack.engines.cluster import remove_cluster

pytestmark = pytest.mark.slow

QUICK = (
    "kill bank",
    "kill gateway",
    "cut off postgres",
    "stall bank",
    "freeze bank-2",
    "show tokens of a skewed clock",
)


async def test_some_faults_under_load_leave_a_true_history_and_a_system_that_works(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    async with Fragile.running(data) as fragile:
        plan = Plan(host=fragile.target.host, bank=fragile.target.bank, users=4)
        done = await trial(fragile, folder, seed=1, cycles=4, plan=plan, accounts=10, only=lambda name: name in QUICK)
    remove_cluster(data)
    assert done.outcome.verdict == "SOUND", "\n".join(done.outcome.violations)
    assert done.outcome.answered > 20
    assert {"bank", "bank-2", "gateway", "postgres"} <= watch.read(folder)[-1].memory.keys()
    print(done)  # noqa: T201  shown when the test fails
