"""The bank's ledger, read with the identity of analytics.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final
from uuid import UUID

from kit.rpc import request_context
from subgraphs.analytics.service.domain.model import NO_WORDS, Event, HeldPosting, OperationType, Posting, Words
from subgraphs.bank import client as bank
from subgraphs.bank.client import BankClient
from wallet.errors import AccountNotFound
from wallet.money import Money

_PAGE_SIZE: Final = 1_000
_TYPES: Final = {"TRANSFER": OperationType.TRANSFER, "DEPOSIT": OperationType.TOP_UP}


class BankLedger:
    """Reads versions and operations of all accounts.

    Methods raise what `BankClient` raises. A retry is safe.
    """

    def __init__(self, client: BankClient, token: Callable[[], str]) -> None:
        """Args:
        client: gRPC client of the bank.
        token: returns a token of analytics that is valid for minutes.
        """
        self._bank = client
        self._token = token

    async def list_all_versions(self) -> AsyncIterator[dict[UUID, int]]:
        """Yield the current version of every account, one page at a time."""
        pages = self._bank.list_account_versions(_PAGE_SIZE)
        while True:
            with request_context.as_service(self._token):  # for each page: the whole list may outlast a token
                page = await anext(pages, None)
            if page is None:
                return
            yield {account.account_id: account.version for account in page}

    async def get_versions(self, account_ids: list[UUID]) -> dict[UUID, int]:
        """Return the current versions of these accounts. Accounts that the ledger does not have are left out."""
        versions: dict[UUID, int] = {}
        for start in range(0, len(account_ids), _PAGE_SIZE):
            with request_context.as_service(self._token):
                accounts = await self._bank.batch_get_accounts(account_ids[start : start + _PAGE_SIZE])
            for id_, account in accounts.items():
                if isinstance(account, bank.Account):
                    versions[id_] = account.version
                elif not isinstance(account, AccountNotFound):  # an account that exists must not count as missing
                    raise account
        return versions

    async def get_opening_balance(self, account_id: UUID) -> Money:
        """Return the account's balance before its first operation.

        Raises:
            AccountNotFound: the ledger does not have the account.
        """
        with request_context.as_service(self._token):
            account = await self._bank.get_account(account_id)
            if account.version == 0:
                return account.balance
            first, *_ = await self._bank.list_events(account_id, 0, 1)
        if first.sender.account_id == account_id:
            return first.sender.balance_after + first.transfer.amount
        return first.recipient.balance_after - first.transfer.amount

    async def list_events(self, account_id: UUID, after_version: int, limit: int | None = None) -> list[Event]:
        """Return the account's next operations after a version, in version order; an empty list at the end.

        Args:
            account_id: id of the account.
            after_version: operations above this version are returned.
            limit: maximum number of operations, at most 1,000; None for 1,000.
        """
        page_size = _PAGE_SIZE if limit is None else min(limit, _PAGE_SIZE)
        with request_context.as_service(self._token):
            events = await self._bank.list_events(account_id, after_version, page_size)
        return [event_from_bank(event) for event in events]

    async def verify_history(
        self, epoch: str, past_epochs: Sequence[str], postings: Sequence[HeldPosting]
    ) -> bank.LedgerIdentity:
        """Compare postings of the history with the ledger, and return the ledger's identity.

        The bank begins a new epoch if the ledger contradicts a posting.

        Args:
            epoch: epoch of the history.
            past_epochs: past epochs that are stored with the history, oldest first.
            postings: operations of the history with their accounts and versions; at most 1,000.
        """
        held = [bank.HeldPosting(each.account_id, each.version, each.operation_id) for each in postings]
        with request_context.as_service(self._token):
            return await self._bank.verify_history(epoch, past_epochs, held)


def event_from_bank(event: bank.Event) -> Event:
    """Convert an operation of the ledger. The result equals the event that the topic has for it."""
    transfer = event.transfer
    sender, recipient = (
        Posting(side.account_id, side.version, side.balance_after) for side in (event.sender, event.recipient)
    )
    words = NO_WORDS
    if event.created_by or transfer.description:
        words = Words(transfer.description, transfer.reference, transfer.metadata, event.created_by)
    return Event(
        transfer.id, _TYPES[transfer.kind], transfer.amount, sender, recipient, transfer.created_at, event.epoch, words
    )
