"""Load as people start it, with few users for few seconds, on a system that runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadtests import watch
from loadtests.history import log
from loadtests.plan import Plan
from loadtests.report import page
from loadtests.run import run
from loadtests.scenarios import NAMES
from loadtests.target import Target
from stack.system import System

pytestmark = pytest.mark.slow


@pytest.mark.timeout(180)
async def test_of_every_scenario_by_two_processes_in_an_open_loop_is_judged_sound(
    system: System, tmp_path: Path
) -> None:
    embedded = Target.embedded(system.ports, system.data)
    target = replace(embedded, data=None)  # as elsewhere: nobody signs for the customers, who sign up and in
    plan = Plan(
        host=target.host, bank=target.bank, scenarios=NAMES, users=12, seconds=6, rate=40, choice="hot", processes=2
    )

    outcome = await run(target, plan, 6, tmp_path)

    assert outcome.verdict == "SOUND", "\n".join(outcome.violations)
    names = {line.name for line in log.read(tmp_path)}
    assert names >= {"REST transfer", "GraphQL transfer", "gRPC transfer", "top-up", "balance", "operationAdded"}
    assert outcome.answered > 50
    for report in ("locust.html", "locust_stats.csv", "outcome.json", "samples.jsonl"):
        assert (tmp_path / report).stat().st_size
    assert watch.read(tmp_path)[-1].metrics.keys() >= {"commands", "batches", "backlog", "lag"}
    assert "Sound" in page(tmp_path)
