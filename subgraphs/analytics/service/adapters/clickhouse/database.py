"""Connection to the history's database."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import ClientError
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from subgraphs.analytics.service.adapters.clickhouse.connection import database_name, open_client
from subgraphs.analytics.service.adapters.clickhouse.table import COLUMNS, columns_from_rows
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.migrations.schema import (
    SchemaMismatch,
    SchemaMissing,
    upgrade_schema,
    verify_schema,
)
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_RESOURCE: Final = "the operation history"
_STATEMENT_TIMEOUT_SECONDS: Final = 10.0
_SCHEMA_ERRORS: Final = {16, 47, 60, 81}
"""NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_IDENTIFIER, UNKNOWN_TABLE, UNKNOWN_DATABASE."""


class Database:
    """The history's database. Connects, and verifies the schema, at the first statement.

    A database without the schema of this release is refused: the migration job has to run first. A database that was
    valid and becomes empty while this process runs (the server was replaced) is migrated by this process.

    Methods raise Unavailable when ClickHouse refuses a statement, does not respond in 10 seconds, or does not have the
    schema of this release.
    """

    def __init__(self, dsn: str) -> None:
        """Args:
        dsn: `http://user:password@host:port/database`.
        """
        self._dsn, self._name = dsn, database_name(dsn)
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._was_valid = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, dsn: str) -> AsyncIterator["Database"]:
        """Yield a database, and close its connections at the end. It connects at the first statement."""
        database = cls(dsn)
        try:
            yield database
        finally:
            await database._close()

    async def ping(self) -> None:
        """Check that ClickHouse responds and has the schema of this release.

        Raises:
            SchemaMismatch: ClickHouse does not have the schema of this release.
            Unavailable: ClickHouse does not respond.
        """
        try:
            await self.query("SELECT 1 FROM operations LIMIT 0", {})
        except Unavailable as error:
            if isinstance(error.__cause__, SchemaMismatch):
                raise error.__cause__ from None  # readiness shows the type of the error
            raise

    async def query(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of a SELECT."""
        async with self._connected() as client:
            result = await client.query(statement, dict(parameters))
            return result.result_rows

    async def command(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Execute a statement without a result."""
        async with self._connected() as client:
            await client.command(statement, dict(parameters))

    async def insert(self, rows: Sequence[Row], table: str = "operations") -> None:
        """Insert rows into a table that has the columns of the history. The rows are readable on return."""
        async with self._connected() as client:
            await client.insert(
                table,
                columns_from_rows(rows),
                column_names=list(COLUMNS),
                column_type_names=list(COLUMNS.values()),
                column_oriented=True,
                settings={"async_insert": 0},
            )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncClient]:
        """Yield a client of a database with a verified schema. Failures become Unavailable."""
        try:
            async with asyncio.timeout(_STATEMENT_TIMEOUT_SECONDS):
                async with self._connecting:
                    if self._client is None:
                        self._client = await self._open()
                    client = self._client
                yield client
        except SchemaMismatch as error:
            log.error("ClickHouse schema refused", error=str(error))
            raise Unavailable(_RESOURCE) from error
        except (DatabaseError, ClientError, OSError, TimeoutError) as error:
            if isinstance(error, DatabaseError) and error.code in _SCHEMA_ERRORS:
                await self._close()  # the server was emptied or replaced: connect and verify again
            log.warning("ClickHouse statement failed", error=f"{type(error).__name__}: {error}")
            raise Unavailable(_RESOURCE) from error

    async def _open(self) -> AsyncClient:
        client = await open_client(self._dsn, _STATEMENT_TIMEOUT_SECONDS)
        try:
            try:
                await verify_schema(client, self._name)
            except SchemaMissing:
                if not self._was_valid:
                    raise
                log.warning("ClickHouse schema lost", database=self._name)
                await upgrade_schema(client, self._name)
            self._was_valid = True
            client.database = self._name
        except BaseException:
            await client.close()
            raise
        return client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
