"""Account ownership and versions, read from the bank."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from cachetools import TTLCache

from kit.auth.principal import Principal
from subgraphs.analytics.service.domain.model import AccountPosition
from subgraphs.bank.client import Balance, BankClient
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
        """Return the position of one account; see `read_positions`.

        Raises:
            AccountNotFound: the account does not exist, or belongs to another user.
            WalletError: one of `TEMPORARY_ERRORS`: the bank gave no decision, and no permission is cached.
        """
        position = (await self.read_positions(caller, [account_id]))[account_id]
        if isinstance(position, WalletError):
            raise position
        return position

    async def read_positions(
        self, caller: Principal, account_ids: Iterable[UUID]
    ) -> dict[UUID, AccountPosition | WalletError | None]:
        """Return the version of each account and the ledger's epoch, if the caller of the current request may read the
        account. The bank is called once.

        The position is None if the bank is unavailable, late or overloaded, but has allowed the caller to read the
        account in the last minute. It is an error if the account does not exist or belongs to another user, or if the
        bank gave no decision and no permission is cached (one of `TEMPORARY_ERRORS`).
        """
        keys = {account_id: (caller.scope, account_id) for account_id in account_ids}
        are_readable = all(key in self._readable for key in keys.values())
        balances: dict[UUID, Balance | WalletError]
        try:
            async with asyncio.timeout(_VERSION_TIMEOUT_SECONDS if are_readable else None):
                balances = await self._bank.batch_get_balances(list(keys))
        except TimeoutError:
            return dict.fromkeys(keys)
        except WalletError as error:
            balances = dict.fromkeys(keys, error)
        return {id_: self._position(key, balances[id_]) for id_, key in keys.items()}

    def _position(self, key: tuple[str, UUID], balance: Balance | WalletError) -> AccountPosition | WalletError | None:
        if isinstance(balance, TEMPORARY_ERRORS):
            return None if key in self._readable else balance
        if isinstance(balance, WalletError):
            self._readable.pop(key, None)
            return balance
        self._readable[key] = True
        return AccountPosition(balance.version, balance.epoch)
