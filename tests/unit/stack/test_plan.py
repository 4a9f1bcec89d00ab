"""Plan of the local system: the broker that the user chooses."""

from pathlib import Path

import pytest

from stack.engines.postgres import Postgres
from stack.plan import build_plan
from stack.ports import Ports
from stack.process import Process


def plan_with(folder: Path, jars: Path | None) -> dict[str, Process]:
    ports = Ports()
    return {each.name: each for each in build_plan(ports, folder, Postgres(folder, ports.postgres), kafka_jars=jars)}


@pytest.mark.parametrize(
    ("jars", "uses", "restart_with"),
    [(None, ["broker"], ("kafka",)), (Path("jars"), ["broker", "controller"], ())],
    ids=["embedded", "Apache"],
)
def test_broker_is_the_chosen_one_on_the_same_port(
    tmp_path: Path, jars: Path | None, uses: list[str], restart_with: tuple[str, ...]
) -> None:
    plan = plan_with(tmp_path, jars)
    assert list(plan["kafka"].ports) == uses
    assert plan["kafka"].ports["broker"] == Ports().kafka
    # A consumer group does not outlive the embedded broker, so analytics restarts with it.
    assert plan["analytics"].restart_with == restart_with
