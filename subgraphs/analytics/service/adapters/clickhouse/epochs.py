"""The epoch that the history belongs to, and the replacement of the history when the ledger begins another epoch.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
The epoch is stored in the comment of the table `operations`, so an exchange of tables replaces rows and epoch
atomically.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

import structlog

from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.domain.model import Row

log = structlog.get_logger(__name__)

FIRST_EPOCH: Final = ""


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """Epoch of the stored history.

    Attributes:
        id: id of the epoch; empty for the ledger's first epoch.
        past: past epochs of the ledger, oldest first.
    """

    id: str = FIRST_EPOCH
    past: tuple[str, ...] = ()

    def next(self, epoch: str, ledger_past: Iterable[str]) -> "StoredEpoch":
        """Return what to store when the ledger has begun the epoch `epoch`: this epoch becomes a past one.

        The ledger's past epochs are added, because a history that was lost and is rebuilt has no past epochs.
        """
        return StoredEpoch(epoch, tuple(dict.fromkeys((*ledger_past, *self.past, self.id))))


class EpochTables:
    """Reads the epoch of the history, and replaces the history.

    Raises what `Database` raises.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> StoredEpoch:
        """Return the epoch of the history."""
        return await self._read("operations")

    async def create(self, epoch: StoredEpoch) -> str:
        """Create an empty table for the history of an epoch, and return its name."""
        past = [each and str(UUID(each)) for each in epoch.past]
        comment = json.dumps({"epoch": str(UUID(epoch.id)), "past": past})
        table = f"operations_build_{uuid4().hex}"
        await self._database.command(f"CREATE TABLE {table} AS operations COMMENT '{comment}'", {})
        return table

    async def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Insert rows into a table that `create` has created."""
        await self._database.insert(rows, table)

    async def drop(self, table: str) -> None:
        """Drop a table that `create` has created."""
        await self._database.command(f"DROP TABLE IF EXISTS {table}", {})

    async def replace_history(self, table: str) -> None:
        """Replace the history by a table that `create` has created. Keep the previous history.

        The previous history gets the name `operations_before_<epoch>`. If a table with this name exists, because the
        history of this epoch was lost and is rebuilt, the name ends with a random number. If another process has
        already replaced the history, the new table is dropped.
        """
        epoch = await self._read(table)
        if (await self.read()).id != epoch.id:  # another process may have rebuilt the history
            await self._database.command(f"EXCHANGE TABLES operations AND {table}", {})
        previous = await self._read(table)
        if previous.id == epoch.id:
            await self.drop(table)
            return
        kept = f"operations_before_{epoch.id.replace('-', '_')}"
        if await self._comments(kept):
            kept = f"{kept}_{uuid4().hex}"
        await self._database.command(f"RENAME TABLE {table} TO {kept}", {})
        log.warning("previous history kept", table=kept, epoch=previous.id)

    async def _read(self, table: str) -> StoredEpoch:
        comments = await self._comments(table)
        if not comments or not comments[0].startswith("{"):
            return StoredEpoch()
        comment = json.loads(comments[0])
        return StoredEpoch(comment["epoch"], tuple(comment["past"]))

    async def _comments(self, table: str) -> list[str]:
        """Return the comment of a table, in a list; an empty list if the table does not exist."""
        rows = await self._database.query(
            "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
            {"table": table},
        )
        return [comment for (comment,) in rows]
