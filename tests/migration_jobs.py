"""Migration jobs of the services, run as processes, as an operator does."""

import asyncio
import json
import os
import sys
from typing import Any, Final

import asyncpg

from stack.process import ROOT

URL_PARAMETERS: Final = "sslmode=disable&application_name=named-by-the-url"
"""Parameters that every reader of a PostgreSQL URL must accept."""


async def migrate(service: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the migration job of a service; return its exit code and its log lines above level info.

    Any other output, such as a traceback, fails the test.
    """
    job = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"subgraphs.{service}.service.migrations",
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await job.communicate()
    lines = [json.loads(line) for line in output.decode().splitlines()]
    return job.returncode or 0, [line for line in lines if line["level"] != "info"]


async def count_named_sessions(url: str) -> int:
    """Return the number of sessions in a database that have the name in `URL_PARAMETERS`."""
    connection = await asyncpg.connect(url)
    try:
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'named-by-the-url'"
        )
        sessions: int = await connection.fetchval(query)
        return sessions
    finally:
        await connection.close()
