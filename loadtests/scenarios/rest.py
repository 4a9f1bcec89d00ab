"""Transfers over the REST API."""

from loadtests import rest
from loadtests.history.calls import Answer, LedgerRequest
from loadtests.plan import Customer
from loadtests.scenarios.users import TransferUser


class RestTransfers(TransferUser):
    """User that transfers money over REST."""

    def transfer(self, request: LedgerRequest, sender: Customer) -> Answer | None:
        """Send `POST /accounts/{id}/transfers`."""
        post = rest.post_for(request)
        return self.post_ledger_request("REST transfer", post.path, post.body, sender, request, rest.parse_answer)
