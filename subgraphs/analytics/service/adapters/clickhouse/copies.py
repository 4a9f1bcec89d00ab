"""The history as a proof sees it: every stored copy of an operation, whatever it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.table import NAMES, row_of
from subgraphs.analytics.service.domain.model import MAX_VERSION, Row

_DIGEST: Final = f"hex(sipHash128({NAMES}))"
"""Of a row's whole content."""


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


class Copies:
    """Finds stored copies, and removes those that it is told to. All methods are safe to call again.

    Raises what `Database` raises.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

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
        found = await self._database.query(
            "SELECT account_id, min(account_version), max(account_version) FROM operations"
            " WHERE {is_first:Bool} OR account_id > {after:UUID}"
            " GROUP BY account_id ORDER BY account_id LIMIT {limit:UInt32} SETTINGS optimize_aggregation_in_order = 1",
            {"is_first": after is None, "after": after or UUID(int=0), "limit": limit},
        )
        return [Extent(*row) for row in found]

    async def extent(self, account_id: UUID) -> Extent | None:
        """What versions of the account are stored, if any."""
        found = await self._database.query(
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
        await self._database.command(statement, parameters)

    async def _copies(self, where: str, parameters: Mapping[str, Any]) -> list[Copy]:
        # Without FINAL, which would show the copy that was stored last alone.
        statement = f"SELECT DISTINCT {NAMES}, {_DIGEST} FROM operations WHERE {where}"  # noqa: S608  fixed text
        return [Copy(row_of(row), digest) for *row, digest in await self._database.query(statement, parameters)]
