"""Numbered migrations of the history's ClickHouse database.

ClickHouse has neither transactions around DDL nor a lock that works without Keeper. An interrupted migration runs again
from its first statement, and two runs at the same time apply the same statements twice. Therefore every statement of a
migration must be safe to repeat (`CREATE TABLE IF NOT EXISTS`, `ADD COLUMN IF NOT EXISTS`). ADR 32 has the reasons.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient

from subgraphs.analytics.service.adapters.clickhouse.connection import database_name, open_client

log = structlog.get_logger(__name__)

COMMAND: Final = "python -m subgraphs.analytics.service.migrations"

_STATEMENT_TIMEOUT_SECONDS: Final = 600.0
"""Time-out of one statement. It is long, because a statement may rewrite a column of the whole history."""

_HISTORY: Final = "operations"
_RECORDS: Final = "schema_migrations"
_FILE_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_END_OF_STATEMENT: Final = re.compile(r";[ \t]*$", re.MULTILINE)

_CREATE_RECORDS: Final = f"""
    CREATE TABLE IF NOT EXISTS {_RECORDS}
    (number UInt32, name String, checksum String, applied_at DateTime64(6, 'UTC'))
    ENGINE = ReplacingMergeTree(applied_at) ORDER BY number
"""

_ADOPTED_COLUMNS: Final = (
    ("account_id", "UUID"),
    ("account_version", "Int64"),
    ("operation_id", "UUID"),
    ("type", "Enum8('TRANSFER' = 1, 'TOP_UP' = 2)"),
    ("direction", "Enum8('IN' = 1, 'OUT' = 2)"),
    ("amount", "Decimal(22, 4)"),
    ("currency", "LowCardinality(String)"),
    ("balance_after", "Decimal(22, 4)"),
    ("counterparty_id", "UUID"),
    ("occurred_at", "DateTime64(6, 'UTC')"),
)
"""Columns of migration 0001. They never change, because they identify a table that a release without migrations
created."""

_ADOPTED_SORTING_KEY: Final = "account_id, account_version"


class SchemaMismatch(Exception):
    """The database does not have the schema of this release. The message says what differs and what to do."""


class SchemaMissing(SchemaMismatch):
    """The database, or its table of operations, does not exist."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `versions/`.

    Attributes:
        number: position in the order of application, from 1.
        name: the words of the file's name, such as `operations`.
        checksum: SHA-256 of the file's text, as hexadecimal digits.
        statements: SQL statements, in order; each is safe to repeat.
    """

    number: int
    name: str
    checksum: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.number:04}_{self.name}"


@dataclass(frozen=True, slots=True)
class _Record:
    """The row of `schema_migrations` that describes an applied migration."""

    name: str
    checksum: str


def load_migrations(folder: Path) -> tuple[Migration, ...]:
    """Return the migrations of a folder, by number.

    A statement ends with a semicolon at the end of a line.

    Raises:
        ValueError: a file's name is not `NNNN_name.sql`, or the numbers are not 1, 2, 3 and so on.
    """
    migrations = []
    for number, file in enumerate(sorted(folder.glob("*.sql")), 1):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None or int(match[1]) != number:
            raise ValueError(f"{file.name}: rename it to {number:04}_name.sql, since numbers have no gaps")
        text = file.read_text()
        statements = tuple(filter(None, map(str.strip, _END_OF_STATEMENT.split(text))))
        migrations.append(Migration(number, match[2], hashlib.sha256(text.encode()).hexdigest(), statements))
    return tuple(migrations)


MIGRATIONS: Final = load_migrations(Path(__file__).parent / "versions")


async def upgrade(dsn: str) -> None:
    """Upgrade the database at `http://user:password@host:port/database` to the newest schema.

    Safe to repeat. Raises what `upgrade_schema` raises.
    """
    client = await open_client(dsn, _STATEMENT_TIMEOUT_SECONDS)
    try:
        await upgrade_schema(client, database_name(dsn))
    finally:
        await client.close()


async def verify_schema(client: AsyncClient, database: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Check that the database has exactly these migrations. Only reads.

    Args:
        client: client of the server; the database may not exist.
        database: name of the database.
        migrations: migrations of this release.

    Raises:
        SchemaMissing: the database, or its table of operations, does not exist.
        SchemaMismatch: a migration is missing, unknown or changed.
        DatabaseError, ClientError, OSError: ClickHouse does not respond or refuses a statement.
    """
    tables = await _tables(client, database)
    if _HISTORY not in tables:
        raise SchemaMissing(f"database {database} has no table {_HISTORY}: run `{COMMAND}`")
    records = await _records(client, database) if _RECORDS in tables else {}
    if not records:
        raise SchemaMismatch(f"table {_HISTORY} in database {database} has no applied migrations: run `{COMMAND}`")
    _refuse_unknown(records, migrations)
    if pending := [str(each) for each in migrations if each.number not in records]:
        raise SchemaMismatch(f"database {database} lacks migrations {', '.join(pending)}: run `{COMMAND}`")


async def upgrade_schema(
    client: AsyncClient, database: str, migrations: Sequence[Migration] = MIGRATIONS
) -> list[Migration]:
    """Create the database if it is missing, apply the missing migrations and return them.

    Safe to repeat, to interrupt and to run twice at the same time. A table that a release without migrations created
    counts as migration 0001 if its columns match. If the table of operations is missing, recorded migrations do not
    count, and all migrations run again. Afterwards the client uses this database.

    Args:
        client: client of the server; the database may not exist.
        database: name of the database.
        migrations: migrations of this release.

    Raises:
        SchemaMismatch: an applied migration is unknown or changed, or the existing table differs from migration 0001.
        DatabaseError, ClientError, OSError: ClickHouse does not respond or refuses a statement.
    """
    await client.command("CREATE DATABASE IF NOT EXISTS {database:Identifier}", {"database": database})
    client.database = database
    await client.command(_CREATE_RECORDS)
    records: Mapping[int, _Record] = {}
    if _HISTORY in await _tables(client, database):
        records = await _records(client, database) or await _adopt(client, database, migrations)
    _refuse_unknown(records, migrations)
    pending = [each for each in migrations if each.number not in records]
    for migration in pending:
        for statement in migration.statements:
            # Without these settings, ALTER TABLE … UPDATE returns before its work is done.
            await client.command(statement, settings={"mutations_sync": 1, "alter_sync": 1})
        await _record(client, migration)
        log.info("migration applied", migration=str(migration), database=database)
    return pending


def _refuse_unknown(records: Mapping[int, _Record], migrations: Sequence[Migration]) -> None:
    """Raise SchemaMismatch if this release does not have a recorded migration, or has it with another checksum."""
    by_number = {each.number: each for each in migrations}
    for number, record in sorted(records.items()):
        migration = by_number.get(number)
        if migration is None:
            raise SchemaMismatch(
                f"the database has migration {number:04}_{record.name}, which this release does not have: "
                "start the release that applied it, or a newer one"
            )
        if record.checksum != migration.checksum:
            raise SchemaMismatch(
                f"migration {migration} was changed after it was applied: restore the file, "
                "and put the change into a new migration"
            )


async def _adopt(client: AsyncClient, database: str, migrations: Sequence[Migration]) -> Mapping[int, _Record]:
    """Record 0001 for a table that a release without migrations created, and return the records."""
    parameters = {"database": database, "table": _HISTORY}
    columns = await client.query(
        "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}"
        " ORDER BY position",
        parameters,
    )
    table = await client.query(
        "SELECT engine, sorting_key FROM system.tables WHERE database = {database:String} AND name = {table:String}",
        parameters,
    )
    # Another run at the same time may have created the table, and may have changed the table since. That run recorded
    # 0001 before the change.
    if records := await _records(client, database):
        return records
    differences = sorted(set(map(tuple, columns.result_rows)) ^ set(_ADOPTED_COLUMNS))
    expected = [("ReplacingMergeTree", _ADOPTED_SORTING_KEY)]
    if differences or list(map(tuple, table.result_rows)) != expected:
        what = f"columns {differences}" if differences else f"engine and sorting key {table.result_rows}"
        raise SchemaMismatch(
            f"table {_HISTORY} in database {database} is not the one that earlier releases created ({what} differ): "
            f"rename the table, then run `{COMMAND}` and `wallet replay`"
        )
    first = migrations[0]
    await _record(client, first)
    log.info("existing table adopted", migration=str(first), database=database)
    return {first.number: _Record(first.name, first.checksum)}


async def _tables(client: AsyncClient, database: str) -> set[str]:
    """Return the names of the database's tables; none if it does not exist."""
    result = await client.query(
        "SELECT name FROM system.tables WHERE database = {database:String}", {"database": database}
    )
    return {name for (name,) in result.result_rows}


async def _records(client: AsyncClient, database: str) -> Mapping[int, _Record]:
    """Return the applied migrations by number."""
    # Two runs at the same time, or a run after the table of operations was lost, leave several rows for a number.
    result: Any = await client.query(
        "SELECT number, argMax(name, applied_at), argMax(checksum, applied_at)"  # noqa: S608  fixed text
        f" FROM {{database:Identifier}}.{_RECORDS} GROUP BY number",
        {"database": database},
    )
    return {number: _Record(name, checksum) for number, name, checksum in result.result_rows}


async def _record(client: AsyncClient, migration: Migration) -> None:
    """Record a migration as applied now, by the clock of the server."""
    await client.command(
        f"INSERT INTO {_RECORDS} SELECT {{number:UInt32}}, {{name:String}}, {{checksum:String}}, now64(6)",
        {"number": migration.number, "name": migration.name, "checksum": migration.checksum},
    )
