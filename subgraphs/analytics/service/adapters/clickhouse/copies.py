"""The history with all stored copies of each operation, for the integrity check and the replay.

A copy is one stored row of an operation. An operation may have several copies until ClickHouse merges them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.table import NAMES, row_from_values
from subgraphs.analytics.service.domain.model import MAX_VERSION, Row

_DIGEST: Final = f"hex(sipHash128({NAMES}))"
"""Digest of all columns of a row."""

MAX_COPIES: Final = 10
"""Maximum number of different copies of one version in the result of `Copies.list_copies`. It bounds the memory that
the result needs.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Versions of an account: above `after`, up to and including `up_to`."""

    account_id: UUID
    after: int
    up_to: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A stored row. `digest` identifies its content, so that exactly this copy can be deleted."""

    row: Row
    digest: str


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The lowest and the highest stored version of an account."""

    account_id: UUID
    lowest: int
    highest: int


class Copies:
    """Finds and deletes stored copies. A retry of any method is safe.

    Raises what `Database` raises.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_copies(self, windows: Sequence[Window]) -> list[Copy]:
        """Return the stored copies of the operations in the windows, by account and version.

        Equal copies are returned once. A version has at most `MAX_COPIES` different copies in the result.
        """
        # The condition lists the pairs of account and version, so ClickHouse reads only the windows.
        condition = f"""
            (account_id, account_version) IN (
                SELECT w.1, arrayJoin(range(w.2 + 1, w.3 + 1))
                FROM (SELECT arrayJoin(arrayZip(
                    {{account_ids:Array(UUID)}}, {{after:Array(Int64)}}, {{up_to:Array(Int64)}}
                )) AS w)
            )
            ORDER BY account_id, account_version LIMIT {MAX_COPIES} BY account_id, account_version
        """  # noqa: S608  fixed text
        parameters = {
            "account_ids": [window.account_id for window in windows],
            "after": [window.after for window in windows],
            "up_to": [window.up_to for window in windows],
        }
        return await self._copies(condition, parameters)

    async def list_version_ranges(self, after: UUID | None, limit: int) -> list[VersionRange]:
        """Return the version ranges of at most `limit` accounts after the id `after`, in ClickHouse's order of ids."""
        # Aggregation in key order: the cost of a page does not depend on the rows after it.
        ranges = await self._database.query(
            "SELECT account_id, min(account_version), max(account_version) FROM operations"
            " WHERE {is_first:Bool} OR account_id > {after:UUID}"
            " GROUP BY account_id ORDER BY account_id LIMIT {limit:UInt32} SETTINGS optimize_aggregation_in_order = 1",
            {"is_first": after is None, "after": after or UUID(int=0), "limit": limit},
        )
        return [VersionRange(*row) for row in ranges]

    async def get_version_range(self, account_id: UUID) -> VersionRange | None:
        """Return the range of an account's stored versions; None without stored operations."""
        ranges = await self._database.query(
            "SELECT account_id, min(account_version), max(account_version) FROM operations"
            " WHERE account_id = {account_id:UUID} GROUP BY account_id",
            {"account_id": account_id},
        )
        return VersionRange(*ranges[0]) if ranges else None

    async def list_copies_outside(self, account_id: UUID, version: int, after: int | None, limit: int) -> list[Copy]:
        """Return stored copies of an account with versions outside of 1 to `version`, in version order.

        Args:
            account_id: id of the account.
            version: version of the account in the ledger.
            after: copies above this version are returned; None for all.
            limit: number of copies. The result may have more, because it has all copies of its last version.
        """
        condition = """
            account_id = {account_id:UUID} AND account_version > {after:Int64}
            AND (account_version < 1 OR account_version > {version:Int64})
            ORDER BY account_version LIMIT {limit:UInt32} WITH TIES
        """
        after = -MAX_VERSION - 1 if after is None else after
        return await self._copies(
            condition, {"account_id": account_id, "version": version, "after": after, "limit": limit}
        )

    async def delete_copies(self, copies: Sequence[Copy]) -> None:
        """Delete exactly these copies. Other copies of the operations stay, also those inserted at the same time."""
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

    async def _copies(self, condition: str, parameters: Mapping[str, Any]) -> list[Copy]:
        # Without FINAL, which returns only the copy that was inserted last.
        statement = f"SELECT DISTINCT {NAMES}, {_DIGEST} FROM operations WHERE {condition}"  # noqa: S608  fixed text
        rows = await self._database.query(statement, parameters)
        return [Copy(row_from_values(row), digest) for *row, digest in rows]
