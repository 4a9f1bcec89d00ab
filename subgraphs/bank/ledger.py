"""Commands in, outcomes out: what is decided is committed, and what is committed is decided once."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg

from subgraphs.bank import domain
from subgraphs.bank.domain import Command, Operation, Outcome
from subgraphs.bank.repository.batch import Conflict, transaction
from wallet.errors import Unavailable

_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.02


class Ledger:
    """The one place that commits money."""

    def __init__(self, pool: asyncpg.Pool, on_commit: Callable[[], None]) -> None:
        """Args:
        pool: of connections to the ledger's database.
        on_commit: called after each commit that has something to publish.
        """
        self._pool = pool
        self._on_commit = on_commit

    async def submit(self, command: Command) -> Outcome:
        """Decides and commits one command.

        Returns:
            The operation, or the refusal: both are committed with the command's key and answered again on a replay.

        Raises:
            Unavailable: the outcome is unknown; submitting the same key again is safe.
        """
        for attempt in range(_ATTEMPTS):
            try:
                (outcome,) = await self._commit([command])
            except Conflict:
                await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS * 2**attempt))  # noqa: S311  jitter, no secret
            else:
                return outcome
        raise Unavailable("the ledger")

    async def submit_all(self, commands: Sequence[Command]) -> list[Outcome]:
        """The outcome of each command, in order; what `submit` would raise for one stands in its place."""
        return [await self.submit(command) for command in commands]

    async def _commit(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """One transaction for all of the commands."""
        async with transaction(self._pool) as batch:
            accounts = await batch.lock(
                id_ for command in commands for id_ in (command.sender_id, command.recipient_id)
            )
            remembered = await batch.recall([command.key for command in commands])
            decision = domain.decide(accounts, remembered, commands, datetime.now(UTC))
            if decision.remember:
                await batch.write(decision, {command.transfer_id: command.key.key for command in commands})
        if decision.operations:
            self._on_commit()
        return decision.outcomes


def result(outcome: Outcome) -> Operation:
    """The operation, or the refusal raised."""
    if isinstance(outcome, Operation):
        return outcome
    raise outcome
