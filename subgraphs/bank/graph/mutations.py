"""Mutations of the bank's subgraph, with their inputs and results."""

from typing import Annotated, Final, cast
from uuid import UUID

import strawberry

from kit.runtime.pauses import convert_all
from subgraphs.bank import client
from subgraphs.bank.graph.context import Info
from subgraphs.bank.graph.types import Account, AccountFreeze, Transfer
from wallet import errors, inputs
from wallet.graph import (
    BATCH_ITEM_COST,
    IDEMPOTENCY_KEY,
    MUTATION_COST,
    AccountClosed,
    AccountFrozen,
    AccountNotEmpty,
    AccountNotFound,
    CurrencyMismatch,
    Error,
    FloorAboveBalance,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    Metadata,
    Money,
    ReferenceUsed,
    cost_directive,
    error_as_data,
    list_size_directive,
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

    def parse(self) -> client.TransferRequest:
        """Return the request of the transfer.

        Raises:
            InvalidInput: with all invalid fields.
        """
        with inputs.FieldParser() as fields:
            sender_id = fields.parse("senderId", inputs.parse_uuid, self.sender_id)
            recipient_id = fields.parse("recipientId", inputs.parse_uuid, self.recipient_id)
            amount = fields.parse_money(self.amount, self.currency)
            key = fields.parse("idempotencyKey", parse_idempotency_key, self.idempotency_key)
        return client.TransferRequest(sender_id, recipient_id, amount, key.text, key.raw, self.words())


@strawberry.type
class TransferMoneySuccess:
    transfer: Transfer
    balance: Money = strawberry.field(description="The sender's balance right after the transfer.")


TransferRefusal = (
    InvalidInput
    | InsufficientFunds
    | CurrencyMismatch
    | AccountNotFound
    | AccountClosed
    | AccountFrozen
    | ReferenceUsed
    | IdempotencyConflict
)
"""Refusals of a transfer, alone and in a batch."""

TransferMoneyResult = Annotated[TransferMoneySuccess | TransferRefusal, strawberry.union("TransferMoneyResult")]


@strawberry.federation.type(
    shareable=True,
    description="The transfer may have been made, or may still be made: send it again with the same key.",
)
class TransferOutcomeUnknown(Error):
    pass


TransferOutcomeResult = Annotated[
    TransferMoneySuccess | TransferRefusal | TransferOutcomeUnknown, strawberry.union("TransferOutcomeResult")
]


@strawberry.type(description="Result of one transfer of a batch.")
class TransferOutcome:
    replayed: bool = strawberry.field(
        description="Whether this is the stored outcome of an earlier request with the same key."
    )
    result: TransferOutcomeResult

    @classmethod
    def from_client(cls, result: client.Receipt | errors.WalletError) -> "TransferOutcome":
        """Convert the result of one transfer."""
        if isinstance(result, client.Receipt):
            return cls(replayed=result.is_replay, result=_success(result))
        data = error_as_data(result) or TransferOutcomeUnknown(message=result.message, code=result.reason)
        return cls(replayed=result.is_replay, result=cast("TransferOutcomeResult", data))


MAX_BATCH: Final = 1_000
"""Maximum number of transfers of a batch."""


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
class ChangeAccountSuccess:
    account: Account


ChangeAccountResult = Annotated[
    ChangeAccountSuccess | InvalidInput | AccountNotFound | AccountClosed | AccountFrozen | AccountNotEmpty,
    strawberry.union("ChangeAccountResult"),
]


@strawberry.input
class CloseAccountInput:
    account_id: strawberry.ID


@strawberry.input
class FreezeAccountInput:
    account_id: strawberry.ID
    frozen: AccountFreeze
    reason: str = strawberry.field(description="1 to 200 characters.")


@strawberry.input
class ThawAccountInput:
    account_id: strawberry.ID
    reason: str = strawberry.field(description="1 to 200 characters.")


SetAccountFloorResult = Annotated[
    ChangeAccountSuccess | InvalidInput | AccountNotFound | AccountClosed | CurrencyMismatch | FloorAboveBalance,
    strawberry.union("SetAccountFloorResult"),
]


@strawberry.input
class SetAccountFloorInput:
    account_id: strawberry.ID
    floor: str = strawberry.field(description="A decimal number at or below zero, such as -500.00.")
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217, the account's currency.")
    reason: str = strawberry.field(description="1 to 200 characters.")


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Moves money once for each idempotency key. After UNAVAILABLE or DEADLINE_EXCEEDED the outcome is "
        "unknown: retry with the same key.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def transfer_money(self, info: Info, input: TransferMoneyInput) -> TransferMoneyResult:  # noqa: A002
        request = input.parse()
        return _success(
            await info.context.bank.transfer(
                request.sender_id,
                request.recipient_id,
                request.amount,
                request.idempotency_key,
                request.raw_idempotency_key,
                request.words,
            )
        )

    @strawberry.mutation(
        description="Makes 1 to 1,000 transfers, each as `transferMoney` does. They are not one transaction: a refused "
        "transfer does not affect the others. They are executed in order, and the results have the same order. Each "
        "counts as a request for the rate limit. After UNAVAILABLE or DEADLINE_EXCEEDED the outcomes are unknown: "
        "retry with the same keys.",
        directives=[cost_directive(BATCH_ITEM_COST), list_size_directive(MAX_BATCH)],
    )
    async def transfer_money_batch(self, info: Info, inputs: list[TransferMoneyInput]) -> list[TransferOutcome]:
        if not 1 <= len(inputs) <= MAX_BATCH:
            raise errors.InvalidInput.for_field("inputs", f"must have 1 to {MAX_BATCH} entries")
        requests = await convert_all(_parse_or_error, inputs)
        await info.context.charge_batch(len(requests))
        return await convert_all(TransferOutcome.from_client, await info.context.bank.batch_transfer_valid(requests))

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

    @strawberry.mutation(
        description="Closes an empty account permanently. A repeat succeeds.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def close_account(self, info: Info, input: CloseAccountInput) -> ChangeAccountResult:  # noqa: A002
        account = await info.context.bank.close_account(_parse_account_id(input.account_id))
        return ChangeAccountSuccess(account=Account.from_client(account))

    @strawberry.mutation(
        description="Refuses transfers of an account from now on. For operators and admins. A repeat succeeds.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def freeze_account(self, info: Info, input: FreezeAccountInput) -> ChangeAccountResult:  # noqa: A002
        account_id = _parse_account_id(input.account_id)
        account = await info.context.bank.freeze_account(account_id, input.frozen.name, input.reason)
        return ChangeAccountSuccess(account=Account.from_client(account))

    @strawberry.mutation(
        description="Ends the freeze of an account. For operators and admins. A repeat succeeds.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def thaw_account(self, info: Info, input: ThawAccountInput) -> ChangeAccountResult:  # noqa: A002
        account = await info.context.bank.thaw_account(_parse_account_id(input.account_id), input.reason)
        return ChangeAccountSuccess(account=Account.from_client(account))

    @strawberry.mutation(
        description="Sets the lower limit of an account's balance. A limit below zero is a credit line. For admins. "
        "A repeat succeeds.",
        directives=[cost_directive(MUTATION_COST)],
    )
    async def set_account_floor(self, info: Info, input: SetAccountFloorInput) -> SetAccountFloorResult:  # noqa: A002
        with inputs.FieldParser() as fields:
            account_id = fields.parse("accountId", inputs.parse_uuid, input.account_id)
            floor = fields.parse_money(input.floor, input.currency, "floor")
        account = await info.context.bank.set_account_floor(account_id, floor, input.reason)
        return ChangeAccountSuccess(account=Account.from_client(account))


def _success(receipt: client.Receipt) -> TransferMoneySuccess:
    return TransferMoneySuccess(
        transfer=Transfer.from_client(receipt.transfer), balance=Money.from_money(receipt.posting.balance_after)
    )


def _parse_or_error(transfer: TransferMoneyInput) -> client.TransferRequest | errors.InvalidInput:
    try:
        return transfer.parse()
    except errors.InvalidInput as error:
        return error


def _parse_account_id(text: str) -> UUID:
    with inputs.FieldParser() as fields:
        return fields.parse("accountId", inputs.parse_uuid, text)
