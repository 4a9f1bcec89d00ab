"""Fake clients of the services whose results depend on their arguments only: data, errors and gaps."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from subgraphs.analytics import client as analytics
from subgraphs.bank import client as bank
from subgraphs.card import client as card
from tests.operations import new_operation
from tests.unit.gateway.graphql.full_services import ID, MONEY, TIME, FullServices
from wallet.errors import AccountNotFound, InsufficientFunds, InternalError, TransferNotFound, Unavailable

MISSING: Final = UUID("00000000-0000-4000-8000-000000000404")
"""Id of an account, a transfer and a top-up that do not exist."""

_BALANCE: Final = bank.Balance(MONEY, 7, "")


class DecidingServices(FullServices):
    """Services that have every id except `MISSING`. Amounts above 100 are refused; a key `fail` is a defect."""

    def __init__(self) -> None:
        super().__init__(lambda limit: min(limit, 3))

    async def batch_get_accounts(self, ids: Sequence[UUID]) -> Any:
        found: Mapping[UUID, Any] = await super().batch_get_accounts(ids)
        return {**found, **({MISSING: AccountNotFound(str(MISSING))} if MISSING in ids else {})}

    async def batch_get_transfers(self, ids: Sequence[UUID]) -> Any:
        found: Mapping[UUID, Any] = await super().batch_get_transfers(ids)
        return {**found, **({MISSING: TransferNotFound(str(MISSING))} if MISSING in ids else {})}

    async def batch_get_top_ups(self, ids: Sequence[UUID]) -> Any:
        found: Mapping[UUID, Any] = await super().batch_get_top_ups(ids)
        return {**found, **({MISSING: Unavailable("the card service")} if MISSING in ids else {})}

    async def transfer(self, sender_id: UUID, recipient_id: UUID, amount: Any, key: str, *_: Any) -> bank.Receipt:
        if key == "fail":
            raise KeyError(key)
        if MISSING in (sender_id, recipient_id):
            raise AccountNotFound(str(MISSING))
        if amount.amount > 100:
            raise InsufficientFunds(str(sender_id), str(amount), str(MONEY), amount.currency)
        transfer = bank.Transfer(ID, "TRANSFER", sender_id, recipient_id, amount, TIME)
        return bank.Receipt(transfer, bank.Posting(sender_id, 7, MONEY), is_replay=False)

    async def open_account(self, currency: str, key: str, **_: Any) -> bank.OpenedAccount:
        return bank.OpenedAccount(self._account(ID), is_replay=False)

    async def close_account(self, account_id: UUID) -> bank.Account:
        if account_id == MISSING:
            raise InternalError
        return self._account(account_id)

    async def freeze_account(self, account_id: UUID, frozen: Any, reason: str) -> bank.Account:
        return bank.Account(account_id, "alice", MONEY, 1, TIME, TIME, "OPEN", frozen)

    async def thaw_account(self, account_id: UUID, reason: str) -> bank.Account:
        return self._account(account_id)

    async def set_account_floor(self, account_id: UUID, floor: Any, reason: str) -> bank.Account:
        return bank.Account(account_id, "alice", MONEY, 1, TIME, TIME, "OPEN", floor=floor, available=MONEY)

    async def create_top_up(self, account_id: UUID, amount: Any, *_: Any) -> card.CreatedTopUp:
        if account_id == MISSING:
            raise AccountNotFound(str(MISSING))
        return card.CreatedTopUp(self._top_up(), is_replay=False)

    async def get_balance(self, account_id: UUID) -> bank.Balance:
        if account_id == MISSING:
            raise AccountNotFound(str(MISSING))
        return _BALANCE

    async def watch_operations(self, account_id: UUID, after: int, epoch: str) -> AsyncGenerator[Any, None]:
        for version in range(after + 1, after + 3):
            yield new_operation(version, type=version % 3)  # an unspecified type is a defect

    async def watch_new_operations(self, account_id: UUID) -> AsyncGenerator[Any, None]:
        yield analytics.StreamStart(4)
        yield new_operation(5)
        yield new_operation(6, amount=None)

    async def watch_top_up(self, top_up_id: UUID) -> AsyncGenerator[card.TopUp, None]:
        yield self._top_up()
