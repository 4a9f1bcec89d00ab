"""Whose account it is: the bank knows, and is asked once a minute."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from kit.auth.principal import Principal
from subgraphs.bank.client import BankClient

_SECONDS: Final = 60.0
_REMEMBERED: Final = 10_000


class Access:
    """Lets owners read their accounts, and those read any who read all: the bank tells them apart.

    A yes is remembered for a minute, so an owner who loses an account may read on for as long. A no is not.
    """

    def __init__(self, bank: BankClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._bank = bank
        self._clock = clock
        self._until: OrderedDict[tuple[str, UUID], float] = OrderedDict()

    async def check(self, caller: Principal, account_id: UUID) -> None:
        """Returns when the caller, who is the current call's, may read the account.

        Raises:
            AccountNotFound: there is none, or it is another's.
            Unavailable: the bank does not answer.
        """
        key = (caller.scope, account_id)
        now = self._clock()
        if self._until.get(key, now) > now:
            return
        await self._bank.get_account(account_id)
        self._until[key] = now + _SECONDS
        self._until.move_to_end(key)
        while len(self._until) > _REMEMBERED:
            self._until.popitem(last=False)
