from subgraphs.bank.graph.graph import (
    AccountLoader,
    TransferLoader,
    account_loader,
    transfer_loader,
)

__all__ = [
    "AccountLoader",
    "TransferLoader",
    "account_loader",
    "transfer_loader",
]
