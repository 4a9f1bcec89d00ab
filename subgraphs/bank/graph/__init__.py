"""Accounts and transfers in the graph. The resolvers run in the gateway and call the bank through its client.

The gateway merges what this package exports: `Query`, `Mutation` and the entity types.
"""

from subgraphs.bank.graph.loaders import (
    AccountLoader,
    AccountPageLoader,
    BalanceLoader,
    TransferLoader,
    account_loader,
    account_page_loader,
    balance_loader,
    transfer_loader,
)
from subgraphs.bank.graph.mutations import Mutation
from subgraphs.bank.graph.queries import Query
from subgraphs.bank.graph.types import Account, AccountConnection, Transfer, User

__all__ = [
    "Account",
    "AccountConnection",
    "AccountLoader",
    "AccountPageLoader",
    "BalanceLoader",
    "Mutation",
    "Query",
    "Transfer",
    "TransferLoader",
    "User",
    "account_loader",
    "account_page_loader",
    "balance_loader",
    "transfer_loader",
]
