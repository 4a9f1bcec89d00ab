"""DataLoaders of accounts, transfers and pages of accounts. Each collects the keys of one event-loop tick."""

from dataclasses import dataclass
from uuid import UUID

from strawberry.dataloader import DataLoader

from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import loading

AccountLoader = DataLoader[UUID, client.Account]
TransferLoader = DataLoader[UUID, client.Transfer]
BalanceLoader = DataLoader[client.BalanceRequest, client.BalanceAt]


@dataclass(frozen=True, slots=True)
class AccountPageRequest:
    """Arguments of `BankClient.list_accounts`; an empty `owner_id` means the caller."""

    owner_id: str
    limit: int
    after: UUID | None
    before: UUID | None


AccountPageLoader = DataLoader[AccountPageRequest, client.AccountPage]


def account_loader(bank: BankClient) -> AccountLoader:
    """Create a loader of accounts for one request."""
    return loading.batch_loader(bank.batch_get_accounts)


def transfer_loader(bank: BankClient) -> TransferLoader:
    """Create a loader of transfers for one request."""
    return loading.batch_loader(bank.batch_get_transfers)


def balance_loader(bank: BankClient) -> BalanceLoader:
    """Create a loader of balances after a version or at a time, for one request."""
    return loading.batch_loader(bank.batch_get_balances_at)


def account_page_loader(bank: BankClient) -> AccountPageLoader:
    """Create a loader of pages for one request. Equal requests of a tick are one RPC."""

    async def load(request: AccountPageRequest) -> client.AccountPage:
        return await bank.list_accounts(
            request.owner_id, limit=request.limit, after=request.after, before=request.before
        )

    return loading.single_loader(load)
