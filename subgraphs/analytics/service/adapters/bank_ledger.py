"""The bank as analytics asks it in its own name."""

from collections.abc import AsyncIterator, Callable
from typing import Final
from uuid import UUID

from kit.rpc import request_context
from subgraphs.analytics.service.domain.model import Event, OperationType, Posting
from subgraphs.bank import client as bank
from subgraphs.bank.client import BankClient
from wallet.errors import AccountNotFound
from wallet.money import Money

_PAGE: Final = 1_000
_TYPES: Final = {"TRANSFER": OperationType.TRANSFER, "DEPOSIT": OperationType.TOP_UP}


class Ledger:
    """The truth about any account, whoever's it is.

    Methods raise what `BankClient` raises, and are safe to call again.
    """

    def __init__(self, client: BankClient, token: Callable[[], str]) -> None:
        """Args:
        client: of the bank.
        token: the service's own, valid for minutes whenever it is asked for.
        """
        self._bank = client
        self._token = token

    async def all_versions(self) -> AsyncIterator[dict[UUID, int]]:
        """Every account's version now, page by page."""
        pages = self._bank.list_account_versions(_PAGE)
        while True:
            with request_context.as_service(self._token):  # for each page: a walk over all of them may outlast a token
                page = await anext(pages, None)
            if page is None:
                return
            yield {account.account_id: account.version for account in page}

    async def versions(self, account_ids: list[UUID]) -> dict[UUID, int]:
        """The accounts' versions now; what is no account of the ledger is left out."""
        found: dict[UUID, int] = {}
        for start in range(0, len(account_ids), _PAGE):
            with request_context.as_service(self._token):
                accounts = await self._bank.batch_get_accounts(account_ids[start : start + _PAGE])
            for id_, account in accounts.items():
                if isinstance(account, bank.Account):
                    found[id_] = account.version
                elif not isinstance(account, AccountNotFound):  # or what is there would be taken for unknown
                    raise account
        return found

    async def opening(self, account_id: UUID) -> Money:
        """What the account held before its first operation.

        Raises:
            AccountNotFound: there is none.
        """
        with request_context.as_service(self._token):
            account = await self._bank.get_account(account_id)
            if account.version == 0:
                return account.balance
            first, *_ = await self._bank.list_events(account_id, 0, 1)
        if first.sender.account_id == account_id:
            return first.sender.balance_after + first.transfer.amount
        return first.recipient.balance_after - first.transfer.amount

    async def events(self, account_id: UUID, after_version: int, limit: int | None = None) -> list[Event]:
        """The account's next operations after a version, in order, at most so many; none when there are no more."""
        page = _PAGE if limit is None else min(limit, _PAGE)
        with request_context.as_service(self._token):
            return [event_of(event) for event in await self._bank.list_events(account_id, after_version, page)]


def event_of(event: bank.Event) -> Event:
    """The ledger's word for an operation as the topic's: the same value by either road."""
    transfer = event.transfer
    sender, recipient = (
        Posting(side.account_id, side.version, side.balance_after) for side in (event.sender, event.recipient)
    )
    return Event(transfer.id, _TYPES[transfer.kind], transfer.amount, sender, recipient, transfer.created_at)
