"""Fixtures of the fault tests.

`FAULTS_SECONDS` is the duration of each run of `test_ledger_history.py`. `FAULTS_SEED` repeats the random choices of a
run.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from kit.db.migrations import upgrade
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.ports import free_ports
from stack.process import Child, Process, module
from tests.waiting import until

SECONDS = float(os.environ.get("FAULTS_SECONDS", "20"))


class KeptPostgres:
    """PostgreSQL with an empty ledger. A keeper process restarts the server whenever the server ends."""

    def __init__(self, home: Path) -> None:
        (port,) = free_ports(1)
        self._postgres = Postgres(home, port, databases=("bank",))  # not started; provides the folder and the passwords
        keeper = module("tests.faults.keeper", str(home), str(port))
        self.keeper = Child(Process(name="keeper", command=keeper, ready=self.is_ready))

    @property
    def url(self) -> str:
        return self._postgres.dsn("bank")

    async def kill_postgres(self) -> None:
        """Kill PostgreSQL with SIGKILL and wait until it is ready again."""
        pid = int((self._postgres.cluster.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        await until(lambda: self._has_restarted_since(pid), within=30)

    async def is_ready(self) -> bool:
        try:
            await (await asyncpg.connect(self.url, timeout=2)).close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    async def _has_restarted_since(self, pid: int) -> bool:
        try:
            now = (self._postgres.cluster.data / "postmaster.pid").read_text().split()[0]
        except (FileNotFoundError, IndexError):
            return False
        return int(now) != pid and await self.is_ready()


@pytest.fixture
async def kept_postgres(tmp_path: Path) -> AsyncIterator[KeptPostgres]:
    home = tmp_path / "postgres"
    kept = KeptPostgres(home)
    async with kept.keeper:
        await asyncio.to_thread(upgrade, "subgraphs.bank.service.migrations", kept.url)
        yield kept
    remove_cluster(home)


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("FAULTS_SEED", random.randrange(10**6)))


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that prints a line about a run, even if pytest captures output."""

    def report(line: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {line}")  # noqa: T201

    return report
