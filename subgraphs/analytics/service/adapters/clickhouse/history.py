"""Reads and writes the operation history."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.table import DECIMAL, NAMES, row_from_values, to_microseconds
from subgraphs.analytics.service.domain.model import Direction, HeldPosting, OperationFilter, OperationType, Page, Row
from subgraphs.analytics.service.domain.statistics import Group, Statistics, StatisticsRange, Turnover, make_buckets


@dataclass(frozen=True, slots=True)
class Coverage:
    """Number of an account's stored operations, the highest version among them, and the operation of that version."""

    count: int
    highest: int
    operation_id: UUID | None = None

    def is_complete_up_to(self, version: int) -> bool:
        """Whether every operation up to the version is certainly stored."""
        return self.count == self.highest >= version


@dataclass(frozen=True, slots=True)
class _Span:
    """Stored versions of an account around a range of time. 0 means that there is no such version.

    Attributes:
        lowest: lowest version of all.
        highest: highest version of all.
        before: last version before the range.
        first: first version in the range.
        last: last version in the range.
        after: first version after the range.
    """

    lowest: int
    highest: int
    before: int
    first: int
    last: int
    after: int

    def is_complete(self, counted: int, version: int) -> bool:
        """Return whether `counted` operations are all operations of the range, up to a version of the account."""
        last = self.last or self.before
        # Times do not decrease with versions. So if version `last` + 1 is after the range, no later version is in it.
        reaches_end = self.after == last + 1 if self.after else last >= version
        return counted == last - self.before and reaches_end


class History:
    """The stored operations. Several copies of an operation are read as one. A retry of any method is safe.

    Raises what `Database` raises.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, rows: Sequence[Row]) -> None:
        """Insert rows, which are readable on return. A repeated insert changes nothing."""
        await self._database.insert(rows)
        metrics.ROWS_INSERTED.inc(len(rows))

    async def get_page(
        self,
        account_id: UUID,
        *,
        limit: int,
        older_than: int | None = None,
        newer_than: int | None = None,
        conditions: OperationFilter | None = None,
    ) -> Page:
        """Return a page of an account's operations, newest first. A page does not shift when new operations arrive.

        Args:
            account_id: id of the account.
            limit: maximum number of rows.
            older_than: returns the newest operations below this version.
            newer_than: returns the oldest operations above this version. Not together with `older_than`.
            conditions: conditions that each row satisfies.
        """
        where, parameters = _conditions_to_sql(account_id, conditions or OperationFilter())
        parameters |= {"limit": limit + 1, "edge": newer_than if older_than is None else older_than}
        if newer_than is not None:
            found, beyond = await asyncio.gather(
                self._rows(f"{where} AND account_version > {{edge:Int64}}", "ASC", parameters),
                self._exists(f"{where} AND account_version <= {{edge:Int64}}", parameters),
            )
        elif older_than is not None:
            found, beyond = await asyncio.gather(
                self._rows(f"{where} AND account_version < {{edge:Int64}}", "DESC", parameters),
                self._exists(f"{where} AND account_version >= {{edge:Int64}}", parameters),
            )
        else:
            found, beyond = await self._rows(where, "DESC", parameters), False
        more, rows = len(found) > limit, tuple(found[:limit])
        if newer_than is not None:
            return Page(rows[::-1], has_older=beyond, has_newer=more)
        return Page(rows, has_older=more, has_newer=beyond)

    async def list_after(self, account_id: UUID, version: int, limit: int) -> list[Row]:
        """Return an account's next operations after a version, in version order."""
        where, parameters = _conditions_to_sql(account_id, OperationFilter())
        parameters |= {"limit": limit, "edge": version}
        return await self._rows(f"{where} AND account_version > {{edge:Int64}}", "ASC", parameters)

    async def get_complete_version(self, account_id: UUID, after: int = 0) -> int:
        """Return the last version before the first gap above `after`; `after` if the next version is missing."""
        # Sorted versions equal their row numbers until the first gap.
        numbered = """
            SELECT account_version AS version, {after:Int64} + row_number() OVER (ORDER BY account_version) AS number
            FROM operations FINAL WHERE account_id = {account_id:UUID} AND account_version > {after:Int64}
        """
        statement = f"SELECT max(version) FROM ({numbered}) WHERE version = number"  # noqa: S608  fixed text
        ((version,),) = await self._database.query(statement, {"account_id": account_id, "after": after})
        return max(after, int(version))

    async def list_postings(self, keys: Collection[tuple[UUID, int]]) -> list[HeldPosting]:
        """Return the stored postings of these versions of accounts. A version has several postings if copies of
        different operations are stored for it.
        """
        ids, versions = zip(*keys, strict=True) if keys else ((), ())
        found = await self._database.query(
            """
            SELECT DISTINCT account_id, account_version, operation_id FROM operations
            WHERE (account_id, account_version) IN (
                SELECT k.1, k.2 FROM (
                    SELECT arrayJoin(arrayZip({account_ids:Array(UUID)}, {versions:Array(Int64)})) AS k
                )
            )
            """,
            {"account_ids": list(ids), "versions": list(versions)},
        )
        return [HeldPosting(*row) for row in found]

    async def count_versions(self, account_id: UUID, versions: range) -> tuple[int, int]:
        """Return the number of these versions that are stored, and the account's highest stored version (0 if none)."""
        ((count, highest),) = await self._database.query(
            "SELECT uniqExactIf(account_version, account_version >= {first:Int64} AND account_version < {end:Int64}),"
            " max(account_version) FROM operations WHERE account_id = {account_id:UUID}",
            {"account_id": account_id, "first": versions.start, "end": versions.stop},
        )
        return int(count), int(highest)

    async def get_statistics(self, account_id: UUID, range_: StatisticsRange, version: int | None) -> Statistics | None:
        """Return an account's turnover per bucket of a range; None if no operation of the account is stored.

        Args:
            account_id: id of the account.
            range_: the range of time and its granularity.
            version: version of the account in the ledger. Complete statistics count all operations of the range up to
                this version. If the version is unknown (None), the statistics are reported as incomplete.
        """
        span = await self._span(account_id, range_)
        if span is None:
            return None
        (opening, currency), groups = await asyncio.gather(
            self._opening(account_id, span),
            self._groups(account_id, range_, span),
        )
        counted = sum(group.turnover.count for group in groups)
        return Statistics(
            currency,
            make_buckets(range_, opening, groups),
            as_of_version=span.highest,
            is_complete=version is not None and span.is_complete(counted, version),
        )

    async def _span(self, account_id: UUID, range_: StatisticsRange) -> "_Span | None":
        """Return the stored versions around a range; None if no operation of the account is stored."""
        # Reads two narrow columns, without FINAL: copies have equal versions and times. Times do not decrease with
        # versions, so the operations in the range are one range of versions, which the sort key finds.
        ((count, *versions),) = await self._database.query(
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
            {"account_id": account_id, "since": to_microseconds(range_.since), "until": to_microseconds(range_.until)},
        )
        return _Span(*versions) if count else None

    async def _opening(self, account_id: UUID, span: "_Span") -> tuple[Decimal, str]:
        """Return the account's balance at the start of the range, and its currency."""
        ((after, before, currency),) = await self._database.query(
            """
            SELECT balance_after, if(direction = 'IN', balance_after - amount, balance_after + amount), currency
            FROM operations WHERE account_id = {account_id:UUID} AND account_version = {version:Int64} LIMIT 1
            """,
            {"account_id": account_id, "version": span.before or span.lowest},
        )
        return (after if span.before else before), currency

    async def _groups(self, account_id: UUID, range_: StatisticsRange, span: "_Span") -> list[Group]:
        # sum() returns a Decimal of 38 digits, which only 10^16 operations of the highest amount overflow. dateDiff
        # counts crossed boundaries (of weeks on Mondays) and supports years after 2106; toStartOfHour and similar
        # functions do not.
        unit = range_.granularity.value.lower()
        groups = await self._database.query(
            f"""
            SELECT
                dateDiff('{unit}', fromUnixTimestamp64Micro({{origin:Int64}}, 'UTC'), occurred_at, 'UTC') AS bucket,
                type, direction, count(), sum(amount), max(account_version), argMax(balance_after, account_version)
            FROM operations FINAL
            WHERE account_id = {{account_id:UUID}} AND account_version BETWEEN {{first:Int64}} AND {{last:Int64}}
                AND toUnixTimestamp64Micro(occurred_at) >= {{since:Int64}}
                AND toUnixTimestamp64Micro(occurred_at) < {{until:Int64}}
            GROUP BY bucket, type, direction
            """,  # noqa: S608  one of four fixed words; values are parameters
            {
                "account_id": account_id,
                "origin": to_microseconds(range_.origin),
                "first": span.first,
                "last": span.last,
                "since": to_microseconds(range_.since),
                "until": to_microseconds(range_.until),
            },
        )
        return [
            Group(bucket, (OperationType(kind), Direction(direction)), Turnover(count, amount), version, balance_after)
            for bucket, kind, direction, count, amount, version, balance_after in groups
        ]

    async def get_coverage(self, account_ids: Sequence[UUID]) -> dict[UUID, Coverage]:
        """Return the coverage of each account, also of accounts without operations, with one query."""
        counted = await self._database.query(
            "SELECT account_id, count(), max(account_version), argMax(operation_id, account_version)"
            " FROM operations FINAL"
            " WHERE account_id IN {account_ids:Array(UUID)} GROUP BY account_id",
            {"account_ids": list(account_ids)},
        )
        stored = {account_id: Coverage(*coverage) for account_id, *coverage in counted}
        return {account_id: stored.get(account_id, Coverage(0, 0)) for account_id in account_ids}

    async def _rows(self, where: str, order: str, parameters: Mapping[str, Any]) -> list[Row]:
        statement = (
            f"SELECT {NAMES} FROM operations FINAL WHERE {where}"  # noqa: S608  fixed text; values are parameters
            f" ORDER BY account_version {order} LIMIT {{limit:UInt32}}"
        )
        return [row_from_values(row) for row in await self._database.query(statement, parameters)]

    async def _exists(self, where: str, parameters: Mapping[str, Any]) -> bool:
        # Without FINAL: any copy proves that the operation exists.
        return bool(await self._database.query(f"SELECT 1 FROM operations WHERE {where} LIMIT 1", parameters))  # noqa: S608


def _conditions_to_sql(account_id: UUID, conditions: OperationFilter) -> tuple[str, dict[str, Any]]:
    """Return the conditions as SQL, and the values of its parameters."""
    clauses = ["account_id = {account_id:UUID}"]
    values: dict[str, Any] = {"account_id": account_id}

    def add(name: str, clause: str, value: Any) -> None:
        clauses.append(clause)
        values[name] = value

    if conditions.types is not None:
        add("types", "type IN {types:Array(String)}", sorted(kind.value for kind in conditions.types))
    if conditions.direction is not None:
        add("direction", "direction = {direction:String}", conditions.direction.value)
    if conditions.counterparty_id is not None:
        add("counterparty_id", "counterparty_id = {counterparty_id:UUID}", conditions.counterparty_id)
    if conditions.min_amount is not None:
        add("min_amount", f"amount >= {{min_amount:{DECIMAL}}}", f"{conditions.min_amount:f}")
    if conditions.max_amount is not None:
        add("max_amount", f"amount <= {{max_amount:{DECIMAL}}}", f"{conditions.max_amount:f}")
    # Times are compared as integers, which are exact and represent any time.
    if conditions.since is not None:
        add("since", "toUnixTimestamp64Micro(occurred_at) >= {since:Int64}", to_microseconds(conditions.since))
    if conditions.until is not None:
        add("until", "toUnixTimestamp64Micro(occurred_at) < {until:Int64}", to_microseconds(conditions.until))
    return " AND ".join(clauses), values
