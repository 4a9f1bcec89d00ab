"""PgBouncer in front of a database."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from provisioning.certificates import CertificateFiles
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Command, Process
from tests.tools import skip_without_tool

CONFIGURATION = """
[databases]
* = host={host} port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 30
"""
TLS = """
client_tls_sslmode = require
client_tls_cert_file = {folder}/tls.pem
client_tls_key_file = {folder}/tls.key
"""


@asynccontextmanager
async def run_pgbouncer(
    url: str, mode: Literal["session", "transaction"], tls: CertificateFiles | None = None
) -> AsyncIterator[str]:
    """Run PgBouncer in front of a database's server, and yield the database's URL through PgBouncer.

    Args:
        url: URL of the database.
        mode: pool mode.
        tls: certificate of PgBouncer; then it refuses clients without TLS.
    """
    program = shutil.which("pgbouncer")
    if program is None:
        skip_without_tool("there is no pgbouncer")
    server, (port,) = urlsplit(url), free_ports(1)
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        file = Path(folder) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host=HOST, port=port, server_port=server.port, user=server.username, password=server.password, mode=mode
            )
        )
        if tls is not None:
            for source, name in ((tls.certificate, "tls.pem"), (tls.key, "tls.key")):
                copy = Path(folder) / name
                shutil.copyfile(source, copy)
                copy.chmod(0o644)
            file.write_text(file.read_text() + TLS.format(folder=folder))
        # The user `nobody` must be able to enter the folder.
        os.chmod(folder, 0o755)  # noqa: PTH101  ruff accepts no Path methods in async functions
        user = ["-u", "nobody"] if os.geteuid() == 0 else []  # PgBouncer refuses to run as root

        async def command() -> Command:
            return Command([program, *user, str(file)], {})

        async with Child(Process(name="pgbouncer", command=command, ready=probes.tcp(HOST, port))):
            yield url.replace(f":{server.port}/", f":{port}/")
