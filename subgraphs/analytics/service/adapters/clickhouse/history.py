"""Reads and writes the operation history."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.table import DECIMAL, NAMES, row_from_values, to_microseconds
from subgraphs.analytics.service.domain.model import (
    Direction,
    HeldPosting,
    OperationFilter,
    OperationType,
    Page,
    PageRequest,
    Row,
)
from subgraphs.analytics.service.domain.statistics import Group, Statistics, StatisticsRange, Turnover, make_buckets

_CONCURRENT_PAGES: Final = 8
"""Maximum number of pages of a batch that are read at once by queries of their own."""
_EXPECTED_LAG: Final = 16
"""Number of an account's newest operations by which the history and the version of the ledger often differ: one of them
was read a moment earlier.
"""


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


@dataclass(frozen=True, slots=True)
class _Window:
    """Range of versions that contains the rows of a page without conditions, if the history has no gap there.

    Attributes:
        request: requested page.
        lowest: lowest version of the range.
        highest: highest version of the range; None: the range has all later versions.
        size: number of versions of the range up to the account's version in the ledger.
    """

    request: PageRequest
    lowest: int
    highest: int | None
    size: int

    @classmethod
    def of(cls, request: PageRequest, version: int) -> "_Window":
        """Return the window of a request.

        Args:
            request: request without conditions.
            version: version of the account in the ledger.
        """
        edge, length = request.older_than, request.limit + 1
        if request.newer_than is not None:
            lowest, last = request.newer_than, request.newer_than + length
            return cls(request, lowest, last if last < version else None, length + 1)
        if edge is not None:
            lowest = max(1, edge - length)
            return cls(request, lowest, edge, length + 1)
        # The history may still lack the newest operations: the page then has older ones.
        return cls(request, max(1, version - length - _EXPECTED_LAG), None, length + _EXPECTED_LAG + 1)

    def page(self, rows: Sequence[Row]) -> Page | None:
        """Return the page; None if a gap of the history leaves open what it has.

        Args:
            rows: rows of the account, newest first.
        """
        newer_than, older_than, limit = self.request.newer_than, self.request.older_than, self.request.limit
        inside = [
            row
            for row in rows
            if row.account_version >= self.lowest and (self.highest is None or row.account_version <= self.highest)
        ]
        versions = {row.account_version for row in inside}
        if newer_than is not None:
            found = [row for row in inside if row.account_version > newer_than]
            is_known = len(found) > limit or self.highest is None
            is_known = is_known and (newer_than <= 0 or newer_than in versions)
            page = tuple(found[-limit:])
            return Page(page, has_older=newer_than > 0, has_newer=len(found) > limit) if is_known else None
        found = [row for row in inside if older_than is None or row.account_version < older_than]
        is_known = len(found) > limit or self.lowest <= 1
        is_known = is_known and (older_than is None or older_than in versions)
        has_newer = older_than is not None
        return Page(tuple(found[:limit]), has_older=len(found) > limit, has_newer=has_newer) if is_known else None


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

    async def get_pages(self, requests: Sequence[PageRequest], versions: Sequence[int | None]) -> list[Page]:
        """Return a page for each request, as `get_page` returns it. One query reads most of the pages.

        A page with conditions, or of an account whose version is unknown, takes queries of its own. So does a page that
        the history has with gaps.

        Args:
            requests: requested pages. The limit of each is positive.
            versions: version of the account of each request in the ledger; None if it is unknown.
        """
        windows = [
            None if version is None or request.conditions != OperationFilter() else _Window.of(request, version)
            for request, version in zip(requests, versions, strict=True)
        ]
        rows = await self._rows_in([window for window in windows if window is not None])
        slots = asyncio.Semaphore(_CONCURRENT_PAGES)

        async def get(request: PageRequest, window: _Window | None) -> Page:
            found = rows.get(request.account_id, ())
            page = None if window is None or found is None else window.page(found)
            if page is not None:
                return page
            async with slots:
                return await self.get_page(
                    request.account_id,
                    limit=request.limit,
                    older_than=request.older_than,
                    newer_than=request.newer_than,
                    conditions=request.conditions,
                )

        return await asyncio.gather(*map(get, requests, windows))

    async def _rows_in(self, windows: Sequence["_Window"]) -> Mapping[UUID, Sequence[Row] | None]:
        """Return the rows of the windows by account, newest first; None for an account that has far more rows in its
        windows than the ledger.
        """
        if not windows:
            return {}
        parameters: dict[str, Any] = {}
        conditions = []
        sizes: Counter[UUID] = Counter()
        for number, window in enumerate(windows):
            names = {f"account{number}": window.request.account_id, f"low{number}": window.lowest}
            condition = f"account_id = {{account{number}:UUID}} AND account_version >= {{low{number}:Int64}}"
            if window.highest is not None:
                names[f"high{number}"] = window.highest
                condition += f" AND account_version <= {{high{number}:Int64}}"
            parameters |= names
            conditions.append(f"({condition})")
            sizes[window.request.account_id] += window.size
        # The alternatives are ranges of the sort key, so ClickHouse reads only the parts with these rows.
        statement = (
            f"SELECT {NAMES} FROM operations FINAL WHERE {' OR '.join(conditions)}"  # noqa: S608  fixed text
            " ORDER BY account_id, account_version DESC LIMIT {limit:UInt32} BY account_id"
        )
        limit = max(sizes.values()) + _EXPECTED_LAG
        rows: dict[UUID, list[Row]] = {}
        for values in await self._database.query(statement, parameters | {"limit": limit}):
            row = row_from_values(values)
            rows.setdefault(row.account_id, []).append(row)
        return {account_id: None if len(found) == limit else found for account_id, found in rows.items()}

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
    _add_word_conditions(add, conditions)
    # Times are compared as integers, which are exact and represent any time.
    if conditions.since is not None:
        add("since", "toUnixTimestamp64Micro(occurred_at) >= {since:Int64}", to_microseconds(conditions.since))
    if conditions.until is not None:
        add("until", "toUnixTimestamp64Micro(occurred_at) < {until:Int64}", to_microseconds(conditions.until))
    return " AND ".join(clauses), values


def _add_word_conditions(add: Callable[[str, str, Any], None], conditions: OperationFilter) -> None:
    """Add the conditions on the words of the operations."""
    if conditions.reference is not None:
        add("reference", "reference = {reference:String}", conditions.reference)
    if conditions.metadata is not None:
        for number, (key, value) in enumerate(conditions.metadata.entries.items()):
            name = f"metadata_{number}"
            add(f"{name}_key", f"mapContains(metadata, {{{name}_key:String}})", key)
            add(name, f"metadata[{{{name}_key:String}}] = {{{name}:String}}", value)
        add("created_by", "created_by = {created_by:String}", conditions.metadata.created_by)
    if conditions.text is not None:
        pattern = re.sub(r"([\\%_])", r"\\\1", conditions.text)
        add("pattern", "lowerUTF8(description) LIKE lowerUTF8({pattern:String})", f"%{pattern}%")
