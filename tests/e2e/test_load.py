"""Load test of a running system, with few users for a few seconds."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.history.storage import read_records
from loadtests.plan import STARTED, Plan
from loadtests.report import render_page
from loadtests.run import Verdict, run_load
from loadtests.sampling import read_samples
from loadtests.scenarios import NAMES
from loadtests.target import Target
from stack.system import System
from tests.waiting import until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.timeout(180)
async def test_open_loop_of_all_scenarios_in_two_processes_is_sound(system: System, tmp_path: Path) -> None:
    embedded = Target.embedded(system.ports, system.data)
    target = replace(embedded, data=None)  # without the stack's signing key, the load's customers register and log in
    plan = Plan(
        host=target.host,
        bank=target.bank,
        scenarios=NAMES,
        users=12,
        seconds=6,
        rate=40,
        account_selection="hot",
        processes=2,
    )

    outcome = await run_load(target, plan, 6, tmp_path)

    assert outcome.verdict == "SOUND", "\n".join(outcome.violations)
    names = {record.name for record in read_records(tmp_path)}
    assert names >= {"REST transfer", "GraphQL transfer", "gRPC transfer", "top-up", "balance", "operationAdded"}
    assert outcome.answered > 50
    for report in ("locust.html", "locust_stats.csv", "outcome.json", "samples.jsonl"):
        assert (tmp_path / report).stat().st_size
    last = read_samples(tmp_path)[-1].metrics
    assert last["commands"] >= last["batches"] > 0
    assert last.keys() >= {"backlog", "lag"}
    assert "Sound" in render_page(tmp_path)


def has_run_started(folder: Path) -> bool:
    return any(folder.glob(f"loadtests/reports/*/{STARTED}"))


@pytest.mark.timeout(180)
async def test_ctrl_c_ends_the_load_early_with_a_verdict(system: System, tmp_path: Path) -> None:
    async def has_started() -> bool:
        return has_run_started(tmp_path)

    target = Target.embedded(system.ports, system.data)
    place = ["--host", target.host, "--ledger", target.ledger]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests", *place, "--time", "600s", "--users", "2", "--customers", "4"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        # A shell starts background commands with SIGINT ignored, and their child processes inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    await until(has_started, within=60)
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    assert process.returncode == Verdict.SOUND
    assert b"sound: no violations" in output
