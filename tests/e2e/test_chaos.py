"""Short form of `tests/faults/test_whole_system.py`: a few faults under load, recovery, and a correct history."""

from pathlib import Path

import pytest

from loadtests.faults.schedule import run_faults
from loadtests.faults.system import SystemUnderTest
from loadtests.plan import Plan
from loadtests.sampling import read_samples
from stack.engines.cluster import remove_cluster

pytestmark = pytest.mark.slow

FAULTS = (
    "kill bank",
    "kill gateway",
    "disconnect postgres",
    "stall bank",
    "freeze bank-2",
    "send tokens of a skewed clock",
)


async def test_system_recovers_from_faults_under_load_with_a_sound_history(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    async with SystemUnderTest.running(data) as system:
        plan = Plan(host=system.target.host, bank=system.target.bank, users=4)
        result = await run_faults(
            system, folder, seed=1, cycles=4, plan=plan, accounts=10, include=lambda name: name in FAULTS
        )
    remove_cluster(data)
    assert result.outcome.verdict == "SOUND", "\n".join(result.outcome.violations)
    assert result.outcome.answered > 20
    assert {"bank", "bank-2", "gateway", "postgres"} <= read_samples(folder)[-1].memory.keys()
    print(result)  # noqa: T201  shown when the test fails
