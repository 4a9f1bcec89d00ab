"""DataLoaders of accounts and transfers: each collects the ids of one event-loop tick into one RPC."""

from uuid import UUID

from strawberry.dataloader import DataLoader

from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import loading

AccountLoader = DataLoader[UUID, client.Account]
TransferLoader = DataLoader[UUID, client.Transfer]


def account_loader(bank: BankClient) -> AccountLoader:
    """Create a loader of accounts for one request."""
    return loading.batch_loader(bank.batch_get_accounts)


def transfer_loader(bank: BankClient) -> TransferLoader:
    """Create a loader of transfers for one request."""
    return loading.batch_loader(bank.batch_get_transfers)
