"""Patch that makes banks in this process date operations in the future, as a wrong clock did in earlier releases."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from subgraphs.bank.service.adapters.postgres.batch import Batch, LedgerState
from subgraphs.bank.service.domain.model import Command

AHEAD = timedelta(days=400)


def dates_transfers_in_the_future(patch: pytest.MonkeyPatch) -> None:
    read = Batch.read

    async def read_with_a_fast_clock(self: Batch, commands: Sequence[Command]) -> LedgerState:
        state = await read(self, commands)
        return state._replace(now=state.now + AHEAD)

    patch.setattr(Batch, "read", read_with_a_fast_clock)
