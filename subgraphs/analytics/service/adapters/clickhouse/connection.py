"""Connections to a ClickHouse server."""

from typing import Final

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient

from kit.runtime.server_urls import parse_clickhouse_url

_CONNECT_TIMEOUT_SECONDS: Final = 2.0


def database_name(dsn: str) -> str:
    """Return the name of the database in `http://user:password@host:port/database`."""
    return parse_clickhouse_url(dsn).path or "default"


async def open_client(dsn: str, statement_timeout_seconds: float) -> AsyncClient:
    """Return a connected client that names no database.

    ClickHouse refuses connections that name a database which does not exist, so the name in the DSN is not used.

    Args:
        dsn: `http://user:password@host:port/database`, as `parse_clickhouse_url` accepts it.
        statement_timeout_seconds: time limit of one statement.

    Raises:
        DatabaseError, ClientError, OSError: ClickHouse does not respond or refuses the connection.
    """
    url = parse_clickhouse_url(dsn)
    ((host, port),) = url.hosts
    return await clickhouse_connect.get_async_client(
        interface=url.scheme,  # clickhouse-connect ignores the scheme of a DSN
        host=host,
        port=port,
        username=url.user or None,
        password=url.password,
        ca_cert=url.parameters.get("ca_cert"),
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        send_receive_timeout=statement_timeout_seconds,
        tz_mode="aware",
        autogenerate_session_id=False,  # a session would run only one query at a time
    )
