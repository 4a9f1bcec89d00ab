"""The whole system under load, on the embedded broker and on Apache Kafka: everything broken in every way, many times,
and each part away for a while. What everybody was told is judged.

`FAULTS_CYCLES` is how often something is broken on each, `FAULTS_OUTAGE_SECONDS` how long each part is away.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from loadtests.faults.outages import PARTS, Outage, outage, table
from loadtests.faults.schedule import trial
from loadtests.faults.system import Fragile
from loadtests.plan import Plan
from loadtests.run import REPORTS, new_folder
from loadtests.target import NO_RATE_LIMIT
from stack.engines.apache_kafka import ApacheKafka, ApacheKafkaUnavailable, fetch_jars
from stack.engines.cluster import remove_cluster
from stack.ports import Ports, free_ports
from stack.process import Process
from stack.system import System, run_system
from tests.tools import lacking

CYCLES = int(os.environ.get("FAULTS_CYCLES", "30"))
OUTAGE_SECONDS = float(os.environ.get("FAULTS_OUTAGE_SECONDS", "20"))

Tell = Callable[[str], None]


def apache(ports: Ports, data: Path) -> Process:
    """Apache Kafka in the place of the embedded broker."""
    return ApacheKafka(fetch_jars(), data, ports.kafka, *free_ports(1)).process


@pytest.mark.faults
@pytest.mark.timeout(240 + 30 * CYCLES)
class TestFaults:
    @pytest.mark.parametrize("broker", [None, apache], ids=["the embedded broker", "Apache Kafka"])
    async def test_in_any_order_leave_a_true_history_and_a_system_that_works(
        self, tmp_path: Path, seed: int, tell: Tell, broker: Callable[[Ports, Path], Process] | None
    ) -> None:
        if broker:
            try:
                fetch_jars()
            except ApacheKafkaUnavailable as error:
                lacking(f"there is no Apache Kafka: {error}")
        data, folder = tmp_path / "data", new_folder(f"faults-{seed}")
        print(f"seed {seed}")  # noqa: T201  shown when the test fails
        async with Fragile.running(data, broker) as fragile:
            plan = Plan(
                host=fragile.target.host,
                bank=fragile.target.bank,
                scenarios=("rest", "graphql", "reads", "topups", "subscribers"),
                users=10,
                rate=25,
            )
            done = await trial(fragile, folder, seed=seed, cycles=CYCLES, plan=plan, accounts=20)
        remove_cluster(data)
        tell(str(done))
        assert done.outcome.verdict == "SOUND", "\n".join(done.outcome.violations[:20])


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    data = tmp_path_factory.mktemp("outages")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GATEWAY_RATE_SIGN_IN", NO_RATE_LIMIT)  # who looks whether it works again asks often
        async with run_system(Ports.free(), data) as system:
            yield system
    remove_cluster(data)


@pytest.fixture(scope="module")
def outages() -> Iterator[list[Outage]]:
    """All of them; at the end a table in the reports' folder, for `docs/reference/resilience.md`."""
    outages: list[Outage] = []
    yield outages
    (REPORTS / "outages.jsonl").write_bytes(b"".join(orjson.dumps(asdict(each)) + b"\n" for each in outages))
    (REPORTS / "outages.md").write_text(table(outages) + "\n")


@pytest.mark.faults
@pytest.mark.timeout(300 + OUTAGE_SECONDS)
class TestOutages:
    @pytest.mark.parametrize("part", PARTS)
    async def test_end_by_themselves_and_leave_a_true_history(
        self, system: System, outages: list[Outage], tell: Tell, part: str
    ) -> None:
        plan = Plan(
            host=f"http://127.0.0.1:{system.ports.gateway}",
            bank=f"127.0.0.1:{system.ports.bank_grpc}",
            scenarios=("rest", "graphql", "reads", "topups", "subscribers"),
            users=15,
            rate=25,
        )
        lost = await outage(system, part, new_folder(f"{part}-away"), seconds=OUTAGE_SECONDS, plan=plan, accounts=20)
        outages.append(lost)
        tell(table([lost]).splitlines()[-1])
        assert lost.verdict == "SOUND"
