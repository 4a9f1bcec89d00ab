"""Account ownership and versions, read from the bank."""

import asyncio
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from cachetools import TTLCache

from kit.auth.principal import Principal
from subgraphs.analytics.service.domain.model import AccountPosition
from subgraphs.bank.client import BankClient
from wallet.errors import TEMPORARY_ERRORS, WalletError

_CACHE_SECONDS: Final = 60.0
_CACHE_SIZE: Final = 10_000
_VERSION_TIMEOUT_SECONDS: Final = 0.5
"""Time-out of the bank's response for a caller whose permission is cached."""


class AccountOwners:
    """Checks that a caller may read an account: the bank decides, by the caller's token.

    A permission is cached for a minute, and is used while the bank gives no decision. A refusal is not cached.
    """

    def __init__(self, bank: BankClient, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        bank: gRPC client of the bank; calls have the identity of the current caller.
        clock: returns seconds.
        """
        self._bank = bank
        self._readable: TTLCache[tuple[str, UUID], bool] = TTLCache(_CACHE_SIZE, _CACHE_SECONDS, clock)

    async def read_position(self, caller: Principal, account_id: UUID) -> AccountPosition | None:
        """Return the account's version and the ledger's epoch, if the caller of the current request may read the
        account.

        Returns None if the bank is unavailable, late or overloaded, but has allowed the caller to read the account in
        the last minute.

        Raises:
            AccountNotFound: the account does not exist, or belongs to another user.
            WalletError: one of `TEMPORARY_ERRORS`: the bank gave no decision, and no permission is cached.
        """
        key = (caller.scope, account_id)
        is_readable = key in self._readable
        try:
            async with asyncio.timeout(_VERSION_TIMEOUT_SECONDS if is_readable else None):
                balance = await self._bank.get_balance(account_id)
        except (*TEMPORARY_ERRORS, TimeoutError):
            if is_readable:
                return None
            raise
        except WalletError:
            self._readable.pop(key, None)
            raise
        self._readable[key] = True
        return AccountPosition(balance.version, balance.epoch)
