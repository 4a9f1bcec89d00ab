"""The bank's ledger as the saga uses it. All calls have the identity of the card service."""

from collections.abc import AsyncIterator, Callable
from typing import Final
from uuid import UUID

from kit.rpc import request_context
from subgraphs.bank.client import Account, BankClient, Transfer
from subgraphs.card.service.domain.deposit import AccountRefused, Deposit, DepositConflict, Deposited
from subgraphs.card.service.domain.top_up import TopUp
from wallet.accounts import clearing_account_id
from wallet.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    CurrencyMismatch,
    IdempotencyConflict,
    InvalidInput,
    TransferNotFound,
)

_PERMANENT_REFUSALS: Final = (AccountNotFound, AccountClosed, AccountFrozen, CurrencyMismatch)
"""The bank stores a refusal with the deposit's key, so a retry is refused as well, even if the account is opened later.

The saga relies on this: after a refused deposit it refunds the payment, and no late call can credit the account.
"""

_PAGE_SIZE: Final = 1_000


class BankLedger:
    """Credits accounts and reads deposits.

    Every method raises a WalletError if the outcome is unknown. All methods are safe to repeat.
    """

    def __init__(self, client: BankClient, token: Callable[[], str]) -> None:
        """Args:
        client: gRPC client of the bank.
        token: returns a token of the card service that is valid for some minutes.
        """
        self._bank = client
        self._token = token

    async def find_refusal(self, top_up: TopUp) -> AccountRefused | None:
        """Return the permanent refusal that `deposit` would get now, without storing it with the deposit's key.

        None if the account can be credited.
        """
        with request_context.as_service(self._token):
            try:
                check_account(await self._bank.get_account(top_up.account_id), top_up.amount.currency)
            except _PERMANENT_REFUSALS as refusal:
                return AccountRefused(refusal.reason)
        return None

    async def deposit(self, top_up: TopUp) -> Deposited | AccountRefused | DepositConflict:
        """Credit the account, once for each top-up."""
        with request_context.as_service(self._token):
            try:
                receipt = await self._bank.deposit(top_up.account_id, top_up.amount, str(top_up.id), top_up.descriptor)
            except _PERMANENT_REFUSALS as refusal:
                return AccountRefused(refusal.reason)
            # After both errors an earlier deposit may exist: the bank validates a request before it looks up the key.
            except (IdempotencyConflict, InvalidInput):
                return DepositConflict()
        return Deposited(receipt.transfer.id)

    async def get_transfer(self, transfer_id: UUID) -> Transfer | None:
        """Return a transfer of the ledger; None if it does not exist."""
        with request_context.as_service(self._token):
            try:
                return await self._bank.get_transfer(transfer_id)
            except TransferNotFound:
                return None

    async def find_deposit(self, top_up: TopUp) -> UUID | None:
        """Return the id of a completed top-up's deposit in the ledger; None if the ledger lacks it.

        Usually this is `top_up.transfer_id`. If the ledger was restored twice, it may have an earlier deposit of the
        top-up instead, with another id. So if it lacks `transfer_id`, all operations of the account are searched.
        """
        if top_up.transfer_id is not None and await self.get_transfer(top_up.transfer_id) is not None:
            return top_up.transfer_id
        version, is_last = 0, False
        while not is_last:
            with request_context.as_service(self._token):
                page = await self._bank.list_events(top_up.account_id, version, _PAGE_SIZE)
            is_last, version = len(page) < _PAGE_SIZE, version + len(page)  # versions have no gaps
            for event in page:
                if event.descriptor.get("topUpId") == str(top_up.id):
                    return event.transfer.id
        return None

    async def list_deposits(self, currency: str) -> AsyncIterator[list[Deposit]]:
        """Yield, in pages, all deposits of a currency whose descriptor names a top-up, oldest first."""
        clearing, version, is_last = clearing_account_id(currency), 0, False
        while not is_last:
            with request_context.as_service(self._token):  # for each page: the scan may outlast a token's validity
                page = await self._bank.list_events(clearing, version, _PAGE_SIZE)
            is_last = len(page) < _PAGE_SIZE
            version = page[-1].sender.version if page else version
            yield [
                Deposit(
                    event.transfer.id, event.descriptor["topUpId"], event.transfer.recipient_id, event.transfer.amount
                )
                for event in page
                if "topUpId" in event.descriptor
            ]


def check_account(account: Account, currency: str) -> None:
    """Check that the account can be credited in the currency.

    Raises:
        AccountClosed: the account is closed.
        AccountFrozen: the account is frozen and cannot be paid.
        CurrencyMismatch: the account has another currency.
    """
    if account.status == "CLOSED":
        raise AccountClosed(str(account.id))
    if account.frozen in {"INCOMING", "ALL"}:
        raise AccountFrozen(str(account.id))
    if account.balance.currency != currency:
        raise CurrencyMismatch(str(account.id), currency)
