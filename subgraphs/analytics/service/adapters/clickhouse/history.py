"""The history as it is read, and as it is written."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.table import DECIMAL, NAMES, micros, row_of
from subgraphs.analytics.service.domain.model import Direction, OperationFilter, OperationType, Page, Row
from subgraphs.analytics.service.domain.statistics import Frame, Group, Statistics, Turnover, buckets


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


class History:
    """Each operation once, however often it was stored. All methods are safe to call again.

    Raises what `Database` raises.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, rows: Sequence[Row]) -> None:
        """Stores rows. Those that are stored already change nothing. On return they are there to be read."""
        await self._database.insert(rows)
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
        ((version,),) = await self._database.query(statement, {"account_id": account_id, "after": after})
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
            {"account_id": account_id, "since": micros(frame.since), "until": micros(frame.until)},
        )
        return _Span(*versions) if count else None

    async def _opening(self, account_id: UUID, span: "_Span") -> tuple[Decimal, str]:
        """The balance that an account came into the frame with, and its currency."""
        ((after, before, currency),) = await self._database.query(
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
            """,  # noqa: S608  a fixed word; values are parameters
            {
                "account_id": account_id,
                "origin": micros(frame.origin),
                "first": span.first,
                "last": span.last,
                "since": micros(frame.since),
                "until": micros(frame.until),
            },
        )
        return [
            Group(bucket, (OperationType(kind), Direction(direction)), Turnover(count, amount), version, balance_after)
            for bucket, kind, direction, count, amount, version, balance_after in groups
        ]

    async def coverage(self, account_ids: Sequence[UUID]) -> dict[UUID, Coverage]:
        """What is stored of each account, in one query; accounts of which nothing is are there too."""
        counted = await self._database.query(
            "SELECT account_id, count(), max(account_version) FROM operations FINAL"
            " WHERE account_id IN {account_ids:Array(UUID)} GROUP BY account_id",
            {"account_ids": list(account_ids)},
        )
        stored = {account_id: Coverage(count, greatest) for account_id, count, greatest in counted}
        return {account_id: stored.get(account_id, Coverage(0, 0)) for account_id in account_ids}

    async def _rows(self, where: str, order: str, parameters: Mapping[str, Any]) -> list[Row]:
        statement = (
            f"SELECT {NAMES} FROM operations FINAL WHERE {where}"  # noqa: S608  fixed text; values are parameters
            f" ORDER BY account_version {order} LIMIT {{limit:UInt32}}"
        )
        return [row_of(row) for row in await self._database.query(statement, parameters)]

    async def _any(self, where: str, parameters: Mapping[str, Any]) -> bool:
        # Without FINAL: a copy proves as much as its original.
        return bool(await self._database.query(f"SELECT 1 FROM operations WHERE {where} LIMIT 1", parameters))  # noqa: S608


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
        add("min_amount", f"amount >= {{min_amount:{DECIMAL}}}", f"{conditions.min_amount:f}")
    if conditions.max_amount is not None:
        add("max_amount", f"amount <= {{max_amount:{DECIMAL}}}", f"{conditions.max_amount:f}")
    # As numbers: exact, and any time that a caller can say is one.
    if conditions.since is not None:
        add("since", "toUnixTimestamp64Micro(occurred_at) >= {since:Int64}", micros(conditions.since))
    if conditions.until is not None:
        add("until", "toUnixTimestamp64Micro(occurred_at) < {until:Int64}", micros(conditions.until))
    return " AND ".join(clauses), values
