"""Decides batches of commands and commits the decisions. All money movements go through `Ledger.commit`."""

from collections.abc import Callable, Sequence

import asyncpg

from subgraphs.bank.service.adapters.postgres.batch import locking_batch, optimistic_batch
from subgraphs.bank.service.domain import rules
from subgraphs.bank.service.domain.model import Command, Outcome


class Ledger:
    """Commits batches of commands, each batch in one transaction of a few statements."""

    def __init__(self, pool: asyncpg.Pool, on_commit: Callable[[], None]) -> None:
        """Args:
        pool: connections to the ledger's database.
        on_commit: called after each commit that added outbox rows; must not block.
        """
        self._pool = pool
        self._on_commit = on_commit

    async def commit(self, commands: Sequence[Command], *, locking: bool = True) -> Sequence[Outcome]:
        """Decide the commands in order and commit the decision, including refusals.

        Args:
            commands: commands that passed `rules.check`.
            locking: True locks the accounts before they are read. False locks the accounts at the write only. This is
                faster, but a concurrent change between read and write causes a Conflict.

        Returns:
            The outcome of each command, in order. A replay of the command returns the same outcome.

        Raises:
            Conflict: nothing was committed; a concurrent transaction changed the same accounts or keys, or the session
                refused writes.
            CommitOutcomeUnknown: the commit may or may not have happened; committing the same commands again is safe
                and returns the outcomes.
            Unavailable: nothing was committed; the database is unreachable.
        """
        async with (locking_batch if locking else optimistic_batch)(self._pool) as batch:
            state = await batch.read(commands)
            decision = rules.decide(state.accounts, state.records, commands, state.now, state.references)
            if decision.new_records:
                await batch.write(decision)
            else:
                await batch.confirm()
        if decision.transfers:
            self._on_commit()
        return decision.outcomes
