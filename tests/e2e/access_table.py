"""Access table: the expected result of every call for every caller.

It is written by hand and not derived from the policies that it tests.
"""

from typing import Final

COLUMNS: Final = (
    "anonymous",
    "owner",
    "another",
    "operator",
    "admin",
    "nobody",
    "card",
    "analytics",
    "gateway",
    "forged",
)
"""Callers. `owner` is the customer who owns the requested account, `another` is another customer.

`nobody` is a user without roles. `forged` is a caller with any kind of forged token.
"""

READ: Final = "401 ok 404 ok ok 403 403 403 403 401"
MOVE: Final = "401 ok 404 403 ok 403 403 403 403 401"
ADMIN: Final = "401 403 403 403 ok 403 403 403 403 401"
OPERATE: Final = "401 403 403 ok ok 403 403 403 403 401"
OPEN: Final = "ok ok ok ok ok ok ok ok ok ok"
OWN: Final = "401 ok ok ok ok 403 403 403 403 401"

EXPECTED: Final = {
    "GET /.well-known/jwks.json": OPEN,
    "POST /auth/register": OPEN,
    "POST /auth/login": OPEN,
    "POST /auth/refresh": OPEN,
    "POST /auth/logout": OPEN,
    "POST /auth/password": OWN,
    "GET /me": OWN,
    "GET /accounts": OWN,
    "POST /accounts": "401 ok ok 403 ok 403 403 403 403 401",
    "GET /accounts/{accountId}": READ,
    "GET /accounts/{accountId}/balance": READ,
    "POST /accounts/{accountId}/close": MOVE,
    "POST /accounts/{accountId}/freeze": OPERATE,
    "POST /accounts/{accountId}/thaw": OPERATE,
    "POST /accounts/{accountId}/floor": ADMIN,
    "GET /accounts/{accountId}/changes": ADMIN,
    "GET /accounts/{accountId}/transfers": READ,
    "POST /accounts/{accountId}/transfers": MOVE,
    "POST /transfers/batch": MOVE,
    "GET /accounts/{accountId}/transfers/{transferId}": READ,
    "POST /accounts/{accountId}/topup": MOVE,
    "GET /accounts/{accountId}/topups/{topUpId}": READ,
    # The operations of another customer's account are not found, like the account itself.
    "GET /accounts/{accountId}/operations": READ,
    "Query.me": OWN,
    "Query.account": READ,
    "Query.accounts": OWN,
    "Query.transfer": READ,
    "Query.topUp": READ,
    "Query.node": READ,
    "Query.nodes": READ,
    "Query._entities": READ,
    "Query._service": "ok ok ok ok ok 403 403 403 403 401",
    "Mutation.transferMoney": MOVE,
    "Mutation.transferMoneyBatch": MOVE,
    "Mutation.topUpAccount": MOVE,
    "Mutation.closeAccount": MOVE,
    "Mutation.freezeAccount": OPERATE,
    "Mutation.thawAccount": OPERATE,
    "Mutation.setAccountFloor": ADMIN,
    "Mutation.openAccount": "401 ok ok 403 ok 403 403 403 403 401",
    "Subscription.balanceChanged": READ,
    "Subscription.operationAdded": READ,
    "Subscription.topUpUpdated": READ,
    "BankService.TransferMoney": MOVE,
    "BankService.BatchTransferMoney": MOVE,
    "BankService.ForwardTransfers": "401 403 403 403 403 403 403 403 ok 401",
    "BankService.DepositMoney": "401 403 403 403 403 403 ok 403 403 401",
    "BankService.GetBalance": READ,
    "BankService.GetTransfer": "401 ok 404 ok ok 403 ok 403 403 401",
    "BankService.BatchGetAccounts": "401 ok 404 ok ok 403 ok ok 403 401",
    "BankService.BatchGetBalancesAt": READ,
    "BankService.BatchGetTransfers": READ,
    "BankService.ListTransfers": READ,
    "BankService.OpenAccount": "401 ok 403 403 ok 403 403 403 403 401",
    "BankService.CloseAccount": MOVE,
    "BankService.FreezeAccount": OPERATE,
    "BankService.ThawAccount": OPERATE,
    "BankService.SetAccountFloor": ADMIN,
    "BankService.ListAccountChanges": ADMIN,
    "BankService.ListAccounts": "401 ok 403 ok ok 403 403 403 403 401",
    "BankService.ListAccountVersions": "401 403 403 403 403 403 403 ok 403 401",
    "BankService.ListEvents": "401 403 403 403 403 403 ok ok 403 401",
    "BankService.VerifyHistory": "401 403 403 403 403 403 403 ok 403 401",
    "CardService.ProcessCardTopUp": MOVE,
    "CardService.GetTopUp": READ,
    "CardService.BatchGetTopUps": READ,
    "CardService.ListTopUps": READ,
    "CardService.BatchListTopUps": READ,
    "CardService.WatchTopUp": READ,
    "bank GET /integrity": ADMIN,
    "bank POST /redate": ADMIN,
    "bank GET /epoch": ADMIN,
    "bank POST /restored": "401 403 403 403 422 403 403 403 403 401",  # the request names no epoch
    "card GET /integrity": ADMIN,
    "card GET /review": "401 403 403 ok ok 403 403 403 403 401",
    "card POST /review/deposits": ADMIN,
    "card POST /review/{top_up_id}/retry": "401 403 403 403 404 403 403 403 403 401",  # the top-up is not under review
    "card GET /declines": "401 403 403 ok ok 403 403 403 403 401",
    "card POST /declines/{kind}/{attempt_id}/lift": "401 403 403 404 404 403 403 403 403 401",  # no such attempt
    "analytics GET /integrity": ADMIN,
    "analytics POST /replay": ADMIN,
    "AnalyticsService.GetOperations": READ,
    "AnalyticsService.BatchGetOperations": READ,
    "AnalyticsService.GetStatistics": READ,
    "AnalyticsService.WatchOperations": READ,
    "IdentityService.Register": OPEN,
    "IdentityService.Authenticate": OPEN,
    "IdentityService.Refresh": OPEN,
    "IdentityService.Revoke": OPEN,
    "IdentityService.ChangePassword": OWN,
    "IdentityService.GetUser": READ,
    "IdentityService.BatchGetUsers": READ,
}
"""Expected result of each call for each caller, in the order of the columns: `ok` or an HTTP status."""
