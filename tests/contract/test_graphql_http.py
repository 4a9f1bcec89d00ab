"""The audits of graphql-http pass against the gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from tests.conftest import AUDIENCE, USERS, Keys
from tests.node import script_command

AUDITS = 61


@pytest.fixture(scope="module", params=["true", "false"], ids=["compiled", "graphql-core"])
async def url(
    keys: Keys, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """URL of a gateway without services, with each engine: the audits need neither a service nor a token."""
    jwks = tmp_path_factory.mktemp("gateway") / "users.json"
    jwks.write_text(keys.jwks(USERS))
    port, admin_port = free_ports(2)
    gateway = module(
        "gateway",
        AUTH_ISSUER=USERS,
        AUTH_AUDIENCE=AUDIENCE,
        AUTH_JWKS=str(jwks),
        GATEWAY_LISTEN=f"{HOST}:{port}",
        GATEWAY_ADMIN_LISTEN=f"{HOST}:{admin_port}",
        GATEWAY_GRAPHQL_COMPILED=request.param,
    )
    ready = probes.http(f"http://{HOST}:{port}/health/ready")
    async with Child(Process(name="gateway", command=gateway, ready=ready)):
        yield f"http://{HOST}:{port}/graphql"


@pytest.fixture(scope="module")
async def audits(url: str) -> list[dict[str, Any]]:
    """The audits with their results."""
    audit = script_command("graphql-http.mjs", url, package="graphql-http")
    process = await asyncio.create_subprocess_exec(*audit, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    results: list[dict[str, Any]] = json.loads(output)
    return results


@pytest.mark.slow
class TestAudits:
    def test_all_audits_run(self, audits: list[dict[str, Any]]) -> None:
        assert len({audit["id"] for audit in audits}) == AUDITS

    def test_all_audits_pass(self, audits: list[dict[str, Any]]) -> None:
        assert [audit for audit in audits if audit["status"] != "ok"] == []
