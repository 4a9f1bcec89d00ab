"""Access policy of the bank. `application.service` also restricts customers to their own accounts."""

from typing import Final

from kit.auth.access import ADMIN_ACCESS, OPERATOR_ACCESS, READ_ACCESS, WRITE_ACCESS, AccessPolicy, allow_services

POLICY: Final[AccessPolicy] = {
    "TransferMoney": WRITE_ACCESS,
    "BatchTransferMoney": WRITE_ACCESS,
    "ForwardTransfers": allow_services("gateway"),
    "DepositMoney": allow_services("card"),
    "GetBalance": READ_ACCESS,
    "GetTransfer": READ_ACCESS | allow_services("card"),
    "BatchGetAccounts": READ_ACCESS | allow_services("analytics", "card"),
    "BatchGetBalancesAt": READ_ACCESS,
    "BatchGetTransfers": READ_ACCESS,
    "ListTransfers": READ_ACCESS,
    "OpenAccount": WRITE_ACCESS,
    "CloseAccount": WRITE_ACCESS,
    "FreezeAccount": OPERATOR_ACCESS,
    "ThawAccount": OPERATOR_ACCESS,
    "SetAccountFloor": ADMIN_ACCESS,
    "ListAccountChanges": ADMIN_ACCESS,
    "ListAccounts": READ_ACCESS,
    "ListAccountVersions": allow_services("analytics"),
    "ListEvents": allow_services("analytics", "card"),
    "VerifyHistory": allow_services("analytics"),
}

ADMIN: Final[AccessPolicy] = {
    "GET /integrity": ADMIN_ACCESS,
    "POST /redate": ADMIN_ACCESS,
    "GET /epoch": ADMIN_ACCESS,
    "POST /restored": ADMIN_ACCESS,
}
"""Access policy of the admin interface. Health and metrics need no token."""
