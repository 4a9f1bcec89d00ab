"""Repair of operations of the ledger that are dated in the future. An administrator starts it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

import asyncpg
import structlog

from subgraphs.bank.service.adapters.postgres.redatings import Redatings
from subgraphs.bank.service.domain.redating import redate
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

_NOTHING: Final = (0, 0)


@dataclass(frozen=True, slots=True)
class Progress:
    """Number of transfers whose date is changed, in a transaction that is not committed yet."""

    transfers: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a repair.

    Attributes:
        outcome: `found`: nothing was changed, because `apply` was false; `redated`: committed;
            `contradiction`: nothing was changed, because rows contradict each other;
            `unavailable`: the database failed. After a failed commit the outcome is unknown; otherwise nothing was
            changed.
        transfers: number of transfers dated in the future.
        accounts: number of accounts whose last change is dated in the future.
        seconds: duration.
    """

    outcome: Literal["found", "redated", "contradiction", "unavailable"]
    transfers: int
    accounts: int
    seconds: float


class Redating:
    """Gives new dates to operations that are dated in the future, in the order of the accounts' versions.

    Versions, balances and keys do not change. Each new date is recorded in the table `redatings`. No other operation
    is committed while dates are changed.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Args:
        pool: connections to the ledger's database; a repair holds one of them.
        """
        self._pool = pool

    async def run(self, redated_by: str, *, apply: bool) -> AsyncGenerator[Progress | Outcome, None]:
        """Yield the progress, then the outcome. Safe to repeat. Closing the generator before the outcome rolls back.

        Args:
            redated_by: principal of the administrator, which is recorded.
            apply: change the dates; otherwise only count the operations.
        """
        started, counts = time.monotonic(), _NOTHING
        outcome: Literal["found", "redated", "contradiction", "unavailable"]
        try:
            async with Redatings.begin(self._pool, writes=apply) as redatings:
                future = await redatings.find()
                counts = len(future.transfers), len(future.last_dates)
                outcome = "found"
                if apply:
                    dates, last = await asyncio.to_thread(redate, future.transfers, future.last_dates, future.now)
                    async for done in redatings.set_transfer_dates(dates, redated_by):
                        yield Progress(done)
                    await redatings.set_account_dates(last, future.now)
                    await redatings.end()
                    outcome = "redated"
        except ValueError as error:
            log.error("redating impossible: run the integrity check", error=str(error))
            outcome = "contradiction"
        except WalletError as error:
            cause = error.__cause__ or error
            log.warning("redating interrupted", error=f"{type(cause).__name__}: {cause}")
            outcome = "unavailable"
        transfers, accounts = counts
        log.warning("redating finished", outcome=outcome, transfers=transfers, accounts=accounts, by=redated_by)
        yield Outcome(outcome, transfers, accounts, round(time.monotonic() - started, 3))
