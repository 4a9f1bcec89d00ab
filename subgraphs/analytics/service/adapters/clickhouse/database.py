"""The connection to ClickHouse, and what its failures mean."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import structlog
from aiohttp import ClientError
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from subgraphs.analytics.service.adapters.clickhouse.table import COLUMNS, CREATE, columns_of
from subgraphs.analytics.service.domain.model import Row
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_WHAT: Final = "the operation history"
_SECONDS: Final = 10.0
"""The longest that any statement may take."""
_CONNECT_SECONDS: Final = 2.0
_LOST_SCHEMA: Final = {60, 81}  # UNKNOWN_TABLE, UNKNOWN_DATABASE


class Database:
    """The stored history's database. Connects, and creates what is missing, when first used.

    Every method raises Unavailable when ClickHouse does not answer in some seconds.
    """

    def __init__(self, dsn: str) -> None:
        """Args:
        dsn: `http://user:password@host:port/database`.
        """
        url = urlsplit(dsn)
        self._name = unquote(url.path.strip("/")) or "default"
        # The database may not be there yet, and a connection that names it could not create it.
        self._server = url._replace(path="").geturl()
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(cls, dsn: str) -> AsyncIterator["Database"]:
        """A database at an address; nothing is opened before it is used."""
        database = cls(dsn)
        try:
            yield database
        finally:
            await database._close()

    async def ping(self) -> None:
        """Returns when ClickHouse answers and the table is there."""
        await self.query("SELECT 1 FROM operations LIMIT 0", {})

    async def query(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows that a statement finds."""
        async with self._connected() as client:
            result = await client.query(statement, dict(parameters))
            return result.result_rows

    async def command(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Runs a statement that finds nothing, and returns when it is done."""
        async with self._connected() as client:
            await client.command(statement, dict(parameters))

    async def insert(self, rows: Sequence[Row]) -> None:
        """Stores rows. On return they are there to be read."""
        async with self._connected() as client:
            await client.insert(
                "operations",
                columns_of(rows),
                column_names=list(COLUMNS),
                column_type_names=list(COLUMNS.values()),
                column_oriented=True,
                settings={"async_insert": 0},
            )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncClient]:
        """A client with the table in place; what goes wrong with it, as Unavailable."""
        try:
            async with asyncio.timeout(_SECONDS):
                async with self._connecting:
                    if self._client is None:
                        self._client = await self._open()
                    client = self._client
                yield client
        except (DatabaseError, ClientError, OSError, TimeoutError) as error:
            if isinstance(error, DatabaseError) and error.code in _LOST_SCHEMA:
                await self._close()  # the store was replaced by an empty one: open, and create, anew
            log.warning("ClickHouse did not do it", error=f"{type(error).__name__}: {error}")
            raise Unavailable(_WHAT) from error

    async def _open(self) -> AsyncClient:
        client = await clickhouse_connect.get_async_client(
            dsn=self._server,
            connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=_SECONDS,
            tz_mode="aware",
            autogenerate_session_id=False,  # a session takes one query at a time
        )
        try:
            await client.command("CREATE DATABASE IF NOT EXISTS {name:Identifier}", {"name": self._name})
            client.database = self._name
            await client.command(CREATE)
        except BaseException:
            await client.close()
            raise
        return client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
