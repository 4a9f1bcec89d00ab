"""The bank as the saga needs it, asked under the service's own name."""

from collections.abc import AsyncIterator, Callable
from typing import Final
from uuid import UUID

from kit.rpc import request_context
from subgraphs.bank.client import Account, BankClient, Transfer
from subgraphs.card.service.domain.top_up import AccountRefused, Deposit, DepositConflict, Deposited, TopUp
from wallet.accounts import clearing_account_id
from wallet.errors import (
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    IdempotencyConflict,
    InvalidInput,
    TransferNotFound,
)

_FOR_GOOD: Final = (AccountNotFound, AccountClosed, CurrencyMismatch)
"""What the bank refuses now it refuses always: the key of a deposit that was refused is pinned to that."""

_PAGE: Final = 1_000


class Ledger:
    """Where the money goes. Every method raises the WalletError that leaves the outcome unknown, and is safe to call
    again.
    """

    def __init__(self, client: BankClient, token: Callable[[], str]) -> None:
        """Args:
        client: of the bank.
        token: the service's own, valid for minutes whenever it is asked for.
        """
        self._bank = client
        self._token = token

    async def check(self, top_up: TopUp) -> AccountRefused | None:
        """Why the account cannot be credited for good, as far as that is known before it is tried."""
        with request_context.as_service(self._token):
            try:
                check_account(await self._bank.get_account(top_up.account_id), top_up.amount.currency)
            except _FOR_GOOD as refusal:
                return AccountRefused(refusal.reason)
        return None

    async def deposit(self, top_up: TopUp) -> Deposited | AccountRefused | DepositConflict:
        """Credits the account, once for the top-up."""
        with request_context.as_service(self._token):
            try:
                receipt = await self._bank.deposit(top_up.account_id, top_up.amount, str(top_up.id), top_up.descriptor)
            except _FOR_GOOD as refusal:
                return AccountRefused(refusal.reason)
            except (IdempotencyConflict, InvalidInput):  # the latter before the key is looked up: it says nothing of it
                return DepositConflict()
        return Deposited(receipt.transfer.id)

    async def deposit_of(self, transfer_id: UUID) -> Transfer | None:
        """A transfer of the ledger, or None if it has none such."""
        with request_context.as_service(self._token):
            try:
                return await self._bank.get_transfer(transfer_id)
            except TransferNotFound:
                return None

    async def deposits(self, currency: str) -> AsyncIterator[list[Deposit]]:
        """Every deposit of a currency that says it is of a top-up, oldest first, page by page."""
        clearing, version, is_last = clearing_account_id(currency), 0, False
        while not is_last:
            with request_context.as_service(self._token):  # for each page: a walk over all of them may outlast a token
                page = await self._bank.list_events(clearing, version, _PAGE)
            is_last = len(page) < _PAGE
            version = page[-1].sender.version if page else version
            yield [
                Deposit(
                    event.transfer.id, event.descriptor["topUpId"], event.transfer.recipient_id, event.transfer.amount
                )
                for event in page
                if "topUpId" in event.descriptor
            ]


def check_account(account: Account, currency: str) -> None:
    """Returns when the account can be credited in the currency.

    Raises:
        AccountClosed, CurrencyMismatch: it cannot.
    """
    if account.status == "CLOSED":
        raise AccountClosed(str(account.id))
    if account.balance.currency != currency:
        raise CurrencyMismatch(str(account.id), currency)
