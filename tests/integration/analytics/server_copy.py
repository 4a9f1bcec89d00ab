"""Copies of a running PostgreSQL server: backups and standbys, each of which runs on its own port."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import asyncpg

from stack.engines.postgres import SETTINGS, Postgres
from stack.ports import free_ports
from stack.process import Child, Command, Process
from tests.waiting import until


class ServerCopy(Child):
    """A copy of a server's data folder. Take it with `take`, then run it as an asynchronous context manager."""

    def __init__(self, primary: Postgres, settings: Mapping[str, str] = SETTINGS) -> None:
        """Choose the port. The copy runs with these settings instead of those of the primary's command line."""
        self.port = free_ports(1)[0]
        self._primary = primary
        self._settings = dict(settings)
        process = Process(
            name="copy", command=self._command, ready=self._is_ready, stop_signal=primary.process.stop_signal
        )
        super().__init__(process)

    @property
    def data(self) -> Path:
        return self._primary.cluster.data.with_name(f"copy-{self.port}")

    def url(self, database: str) -> str:
        """Return the URL of a database of the copy."""
        return self._primary.dsn(database).replace(f":{self._primary.port}/", f":{self.port}/")

    async def take(self, *arguments: str) -> None:
        """Copy the data folder of the running primary with `pg_basebackup` and these arguments."""
        cluster = self._primary.cluster
        self.data.mkdir(mode=0o700)
        if cluster.user is not None and cluster.group is not None:
            os.chown(self.data, cluster.user, cluster.group)
        copy = (str(cluster.binaries / "pg_basebackup"), "-D", str(self.data), "-c", "fast", *arguments)
        await Child(Process(name="backup", command=self._as_its_user(*copy, "-d", self._primary.admin_dsn))).start()

    def recover_to(self, restore_point: str) -> None:
        """Make the copy, when it starts, replay the primary's WAL up to a restore point and then accept writes."""
        (self.data / "recovery.signal").touch()
        self._settings |= {
            "restore_command": f"cp {self._primary.cluster.data}/pg_wal/%f %p",
            "recovery_target_name": restore_point,
            "recovery_target_action": "promote",
        }

    async def _is_ready(self) -> bool:
        """Return whether the copy accepts connections and, unless it is a standby, has ended its recovery."""
        try:
            connection = await asyncpg.connect(self._admin_url, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        try:
            is_recovering: bool = await connection.fetchval("SELECT pg_is_in_recovery()")
        finally:
            await connection.close()
        return not is_recovering or (self.data / "standby.signal").exists()

    async def promote(self) -> None:
        """Wait until the standby has replayed all WAL of the running primary, then end the standby's recovery."""
        primary = await asyncpg.connect(self._primary.admin_dsn)
        standby = await asyncpg.connect(self._admin_url)
        try:
            written = await primary.fetchval("SELECT pg_current_wal_flush_lsn()")

            async def has_replayed() -> bool:
                has: bool = await standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", written)
                return has

            await until(has_replayed)
            await standby.execute("SELECT pg_promote()")
        finally:
            await primary.close()
            await standby.close()

    async def replace_database(self, name: str, statements: Sequence[str], dump: Path) -> None:
        """Replace a database of the running primary by this copy's database of the same name. The copy must run, too.

        Args:
            name: name of the database.
            statements: SQL that renames the primary's database and creates an empty one.
            dump: path at which the dump file is created.
        """
        binaries = self._primary.cluster.binaries
        await _run(binaries / "pg_dump", "--format=custom", f"--file={dump}", "-d", self._admin_url_of(name))
        primary = await asyncpg.connect(self._primary.admin_dsn)
        for statement in statements:
            await primary.execute(statement)
        await primary.close()
        target = self._primary.dsn("postgres", name)
        await _run(binaries / "pg_restore", "--exit-on-error", f"--dbname={target}", str(dump))

    def _admin_url_of(self, database: str) -> str:
        return self._primary.dsn("postgres", database).replace(f":{self._primary.port}/", f":{self.port}/")

    @property
    def _admin_url(self) -> str:
        return self._admin_url_of("postgres")

    async def _command(self) -> Command:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        postgres = str(self._primary.cluster.binaries / "postgres")
        return await self._as_its_user(postgres, "-D", str(self.data), "-p", str(self.port), *settings)()

    def _as_its_user(self, *argv: str) -> Callable[[], Awaitable[Command]]:
        async def command() -> Command:
            cluster = self._primary.cluster
            return Command(argv, {"PATH": os.defpath, "LC_ALL": "C"}, self.data, cluster.user, cluster.group)

        return command


async def _run(program: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(program, *arguments, env={"PATH": os.defpath, "LC_ALL": "C"})
    assert await process.wait() == 0, program
