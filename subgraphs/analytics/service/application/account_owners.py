"""Account ownership, cached from the bank."""

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from cachetools import TTLCache

from kit.auth.principal import Principal
from subgraphs.bank.client import BankClient

_CACHE_SECONDS: Final = 60.0
_CACHE_SIZE: Final = 10_000


class AccountOwners:
    """Checks that a caller may read an account: the bank decides, by the caller's token.

    A positive answer is cached for a minute, so a former owner may read on for that long. A refusal is not cached.
    """

    def __init__(self, bank: BankClient, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        bank: gRPC client of the bank; calls have the identity of the current caller.
        clock: returns seconds.
        """
        self._bank = bank
        self._readable: TTLCache[tuple[str, UUID], bool] = TTLCache(_CACHE_SIZE, _CACHE_SECONDS, clock)

    async def check(self, caller: Principal, account_id: UUID) -> None:
        """Check that the caller of the current request may read the account.

        Raises:
            AccountNotFound: the account does not exist, or belongs to another user.
            Unavailable: the bank does not answer.
        """
        key = (caller.scope, account_id)
        if key not in self._readable:
            await self._bank.get_account(account_id)
            self._readable[key] = True
