"""PostgreSQL servers with an empty ledger, for tests that stop, kill or restore the server."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from kit.db.migrations import upgrade
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.ports import free_ports


class LedgerServers:
    """Servers with durable commits. Each is a copy of one server, which has stopped.

    A copy takes less than half the time of a new cluster and the migrations. The copies have one system identifier.
    """

    def __init__(self, folder: Path, original: Postgres) -> None:
        """Use a migrated server that has stopped. The copies are stored in `folder`."""
        self._folder = folder
        self._original = original
        self._count = 0

    @classmethod
    @asynccontextmanager
    async def create(cls, folder: Path) -> AsyncIterator[Self]:
        """Migrate the original, and remove it at the end of the block."""
        async with Postgres(folder / "original", *free_ports(1), databases=("bank",)) as original:
            await asyncio.to_thread(upgrade, "subgraphs.bank.service.migrations", original.dsn("bank"))
        yield cls(folder, original)
        remove_cluster(folder / "original")

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Postgres]:
        """Yield a server that runs. It is removed at the end of the block."""
        self._count += 1
        home = self._folder / str(self._count)
        server = Postgres(home, *free_ports(1), databases=("bank",))
        server.cluster.passwords.update(self._original.cluster.passwords)
        copy = ("cp", "-a", str(self._original.cluster.data), str(server.cluster.data))
        await asyncio.to_thread(subprocess.run, copy, check=True)
        async with server:
            yield server
        remove_cluster(home)
