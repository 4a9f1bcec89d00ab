"""PostgreSQL as a child process: the embedded binaries on a loopback port.

By default commits are durable (fsync and synchronous_commit are on), so kill -9 loses no commit. Clients log in with a
SCRAM password over TCP; there is no Unix socket.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from stack.engines.cluster import Cluster, open_cluster, remove_cluster
from stack.ports import HOST, free_ports
from stack.process import Child, Command, OrphanReaper, Output, Process, StartError

ADMIN = "postgres"
DATABASES = ("bank", "card", "identity")  # each is owned by the role of the same name
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
# For temporary data: a crash of PostgreSQL loses the latest commits, a crash of the machine may corrupt the cluster.
VOLATILE_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres(Child):
    """PostgreSQL on `127.0.0.1:port`, with the database cluster in the folder `home`.

    It is ready when it accepts connections and all `databases` exist, each owned by the role of the same name.
    """

    def __init__(
        self,
        home: Path,
        port: int,
        *,
        databases: tuple[str, ...] = DATABASES,
        durable: bool = True,
        output: Output | None = None,
        reaper: OrphanReaper | None = None,
    ) -> None:
        """Choose the cluster's location and create its passwords if they are missing. Starts no process.

        With `durable` each commit is flushed to disk, as in production. Without it a kill loses the latest commits.
        """
        self.port = port
        self.databases = databases
        self.settings = SETTINGS if durable else SETTINGS | VOLATILE_SETTINGS
        self.cluster: Cluster = open_cluster(home, (ADMIN, *databases))
        process = Process(
            name="postgres",
            command=self._command,
            ready=self._ready,
            ports={"sql": port},
            stop_signal=signal.SIGINT,  # fast shutdown: sessions end, nothing is lost
        )
        super().__init__(process, output=output, reaper=reaper)

    @property
    def admin_dsn(self) -> str:
        """DSN of the superuser, on the database `postgres`."""
        return self.dsn(ADMIN, ADMIN)

    def dsn(self, role: str, database: str | None = None) -> str:
        """Return the DSN of `database` (default: the role's own) for `role`."""
        return f"postgresql://{role}:{self.cluster.passwords[role]}@{HOST}:{self.port}/{database or role}"

    async def _command(self) -> Command:
        cluster = self.cluster
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        if not cluster.data.exists():
            await _initdb(cluster, environment)
        await _wait_until_unused(cluster.data)
        settings = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        argv = (str(cluster.binaries / "postgres"), "-D", str(cluster.data), "-p", str(self.port), *settings)
        return Command(argv, environment, cluster.data, cluster.user, cluster.group)

    async def _ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self.admin_dsn, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            if Path(await connection.fetchval("SHOW data_directory")) != self.cluster.data:
                return False  # another PostgreSQL uses the port; this one will fail to bind
            for name in self.databases:
                await self._ensure_database(connection, name)
        finally:
            await connection.close()
        return True

    async def _ensure_database(self, connection: asyncpg.Connection, name: str) -> None:
        """Create the role and the database `name` if they are missing."""
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
            # DDL takes no parameters. The name is from the code, and a URL-safe password needs no quoting.
            await connection.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{self.cluster.passwords[name]}'")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')


@asynccontextmanager
async def temporary_postgres(*, durable: bool = True) -> AsyncIterator[Postgres]:
    """Run PostgreSQL on a free port with a new cluster that is deleted afterwards, for tests and benchmarks.

    Args:
        durable: flush each commit to disk, as in production. Benchmarks need it; most tests are faster without.
    """
    home = Path(tempfile.mkdtemp(prefix="wallet-"))
    try:
        async with Postgres(home, free_ports(1)[0], durable=durable) as postgres:
            yield postgres
    finally:
        remove_cluster(home)
        shutil.rmtree(home)


async def _initdb(cluster: Cluster, environment: dict[str, str]) -> None:
    """Create the cluster atomically: an interrupted attempt leaves no folder that looks complete."""
    unfinished, password = cluster.data.with_name("data.new"), cluster.data.with_name("password")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password.touch(mode=0o600)
    password.write_text(cluster.passwords[ADMIN])
    if cluster.user is not None and cluster.group is not None:
        os.chown(unfinished, cluster.user, cluster.group)
        os.chown(password, cluster.user, cluster.group)
    try:
        process = await asyncio.create_subprocess_exec(
            str(cluster.binaries / "initdb"),
            *("-D", str(unfinished), "-U", ADMIN, f"--pwfile={password}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *("--no-instructions", "--no-sync"),
            env=environment,
            cwd=unfinished,
            user=cluster.user,
            group=cluster.group,
            extra_groups=None if cluster.user is None else [],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    finally:
        password.unlink()
    if process.returncode != 0:
        raise StartError(f"initdb failed with {process.returncode}:\n{output.decode(errors='replace')}")
    unfinished.rename(cluster.data)


async def _wait_until_unused(data: Path, seconds: float = 10.0) -> None:
    """Wait until no process uses `data`, then remove a stale `postmaster.pid`, so that a start after kill -9 works.

    The backends of a killed postmaster end soon. Its `postmaster.pid` stays and prevents every start if another process
    gets the same pid.

    Raises:
        StartError: a process still uses the folder after `seconds`.
    """
    stale = data / "postmaster.pid"
    if sys.platform != "linux" or not stale.exists():
        return  # without /proc, PostgreSQL's own checks decide
    deadline = asyncio.get_running_loop().time() + seconds
    while pids := _processes_in(data):
        if asyncio.get_running_loop().time() > deadline:
            raise StartError(f"another PostgreSQL (process {pids[0]}) uses {data}; stop it first")
        await asyncio.sleep(0.05)
    stale.unlink()


def _processes_in(folder: Path) -> list[int]:
    """Return the pids of the processes that have this working directory.

    All processes of a PostgreSQL cluster have its data directory as their working directory.
    """
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                pids.append(int(entry.name))
    return pids
