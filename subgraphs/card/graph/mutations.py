"""Mutations of the card subgraph, with their inputs and results."""

from typing import Annotated, Final

import strawberry

from subgraphs.card import client
from subgraphs.card.client import CardDetails
from subgraphs.card.graph.context import Info
from subgraphs.card.graph.types import TopUp
from wallet import inputs
from wallet.graph import (
    IDEMPOTENCY_KEY,
    MUTATION_COST,
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    CurrencyMismatch,
    Error,
    IdempotencyConflict,
    InvalidInput,
    TopUpDeclinesExceeded,
    TopUpLimitExceeded,
    cost_directive,
)
from wallet.idempotency_key import parse_idempotency_key
from wallet.inputs import Secret
from wallet.money import DEFAULT_CURRENCY

_DECLINED: Final = "DECLINED"


@strawberry.input(description="Card data. The number and the code are sent to the acquirer and never stored.")
class CardInput:
    number: Secret = strawberry.field(description="12 to 19 digits.")
    expiry_month: int
    expiry_year: int = strawberry.field(description="Four digits.")
    cvv: Secret = strawberry.field(description="Security code: 3 digits; 4 digits on American Express.")


@strawberry.input
class TopUpAccountInput:
    account_id: strawberry.ID
    amount: str = strawberry.field(description="A decimal number, such as 10.00.")
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217.")
    card: CardInput = strawberry.field(
        description="Send the card in a variable: the text of a query may be stored in logs and caches."
    )
    idempotency_key: str = strawberry.field(description=IDEMPOTENCY_KEY)


@strawberry.type
class TopUpAccountSuccess:
    top_up: TopUp = strawberry.field(description="Current state; subscribe to `topUpUpdated` for changes.")


@strawberry.type(description="The issuer or the acquirer declined the card. Nothing was charged.")
class CardDeclined(Error):
    decline_code: str = strawberry.field(description="Reason as a machine name, such as `DO_NOT_HONOR`.")
    top_up: TopUp

    @classmethod
    def from_client(cls, top_up: client.TopUp) -> "CardDeclined":
        """Convert a top-up with status DECLINED."""
        decline_code = top_up.failure or _DECLINED
        return cls(
            message=f"the card was declined: {decline_code}",
            code="CARD_DECLINED",
            decline_code=decline_code,
            top_up=TopUp.from_client(top_up),
        )


TopUpAccountResult = Annotated[
    TopUpAccountSuccess
    | CardDeclined
    | InvalidInput
    | AccountNotFound
    | AccountClosed
    | AccountFrozen
    | CurrencyMismatch
    | TopUpLimitExceeded
    | TopUpDeclinesExceeded
    | IdempotencyConflict,
    strawberry.union("TopUpAccountResult"),
]


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Pays into an account by card, once for each idempotency key. Returns when the top-up is final, or "
        "after a short wait with its current state; the service then continues in the background. After "
        "UNAVAILABLE or DEADLINE_EXCEEDED the outcome is unknown: retry with the same key.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def top_up_account(self, info: Info, input: TopUpAccountInput) -> TopUpAccountResult:  # noqa: A002
        with inputs.FieldParser() as fields:
            account_id = fields.parse("accountId", inputs.parse_uuid, input.account_id)
            amount = fields.parse_money(input.amount, input.currency)
            number = fields.parse("card.number", inputs.parse_digits, input.card.number.text)
            cvv = fields.parse("card.cvv", inputs.parse_digits, input.card.cvv.text)
            key = fields.parse("idempotencyKey", parse_idempotency_key, input.idempotency_key)
        card = CardDetails(number, input.card.expiry_month, input.card.expiry_year, cvv)
        created = await info.context.card.create_top_up(account_id, amount, card, key.text, key.raw)
        top_up = created.top_up
        if top_up.status == _DECLINED:
            return CardDeclined.from_client(top_up)
        return TopUpAccountSuccess(top_up=TopUp.from_client(top_up))
