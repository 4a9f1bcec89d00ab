"""Typed gRPC client of the bank, for the gateway, other services, the command line and load tests."""

from subgraphs.bank.client.client import SERVICE, BankClient
from subgraphs.bank.client.types import (
    Account,
    AccountPage,
    AccountVersion,
    Balance,
    Event,
    HeldPosting,
    LedgerIdentity,
    OpenedAccount,
    Posting,
    Receipt,
    Transfer,
    TransferRequest,
)

__all__ = [
    "SERVICE",
    "Account",
    "AccountPage",
    "AccountVersion",
    "Balance",
    "BankClient",
    "Event",
    "HeldPosting",
    "LedgerIdentity",
    "OpenedAccount",
    "Posting",
    "Receipt",
    "Transfer",
    "TransferRequest",
]
