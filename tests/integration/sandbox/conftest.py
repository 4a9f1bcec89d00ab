from collections.abc import AsyncIterator

import pytest

from stack.ports import free_ports
from tests.integration.sandbox.running import Listener, Merchant, running


@pytest.fixture(scope="session")
async def merchant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Merchant]:
    """HTTP client of a sandbox that tests share. The simulated time-outs last longer than any test."""
    folder = tmp_path_factory.mktemp("sandbox")
    async with running(folder, sandbox_timeout_seconds=60, sandbox_late_seconds=1) as merchant:
        yield merchant


@pytest.fixture
def listener() -> Listener:
    """Webhook listener that does not listen yet."""
    (port,) = free_ports(1)
    return Listener(port)
