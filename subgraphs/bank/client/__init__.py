from subgraphs.bank.client.client import (
    SERVICE,
    Account,
    AccountVersion,
    BankClient,
    Event,
    Order,
    Posting,
    Receipt,
    Transfer,
)

__all__ = [
    "SERVICE",
    "Account",
    "AccountVersion",
    "BankClient",
    "Event",
    "Order",
    "Posting",
    "Receipt",
    "Transfer",
]
