from collections.abc import AsyncIterator

import pytest

from stack.ports import free_ports
from tests.integration.sandbox.running import Listener, Merchant, running


@pytest.fixture(scope="session")
async def merchant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Merchant]:
    """A merchant of a sandbox that most tests share. Its silences last longer than any test."""
    folder = tmp_path_factory.mktemp("sandbox")
    async with running(folder, sandbox_timeout_seconds=60, sandbox_late_seconds=0.5) as merchant:
        yield merchant


@pytest.fixture
def listener() -> Listener:
    """A listener for webhooks, that does not listen yet."""
    (port,) = free_ports(1)
    return Listener(port)
