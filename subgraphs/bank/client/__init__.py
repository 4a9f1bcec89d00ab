"""Typed gRPC client of the bank, for the gateway, other services, the command line and load tests."""

from subgraphs.bank.client.client import SERVICE, BankClient
from subgraphs.bank.client.types import (
    NO_WORDS,
    Account,
    AccountChange,
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
    TransferPage,
    TransferRequest,
    Words,
)

__all__ = [
    "NO_WORDS",
    "SERVICE",
    "Account",
    "AccountChange",
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
    "TransferPage",
    "TransferRequest",
    "Words",
]
