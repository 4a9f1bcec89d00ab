"""A public gRPC tool finds the services by server reflection, in both versions, and calls one: `buf curl`."""

import asyncio
import json
import subprocess

import pytest

from stack.system import System
from tests.e2e.users import User
from tests.node import NODE_MODULES
from tests.tools import skip_without_tool

pytestmark = pytest.mark.slow


async def buf_curl(*arguments: str) -> str:
    """Run `buf curl`, and return what it prints."""
    buf = NODE_MODULES / ".bin" / "buf"
    if not buf.exists():
        skip_without_tool("there is no buf")
    command = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
async def test_tool_lists_the_services_and_calls_one(system: System, alice: User, version: str) -> None:
    url, reflection = f"http://127.0.0.1:{system.ports.bank_grpc}", ("--reflect-protocol", version)
    listed = (await buf_curl(*reflection, "--list-services", url)).split()
    assert {"wallet.bank.v1.BankService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= {*listed}
    call = (*reflection, "--header", f"authorization: Bearer {alice.token}")
    method = f"{url}/wallet.bank.v1.BankService/GetBalance"
    balance = json.loads(await buf_curl(*call, "--data", json.dumps({"accountId": alice.account}), method))
    assert balance["balance"] == {"currencyCode": "RUB", "units": "1000"}
    assert "account_id: must be a UUID" in await buf_curl(*call, "--data", '{"accountId": "42"}', method)
