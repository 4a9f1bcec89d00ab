"""Mutations of the bank's subgraph, with their inputs and results."""

from typing import Annotated

import strawberry

from subgraphs.bank import client
from subgraphs.bank.graph.context import Info
from subgraphs.bank.graph.types import Account, Transfer
from wallet import inputs
from wallet.graph import (
    IDEMPOTENCY_KEY,
    MUTATION_COST,
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    Metadata,
    Money,
    ReferenceUsed,
    cost_directive,
)
from wallet.idempotency_key import parse_idempotency_key
from wallet.money import DEFAULT_CURRENCY


@strawberry.input
class TransferMoneyInput:
    sender_id: strawberry.ID
    recipient_id: strawberry.ID
    amount: str = strawberry.field(description="A decimal number, such as 10.00.")
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217.")
    idempotency_key: str = strawberry.field(description=IDEMPOTENCY_KEY)
    description: str | None = strawberry.field(
        default=None,
        description="Text for both sides, at most 140 characters. No text of the input may have control characters, "
        "line breaks, characters that change the direction of the text, or a card number.",
    )
    reference: str | None = strawberry.field(
        default=None,
        description="The sender's own id of the transfer, at most 64 characters. Those who may read the sender's "
        "account see it.",
    )
    unique_reference: bool = strawberry.field(
        default=False,
        description="Refuse the transfer with REFERENCE_USED if an earlier transfer from the account has the same "
        "reference. Requires `reference`.",
    )
    metadata: Metadata | None = strawberry.field(
        default=None, description="Data of the caller, which only the caller reads: at most 16 entries."
    )

    def words(self) -> client.Words:
        """Return the words of the transfer."""
        if not (self.description or self.reference or self.metadata or self.unique_reference):
            return client.NO_WORDS
        return client.Words(self.description or "", self.reference or "", self.metadata or {}, self.unique_reference)


@strawberry.type
class TransferMoneySuccess:
    transfer: Transfer
    balance: Money = strawberry.field(description="The sender's balance right after the transfer.")


TransferMoneyResult = Annotated[
    TransferMoneySuccess
    | InvalidInput
    | InsufficientFunds
    | CurrencyMismatch
    | AccountNotFound
    | AccountClosed
    | ReferenceUsed
    | IdempotencyConflict,
    strawberry.union("TransferMoneyResult"),
]


@strawberry.input
class OpenAccountInput:
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217.")
    idempotency_key: str = strawberry.field(description=IDEMPOTENCY_KEY)


@strawberry.type
class OpenAccountSuccess:
    account: Account


OpenAccountResult = Annotated[
    OpenAccountSuccess | InvalidInput | IdempotencyConflict, strawberry.union("OpenAccountResult")
]


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Moves money once for each idempotency key. After UNAVAILABLE or DEADLINE_EXCEEDED the outcome is "
        "unknown: retry with the same key.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def transfer_money(self, info: Info, input: TransferMoneyInput) -> TransferMoneyResult:  # noqa: A002
        with inputs.FieldParser() as fields:
            sender_id = fields.parse("senderId", inputs.parse_uuid, input.sender_id)
            recipient_id = fields.parse("recipientId", inputs.parse_uuid, input.recipient_id)
            amount = fields.parse_money(input.amount, input.currency)
            key = fields.parse("idempotencyKey", parse_idempotency_key, input.idempotency_key)
        receipt = await info.context.bank.transfer(sender_id, recipient_id, amount, key.text, key.raw, input.words())
        return TransferMoneySuccess(
            transfer=Transfer.from_client(receipt.transfer),
            balance=Money.from_money(receipt.posting.balance_after),
        )

    @strawberry.mutation(
        description="Opens an empty account for the caller, once for each idempotency key. After UNAVAILABLE or "
        "DEADLINE_EXCEEDED the outcome is unknown: retry with the same key.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def open_account(self, info: Info, input: OpenAccountInput) -> OpenAccountResult:  # noqa: A002
        with inputs.FieldParser() as fields:
            key = fields.parse("idempotencyKey", parse_idempotency_key, input.idempotency_key)
        opened = await info.context.bank.open_account(input.currency, key.text, raw_idempotency_key=key.raw)
        return OpenAccountSuccess(account=Account.from_client(opened.account))
