"""Connections to a ClickHouse server."""

from typing import Final
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient

_CONNECT_TIMEOUT_SECONDS: Final = 2.0


def split_dsn(dsn: str) -> tuple[str, str]:
    """Split `http://user:password@host:port/database` into the address of the server and the name of the database.

    ClickHouse refuses connections that name a database which does not exist, so connections are opened without a name.
    """
    url = urlsplit(dsn)
    return url._replace(path="").geturl(), unquote(url.path.strip("/")) or "default"


async def open_client(server: str, statement_timeout_seconds: float) -> AsyncClient:
    """Return a connected client that names no database.

    Args:
        server: `http://user:password@host:port`.
        statement_timeout_seconds: time limit of one statement.

    Raises:
        DatabaseError, ClientError, OSError: ClickHouse does not respond or refuses the connection.
    """
    return await clickhouse_connect.get_async_client(
        dsn=server,
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        send_receive_timeout=statement_timeout_seconds,
        tz_mode="aware",
        autogenerate_session_id=False,  # a session would run only one query at a time
    )
