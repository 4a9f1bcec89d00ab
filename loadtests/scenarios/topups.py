"""Top-ups by card."""

from uuid import UUID, uuid4

from loadtests import rest
from loadtests.history.calls import Answer, IdempotencyKey, LedgerRequest, RequestBody
from loadtests.plan import Customer
from loadtests.scenarios.users import TransferUser
from wallet.accounts import clearing_account_id


class TopUps(TransferUser):
    """User that tops up an account, and retries with the same key until the outcome is known."""

    def act(self) -> None:
        """Make one top-up."""
        choice = self.choices.next_top_up()
        customer = choice.customer
        body = RequestBody(clearing_account_id("RUB"), UUID(customer.account), choice.amount)
        key = IdempotencyKey(customer.principal, "top-up", f"{choice.card}-{uuid4().hex}")
        self.retry_until_known(LedgerRequest(key, body, None), customer)

    def transfer(self, request: LedgerRequest, sender: Customer) -> Answer | None:
        """Send `POST /accounts/{id}/topup`."""
        post = rest.post_for(request)
        return self.post_ledger_request("top-up", post.path, post.body, sender, request, rest.parse_answer)
