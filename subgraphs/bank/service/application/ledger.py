"""The one place that commits money: what is decided is committed, and what is committed is decided once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import asyncpg

from subgraphs.bank.service.adapters.postgres.batch import attempt, transaction
from subgraphs.bank.service.domain import model as domain
from subgraphs.bank.service.domain.model import Command, Outcome


class Ledger:
    """Commits batches of commands, each batch in one transaction of a few statements."""

    def __init__(self, pool: asyncpg.Pool, on_commit: Callable[[], None]) -> None:
        """Args:
        pool: of connections to the ledger's database.
        on_commit: called after each commit that has something to publish.
        """
        self._pool = pool
        self._on_commit = on_commit

    async def commit(self, commands: Sequence[Command], *, locking: bool = True) -> Sequence[Outcome]:
        """Decides the commands in order and commits what they lead to, refusals included.

        Args:
            commands: checked ones.
            locking: whether the accounts are locked before they are read, or only when all is written: sooner done
                where nobody else is at them, and a conflict where somebody is.

        Returns:
            The outcome of each: from now on what its key answers.

        Raises:
            Conflict: nothing was done; another transaction was first.
            Lost: it is not known what was done; committing the same commands again tells.
            Unavailable: nothing was done; the database is away.
        """
        async with (transaction if locking else attempt)(self._pool) as batch:
            accounts, remembered = await batch.read(commands)
            decision = domain.decide(accounts, remembered, commands, datetime.now(UTC))
            if decision.remember:
                await batch.write(decision)
        if decision.transfers:
            self._on_commit()
        return decision.outcomes
