"""Fuzzing of the whole system with schemathesis: REST responses match the contract, GraphQL has no internal errors."""

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

CONFIG = Path(__file__).with_name("schemathesis.toml")

REPLACED_CHECK = "positive_data_acceptance"  # `fuzz_hooks.valid_request_is_accepted` runs it

callers = pytest.mark.parametrize(
    "caller", [None, Role.CUSTOMER, Role.OPERATOR, Role.ADMIN], ids=lambda caller: caller or "anonymous"
)


async def run_schemathesis(contract: str, url: str, token: str | None, folder: Path, *options: str) -> str:
    """Run schemathesis, check that it found nothing, and return its output."""
    identity = () if token is None else ("--header", f"Authorization: Bearer {token}")
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)),
        *("run", str(ROOT / contract), "--url", url, *identity),
        *("--seed", "1", "--no-color", "--generation-database", "none", "--request-timeout", "15", *options),
    )
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.fuzz_hooks", "PYTHONPATH": str(ROOT)}
    # The command runs in another thread, because this thread's event loop reads the output of the system.
    result = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,  # schemathesis writes its findings here
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@callers
async def test_rest_responses_match_the_contract(
    caller: Role | None,
    system: System,
    sign_token: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = None if caller is None else sign_token(CUSTOMERS["alice"].user, caller)
    monkeypatch.setenv("FUZZ_CALLER", caller or "")
    output = await run_schemathesis(
        *("openapi/openapi.yaml", system.url, token, tmp_path, "--max-examples", "5"),
        # Wrong passwords lock a user, and schemathesis waits for Retry-After; `test_users.py` tests these routes.
        *("--exclude-checks", REPLACED_CHECK, "--exclude-path-regex", "^/auth/"),
    )
    assert "Stateful" in output


@callers
async def test_graphql_has_no_internal_errors(
    caller: Role | None, system: System, sign_token: Callable[..., str], tmp_path: Path
) -> None:
    token = None if caller is None else sign_token(CUSTOMERS["alice"].user, caller)
    # Schemathesis' own checks treat every GraphQL error as a defect; refusals are expected here.
    await run_schemathesis(
        *("gateway/schema.graphql", f"{system.url}/graphql", token, tmp_path, "--max-examples", "10"),
        *("--checks", "no_internal_error"),
    )
