"""A service that starts as a fork (`tests/forks`) behaves as one that starts with `python -m`."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace

import pytest

from stack.ports import HOST
from stack.process import Child, Command, Process, StartError, module
from tests.forks.server import Fork
from tests.forks.service import SERVICES

NO_SETTINGS = {"PATH": os.defpath}


async def fail_to_start(command: Command) -> tuple[str, list[str]]:
    """Start a process that fails, and return the error and its output."""

    async def failing() -> Command:
        return command

    child = Child(Process(name="service", command=failing))
    with pytest.raises(StartError) as caught:
        await child.start()
    return str(caught.value), list(child.last_lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["subgraphs.bank.service", "subgraphs.identity.service.migrations", "gateway"])
async def test_fork_without_settings_fails_as_the_service_does(name: str) -> None:
    assert name in SERVICES
    fork = replace(await module(name)(), environment=NO_SETTINGS)
    service = replace(fork, argv=(sys.executable, "-u", "-m", name))
    failure = await fail_to_start(fork)
    assert "the settings are wrong" in failure[0]
    assert failure == await fail_to_start(service)


@pytest.mark.skipif("coverage" in sys.modules, reason="a measurement of coverage uses no forks")
async def test_fork_leads_its_session_and_is_ended_by_a_signal() -> None:
    with socket.create_server((HOST, 0)) as silent:
        silent.setblocking(False)
        url = f"postgresql://bank:password@{HOST}:{silent.getsockname()[1]}/bank"
        migrations = module("subgraphs.bank.service.migrations", BANK_DATABASE_URL=url)
        child = Child(Process(name="service", command=migrations))
        await child.spawn()
        assert isinstance(child._running, Fork)
        assert child.pid
        assert os.getsid(child.pid) == child.pid
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)  # the service waits for a response
        with connection:
            child.kill()
            assert await child.wait() == -signal.SIGKILL
    assert child.pid is None
