"""Accounts and transfers in the graph, on the client of the bank.

The gateway merges what this package exports: `Query`, `Mutation`, `Subscription` and the entity types.
"""

from subgraphs.bank.graph.graph import (
    Account,
    AccountConnection,
    AccountLoader,
    Mutation,
    Query,
    Transfer,
    TransferLoader,
    User,
    account_loader,
    transfer_loader,
)

__all__ = [
    "Account",
    "AccountConnection",
    "AccountLoader",
    "Mutation",
    "Query",
    "Transfer",
    "TransferLoader",
    "User",
    "account_loader",
    "transfer_loader",
]
