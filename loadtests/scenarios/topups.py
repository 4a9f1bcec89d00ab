"""Top-ups by card."""

from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from loadtests import rest
from loadtests.history.calls import Answer, IdempotencyKey, LedgerRequest, RequestBody
from loadtests.plan import Customer
from loadtests.scenarios.users import TransferUser
from wallet.accounts import clearing_account_id

_CARDS: Final = (rest.GOOD,) * 7 + tuple(rest.CARDS)
"""Eight of ten cards are good."""


class TopUps(TransferUser):
    """User that tops up an account, and retries with the same key until the outcome is known."""

    def act(self) -> None:
        """Make one top-up."""
        customer = self.random_customer()
        amount = Decimal(self.rng.randint(100, 10_000)) / 100
        body = RequestBody(clearing_account_id("RUB"), UUID(customer.account), amount)
        key = f"{self.rng.choice(_CARDS)}-{uuid4().hex}"
        request = LedgerRequest(IdempotencyKey(customer.principal, "top-up", key), body, None)
        self.retry_until_known(request, customer)

    def transfer(self, request: LedgerRequest, sender: Customer) -> Answer | None:
        """Send `POST /accounts/{id}/topup`."""
        post = rest.post_for(request)
        return self.post_ledger_request("top-up", post.path, post.body, sender, request, rest.parse_answer)
