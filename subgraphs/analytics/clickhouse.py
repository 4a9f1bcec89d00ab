"""The stored history: every statement that ClickHouse is asked to run."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

import clickhouse_connect
import structlog
from aiohttp import ClientError
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from subgraphs.analytics import metrics
from subgraphs.analytics.domain import (
    AMOUNT_DECIMALS,
    AMOUNT_DIGITS,
    MAX_VERSION,
    Direction,
    OperationFilter,
    OperationType,
    Page,
    Row,
)
from subgraphs.analytics.statistics import Frame, Group, Statistics, Turnover, buckets
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_WHAT: Final = "the operation history"
_SECONDS: Final = 10.0
"""The longest that any statement may take."""
_CONNECT_SECONDS: Final = 2.0
_LOST_SCHEMA: Final = {60, 81}  # UNKNOWN_TABLE, UNKNOWN_DATABASE
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_DECIMAL: Final = f"Decimal({AMOUNT_DIGITS + AMOUNT_DECIMALS}, {AMOUNT_DECIMALS})"
_COLUMNS: Final = {
    "account_id": "UUID",
    "account_version": "Int64",
    "operation_id": "UUID",
    "type": "Enum8('TRANSFER' = 1, 'TOP_UP' = 2)",
    "direction": "Enum8('IN' = 1, 'OUT' = 2)",
    "amount": _DECIMAL,
    "currency": "LowCardinality(String)",
    "balance_after": _DECIMAL,
    "counterparty_id": "UUID",
    "occurred_at": "DateTime64(6, 'UTC')",
}
_NAMES: Final = ", ".join(_COLUMNS)
_DIGEST: Final = f"hex(sipHash128({_NAMES}))"
"""Of a row's whole content."""
# An account's rows lie together in the order they are read in. A row that came twice is merged away in time, and by
# FINAL at once: both copies say the same. If they do not, the one that was stored last counts: a replay stands on that.
_TABLE: Final = f"""
    CREATE TABLE IF NOT EXISTS operations ({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())})
    ENGINE = ReplacingMergeTree ORDER BY (account_id, account_version)
    SETTINGS index_granularity = 1024
"""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of an account's operations are stored, and the greatest version among them."""

    count: int
    greatest: int

    def reaches(self, version: int) -> bool:
        """Whether it is certain that every operation up to the version is stored."""
        return self.count == self.greatest >= version


@dataclass(frozen=True, slots=True)
class _Span:
    """Versions of an account that are stored: of all; the last one before a frame; the first and the last one in it;
    the first one after it. 0 where there is none.
    """

    least: int
    greatest: int
    before: int
    first: int
    last: int
    after: int

    def is_complete(self, counted: int) -> bool:
        """Whether so many operations in the frame are all that there are, up to the greatest version."""
        last = self.last or self.before
        return counted == last - self.before and self.after in {0, last + 1}


@dataclass(frozen=True, slots=True)
class Window:
    """An account's operations after one version and up to another."""

    account_id: UUID
    after: int
    up_to: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One row as it is stored. `digest` is of its content: by it the copy, and no other, can be removed."""

    row: Row
    digest: str


@dataclass(frozen=True, slots=True)
class Extent:
    """The least and the greatest version of an account that is stored."""

    account_id: UUID
    least: int
    greatest: int


class History:
    """Reads and writes the stored history. Connects, and creates what is missing, when first used.

    Every method raises Unavailable when ClickHouse does not answer in some seconds; all are safe to call again.
    """

    def __init__(self, dsn: str) -> None:
        """Args:
        dsn: `http://user:password@host:port/database`.
        """
        url = urlsplit(dsn)
        self._database = unquote(url.path.strip("/")) or "default"
        # The database may not be there yet, and a connection that names it could not create it.
        self._server = url._replace(path="").geturl()
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(cls, dsn: str) -> AsyncIterator["History"]:
        """A history at an address; nothing is opened before it is used."""
        history = cls(dsn)
        try:
            yield history
        finally:
            await history._close()

    async def ping(self) -> None:
        """Returns when ClickHouse answers and the table is there."""
        await self._query("SELECT 1 FROM operations LIMIT 0", {})

    async def insert(self, rows: Sequence[Row]) -> None:
        """Stores rows. Those that are stored already change nothing. On return they are there to be read."""
        columns: list[list[Any]] = [
            [row.account_id for row in rows],
            [row.account_version for row in rows],
            [row.operation_id for row in rows],
            [row.type.value for row in rows],
            [row.direction.value for row in rows],
            [row.amount for row in rows],
            [row.currency for row in rows],
            [row.balance_after for row in rows],
            [row.counterparty_id for row in rows],
            [_micros(row.occurred_at) for row in rows],
        ]
        async with self._connected() as client:
            await client.insert(
                "operations",
                columns,
                column_names=list(_COLUMNS),
                column_type_names=list(_COLUMNS.values()),
                column_oriented=True,
                settings={"async_insert": 0},
            )
        metrics.ROWS_INSERTED.inc(len(rows))

    async def page(
        self,
        account_id: UUID,
        *,
        limit: int,
        older_than: int | None = None,
        newer_than: int | None = None,
        conditions: OperationFilter | None = None,
    ) -> Page:
        """A window on an account's operations: the newest ones below a version, the oldest ones above one, or simply
        the newest. A window stays where it is while new operations arrive.
        """
        where, parameters = _where(account_id, conditions or OperationFilter())
        parameters |= {"limit": limit + 1, "edge": newer_than if older_than is None else older_than}
        if newer_than is not None:
            found, beyond = await asyncio.gather(
                self._rows(f"{where} AND account_version > {{edge:Int64}}", "ASC", parameters),
                self._any(f"{where} AND account_version <= {{edge:Int64}}", parameters),
            )
        elif older_than is not None:
            found, beyond = await asyncio.gather(
                self._rows(f"{where} AND account_version < {{edge:Int64}}", "DESC", parameters),
                self._any(f"{where} AND account_version >= {{edge:Int64}}", parameters),
            )
        else:
            found, beyond = await self._rows(where, "DESC", parameters), False
        more, rows = len(found) > limit, tuple(found[:limit])
        if newer_than is not None:
            return Page(rows[::-1], has_older=beyond, has_newer=more)
        return Page(rows, has_older=more, has_newer=beyond)

    async def after(self, account_id: UUID, version: int, limit: int) -> list[Row]:
        """An account's next operations above a version, in version order."""
        where, parameters = _where(account_id, OperationFilter())
        parameters |= {"limit": limit, "edge": version}
        return await self._rows(f"{where} AND account_version > {{edge:Int64}}", "ASC", parameters)

    async def prefix(self, account_id: UUID, after: int = 0) -> int:
        """The greatest version such that it and all others above `after` are stored; `after` where the next is not."""
        # Numbering the sorted versions: they equal their numbers until the first gap.
        numbered = """
            SELECT account_version AS version, {after:Int64} + row_number() OVER (ORDER BY account_version) AS place
            FROM operations FINAL WHERE account_id = {account_id:UUID} AND account_version > {after:Int64}
        """
        statement = f"SELECT max(version) FROM ({numbered}) WHERE version = place"  # noqa: S608  fixed text
        ((version,),) = await self._query(statement, {"account_id": account_id, "after": after})
        return max(after, int(version))

    async def statistics(self, account_id: UUID, frame: Frame) -> Statistics | None:
        """What went in and out of an account in each bucket of a frame; None where nothing of the account is stored."""
        span = await self._span(account_id, frame)
        if span is None:
            return None
        (opening, currency), groups = await asyncio.gather(
            self._opening(account_id, span),
            self._groups(account_id, frame, span),
        )
        counted = sum(group.turnover.count for group in groups)
        return Statistics(
            currency,
            buckets(frame, opening, groups),
            as_of_version=span.greatest,
            is_complete=span.is_complete(counted),
        )

    async def _span(self, account_id: UUID, frame: Frame) -> "_Span | None":
        """Where an account's history meets a frame."""
        # Two narrow columns, without FINAL: a copy has its original's version and time. Time never runs against
        # version, so what is in the frame is one range of versions, which the key then finds.
        ((count, *versions),) = await self._query(
            """
            SELECT count(), min(account_version), max(account_version),
                maxIf(account_version, time < {since:Int64}),
                minIf(account_version, time >= {since:Int64} AND time < {until:Int64}),
                maxIf(account_version, time >= {since:Int64} AND time < {until:Int64}),
                minIf(account_version, time >= {until:Int64})
            FROM (
                SELECT account_version, toUnixTimestamp64Micro(occurred_at) AS time
                FROM operations WHERE account_id = {account_id:UUID}
            )
            """,
            {"account_id": account_id, "since": _micros(frame.since), "until": _micros(frame.until)},
        )
        return _Span(*versions) if count else None

    async def _opening(self, account_id: UUID, span: "_Span") -> tuple[Decimal, str]:
        """The balance that an account came into the frame with, and its currency."""
        ((after, before, currency),) = await self._query(
            """
            SELECT balance_after, if(direction = 'IN', balance_after - amount, balance_after + amount), currency
            FROM operations WHERE account_id = {account_id:UUID} AND account_version = {version:Int64} LIMIT 1
            """,
            {"account_id": account_id, "version": span.before or span.least},
        )
        return (after if span.before else before), currency

    async def _groups(self, account_id: UUID, frame: Frame, span: "_Span") -> list[Group]:
        # sum() of such a Decimal is one of 38 digits: it would take 10^16 of the greatest amounts to overflow it.
        # dateDiff counts the borders that were crossed, weeks' on Mondays, and knows years beyond 2106, which the likes
        # of toStartOfHour do not.
        unit = frame.granularity.value.lower()
        groups = await self._query(
            f"""
            SELECT
                dateDiff('{unit}', fromUnixTimestamp64Micro({{origin:Int64}}, 'UTC'), occurred_at, 'UTC') AS bucket,
                type, direction, count(), sum(amount), max(account_version), argMax(balance_after, account_version)
            FROM operations FINAL
            WHERE account_id = {{account_id:UUID}} AND account_version BETWEEN {{first:Int64}} AND {{last:Int64}}
                AND toUnixTimestamp64Micro(occurred_at) >= {{since:Int64}}
                AND toUnixTimestamp64Micro(occurred_at) < {{until:Int64}}
            GROUP BY bucket, type, direction
            """,  # noqa: S608  a fixed word; values are parameters
            {
                "account_id": account_id,
                "origin": _micros(frame.origin),
                "first": span.first,
                "last": span.last,
                "since": _micros(frame.since),
                "until": _micros(frame.until),
            },
        )
        return [
            Group(bucket, (OperationType(kind), Direction(direction)), Turnover(count, amount), version, balance_after)
            for bucket, kind, direction, count, amount, version, balance_after in groups
        ]

    async def stored(self, windows: Sequence[Window]) -> list[Copy]:
        """Every stored copy of the operations in the windows, by account and version. Copies that say the same are one;
        of those that differ, the first ten of a version.
        """
        # The pairs of account and version themselves are looked for, so as much is read as was asked for.
        wanted = """
            (account_id, account_version) IN (
                SELECT w.1, arrayJoin(range(w.2 + 1, w.3 + 1))
                FROM (SELECT arrayJoin(arrayZip(
                    {account_ids:Array(UUID)}, {after:Array(Int64)}, {up_to:Array(Int64)}
                )) AS w)
            )
            ORDER BY account_id, account_version LIMIT 10 BY account_id, account_version
        """
        parameters = {
            "account_ids": [window.account_id for window in windows],
            "after": [window.after for window in windows],
            "up_to": [window.up_to for window in windows],
        }
        return await self._copies(wanted, parameters)

    async def accounts(self, after: UUID | None, limit: int) -> list[Extent]:
        """The next accounts of which anything is stored, in ClickHouse's own order of ids."""
        # In order: a page costs what it holds, not what comes after it.
        found = await self._query(
            "SELECT account_id, min(account_version), max(account_version) FROM operations"
            " WHERE {is_first:Bool} OR account_id > {after:UUID}"
            " GROUP BY account_id ORDER BY account_id LIMIT {limit:UInt32} SETTINGS optimize_aggregation_in_order = 1",
            {"is_first": after is None, "after": after or UUID(int=0), "limit": limit},
        )
        return [Extent(*row) for row in found]

    async def extent(self, account_id: UUID) -> Extent | None:
        """What versions of the account are stored, if any."""
        found = await self._query(
            "SELECT account_id, min(account_version), max(account_version) FROM operations"
            " WHERE account_id = {account_id:UUID} GROUP BY account_id",
            {"account_id": account_id},
        )
        return Extent(*found[0]) if found else None

    async def beyond(self, account_id: UUID, version: int, after: int | None, limit: int) -> list[Copy]:
        """What is stored of the account but is none of its versions from 1 to this one: the copies of the next versions
        after one, some `limit` copies.
        """
        outside = """
            account_id = {account_id:UUID} AND account_version > {after:Int64}
            AND (account_version < 1 OR account_version > {version:Int64})
            ORDER BY account_version LIMIT {limit:UInt32} WITH TIES
        """
        after = -MAX_VERSION - 1 if after is None else after
        return await self._copies(
            outside, {"account_id": account_id, "version": version, "after": after, "limit": limit}
        )

    async def remove(self, copies: Sequence[Copy]) -> None:
        """Removes exactly these copies. Others of the same operation stay, and so do those that come meanwhile."""
        statement = (
            "DELETE FROM operations WHERE account_id IN {account_ids:Array(UUID)}"  # noqa: S608  fixed text
            f" AND account_version IN {{versions:Array(Int64)}} AND {_DIGEST} IN {{digests:Array(String)}}"
        )
        parameters = {
            "account_ids": list({copy.row.account_id for copy in copies}),
            "versions": list({copy.row.account_version for copy in copies}),
            "digests": [copy.digest for copy in copies],
        }
        async with self._connected() as client:
            await client.command(statement, parameters)

    async def coverage(self, account_ids: Sequence[UUID]) -> dict[UUID, Coverage]:
        """What is stored of each account, in one query; accounts of which nothing is are there too."""
        counted = await self._query(
            "SELECT account_id, count(), max(account_version) FROM operations FINAL"
            " WHERE account_id IN {account_ids:Array(UUID)} GROUP BY account_id",
            {"account_ids": list(account_ids)},
        )
        stored = {account_id: Coverage(count, greatest) for account_id, count, greatest in counted}
        return {account_id: stored.get(account_id, Coverage(0, 0)) for account_id in account_ids}

    async def _rows(self, where: str, order: str, parameters: Mapping[str, Any]) -> list[Row]:
        statement = (
            f"SELECT {_NAMES} FROM operations FINAL WHERE {where}"  # noqa: S608  fixed text; values are parameters
            f" ORDER BY account_version {order} LIMIT {{limit:UInt32}}"
        )
        return [_row(row) for row in await self._query(statement, parameters)]

    async def _any(self, where: str, parameters: Mapping[str, Any]) -> bool:
        # Without FINAL: a copy proves as much as its original.
        return bool(await self._query(f"SELECT 1 FROM operations WHERE {where} LIMIT 1", parameters))  # noqa: S608

    async def _copies(self, where: str, parameters: Mapping[str, Any]) -> list[Copy]:
        # Without FINAL, which would show the copy that was stored last alone.
        statement = f"SELECT DISTINCT {_NAMES}, {_DIGEST} FROM operations WHERE {where}"  # noqa: S608  fixed text
        return [Copy(_row(row), digest) for *row, digest in await self._query(statement, parameters)]

    async def _query(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        async with self._connected() as client:
            result = await client.query(statement, dict(parameters))
            return result.result_rows

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
            await client.command("CREATE DATABASE IF NOT EXISTS {name:Identifier}", {"name": self._database})
            client.database = self._database
            await client.command(_TABLE)
        except BaseException:
            await client.close()
            raise
        return client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _row(values: Sequence[Any]) -> Row:
    account_id, version, operation_id, kind, direction, *rest = values
    return Row(account_id, version, operation_id, OperationType(kind), Direction(direction), *rest)


def _where(account_id: UUID, conditions: OperationFilter) -> tuple[str, dict[str, Any]]:
    """The conditions as SQL, and the values that the server binds to it."""
    clauses = ["account_id = {account_id:UUID}"]
    values: dict[str, Any] = {"account_id": account_id}

    def add(name: str, clause: str, value: Any) -> None:
        clauses.append(clause)
        values[name] = value

    if conditions.types:
        add("types", "type IN {types:Array(String)}", sorted(kind.value for kind in conditions.types))
    if conditions.direction is not None:
        add("direction", "direction = {direction:String}", conditions.direction.value)
    if conditions.counterparty_id is not None:
        add("counterparty_id", "counterparty_id = {counterparty_id:UUID}", conditions.counterparty_id)
    if conditions.min_amount is not None:
        add("min_amount", f"amount >= {{min_amount:{_DECIMAL}}}", f"{conditions.min_amount:f}")
    if conditions.max_amount is not None:
        add("max_amount", f"amount <= {{max_amount:{_DECIMAL}}}", f"{conditions.max_amount:f}")
    # As numbers: exact, and any time that a caller can say is one.
    if conditions.since is not None:
        add("since", "toUnixTimestamp64Micro(occurred_at) >= {since:Int64}", _micros(conditions.since))
    if conditions.until is not None:
        add("until", "toUnixTimestamp64Micro(occurred_at) < {until:Int64}", _micros(conditions.until))
    return " AND ".join(clauses), values


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
