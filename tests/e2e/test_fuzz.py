"""schemathesis, which nobody here wrote, at the whole system: no answer that the contracts do not document."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.auth.principal import Role
from provisioning.seed import CUSTOMERS
from stack.process import ROOT
from stack.system import System

pytestmark = pytest.mark.slow

NOT_ASKED = "positive_data_acceptance"  # what the schema allows, an account that holds less does not

callers = pytest.mark.parametrize(
    "caller", [None, Role.CUSTOMER, Role.OPERATOR, Role.ADMIN], ids=lambda caller: caller or "nobody"
)


async def judged(contract: str, url: str, token: str | None, folder: Path, *options: str) -> str:
    """What it says, after it found nothing."""
    identity = () if token is None else ("--header", f"Authorization: Bearer {token}")
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "run", str(ROOT / contract), "--url", url, *identity),
        *("--seed", "1", "--no-color", "--generation-database", "none", "--request-timeout", "15", *options),
    )
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.fuzz_hooks", "PYTHONPATH": str(ROOT)}
    # Not in this thread, whose loop reads what the system has to say.
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,  # where it leaves what it found
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@callers
async def test_rest_answers_as_its_contract_says(
    caller: Role | None, system: System, token_of: Callable[..., str], tmp_path: Path
) -> None:
    token = None if caller is None else token_of(CUSTOMERS["alice"].user, caller)
    told = await judged(
        *("openapi/openapi.yaml", system.url, token, tmp_path, "--max-examples", "5"),
        # Wrong passwords lock a name, and schemathesis waits for as long as it is told: `test_users.py` is for these.
        *("--exclude-checks", NOT_ASKED, "--exclude-path-regex", "^/auth/"),
    )
    assert "Stateful" in told


@callers
async def test_the_graph_has_an_answer_to_everything(
    caller: Role | None, system: System, token_of: Callable[..., str], tmp_path: Path
) -> None:
    token = None if caller is None else token_of(CUSTOMERS["alice"].user, caller)
    # Not its own checks: to them any error of the graph is a defect, and being refused is an answer.
    await judged(
        *("gateway/schema.graphql", f"{system.url}/graphql", token, tmp_path, "--max-examples", "10"),
        *("--checks", "nothing_unexpected"),
    )
