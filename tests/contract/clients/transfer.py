"""`python transfer.py < REQUEST`: make a transfer with the generated Python client, which is on PYTHONPATH.

REQUEST is JSON with `url`, `token`, `sender`, `recipient` and `key`. Prints the transfer, its replay, the page of the
sender's operations and the code of a refused transfer as JSON.
"""

import json
import sys

import wallet_client as wallet  # type: ignore[import-not-found]  # generated during the test

request = json.load(sys.stdin)
with wallet.ApiClient(wallet.Configuration(host=request["url"], access_token=request["token"])) as client:
    transfers = wallet.TransfersApi(client)
    order = wallet.TransferRequest(recipient_id=request["recipient"], amount="1.25")
    made, replayed = [transfers.create_transfer(request["key"], request["sender"], order) for _ in range(2)]
    page = wallet.OperationsApi(client).list_operations(request["sender"], limit=1, type=["TRANSFER", "TOP_UP"])
    account = wallet.AccountsApi(client).get_account(request["sender"])
    try:
        order.amount = "1000000.00"
        transfers.create_transfer(request["key"] + "-2", request["sender"], order)
        refusal = None
    except wallet.ApiException as error:
        refusal = json.loads(error.body)["code"]
printed = {
    "transfer": str(made.id),
    "replay": str(replayed.id),
    "balance": account.balance,
    "version": account.version,
    "hasNewer": page.has_newer,
    "refusal": refusal,
}
json.dump(printed, sys.stdout)
