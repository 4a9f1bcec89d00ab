"""Who may call the bank. Customers are further held to their own accounts, by the service."""

from typing import Final

from kit.auth.access import ADMINS, MOVERS, READERS, Policy, services

POLICY: Final[Policy] = {
    "TransferMoney": MOVERS,
    "BatchTransferMoney": MOVERS,
    "DepositMoney": services("card"),
    "GetBalance": READERS,
    "GetTransfer": READERS | services("card"),
    "BatchGetAccounts": READERS | services("analytics", "card"),
    "BatchGetTransfers": READERS,
    "OpenAccount": MOVERS,
    "CloseAccount": MOVERS,
    "ListAccounts": READERS,
    "ListAccountVersions": services("analytics"),
    "ListEvents": services("analytics", "card"),
}

ADMIN: Final[Policy] = {
    "GET /integrity": ADMINS,
}
"""Of the admin interface. Health and metrics are open."""
