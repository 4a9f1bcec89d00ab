"""Faults and outages of the whole system under load, with a check of the history.

The faults run on the embedded broker and on Apache Kafka, the outages on the embedded broker only.
`FAULTS_CYCLES` is the number of faults per broker, `FAULTS_OUTAGE_SECONDS` the duration of each outage.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from loadtests.faults.outages import COMPONENTS, Outage, outages_to_markdown, run_outage
from loadtests.faults.schedule import run_faults
from loadtests.faults.system import SystemUnderTest
from loadtests.plan import Plan
from loadtests.run import REPORTS, create_report_folder
from stack.engines.apache_kafka import POM
from stack.engines.cluster import remove_cluster
from stack.engines.jars import JarsUnavailable, fetch_jars
from stack.ports import Ports
from stack.system import System, run_system
from tests.e2e.plans import full_system_with, no_rate_limits
from tests.tools import skip_without_tool

CYCLES = int(os.environ.get("FAULTS_CYCLES", "30"))
OUTAGE_SECONDS = float(os.environ.get("FAULTS_OUTAGE_SECONDS", "20"))

Report = Callable[[str], None]


@pytest.mark.faults
@pytest.mark.timeout(240 + 30 * CYCLES)
class TestFaults:
    @pytest.mark.parametrize("is_apache", [False, True], ids=["the embedded broker", "Apache Kafka"])
    async def test_system_recovers_from_all_faults_with_a_sound_history(
        self, tmp_path: Path, seed: int, report: Report, is_apache: bool
    ) -> None:
        jars = None
        if is_apache:
            try:
                jars = fetch_jars(POM)
            except JarsUnavailable as error:
                skip_without_tool(f"there is no Apache Kafka: {error}")
        data, folder = tmp_path / "data", create_report_folder(f"faults-{seed}")
        print(f"seed {seed}")  # noqa: T201  shown when the test fails
        async with SystemUnderTest.running(data, jars) as system:
            plan = Plan(
                host=system.target.host,
                bank=system.target.bank,
                scenarios=("rest", "graphql", "batches", "reads", "topups", "subscribers"),
                users=10,
                rate=25,
            )
            result = await run_faults(system, folder, seed=seed, cycles=CYCLES, plan=plan, accounts=20)
        remove_cluster(data)
        report(str(result))
        assert result.outcome.verdict == "SOUND", "\n".join(result.outcome.violations[:20])


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    data = tmp_path_factory.mktemp("outages")
    settings = no_rate_limits("LOGIN")  # the recovery probe logs in often
    async with run_system(Ports.free(), data, planner=full_system_with(settings)) as system:
        yield system
    remove_cluster(data)


@pytest.fixture(scope="module")
def outages() -> Iterator[list[Outage]]:
    """Collect the outages of all tests, and write a table for `docs/reference/resilience.md` to the reports folder."""
    outages: list[Outage] = []
    yield outages
    (REPORTS / "outages.jsonl").write_bytes(b"".join(orjson.dumps(asdict(each)) + b"\n" for each in outages))
    (REPORTS / "outages.md").write_text(outages_to_markdown(outages) + "\n")


@pytest.mark.faults
@pytest.mark.timeout(300 + OUTAGE_SECONDS)
class TestOutages:
    @pytest.mark.parametrize("component", COMPONENTS)
    async def test_system_recovers_from_outage_with_a_sound_history(
        self, system: System, outages: list[Outage], report: Report, component: str
    ) -> None:
        plan = Plan(
            host=f"http://127.0.0.1:{system.ports.gateway}",
            bank=f"127.0.0.1:{system.ports.bank_grpc}",
            scenarios=("rest", "graphql", "batches", "reads", "topups", "subscribers"),
            users=15,
            rate=25,
        )
        folder = create_report_folder(f"{component}-outage")
        result = await run_outage(system, component, folder, seconds=OUTAGE_SECONDS, plan=plan, accounts=20)
        outages.append(result)
        report(outages_to_markdown([result]).splitlines()[-1])
        assert result.verdict == "SOUND"
