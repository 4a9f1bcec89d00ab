"""What the bank contributes to the graph: accounts and transfers."""

from datetime import datetime
from typing import Annotated, Protocol, Self
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs, loading
from wallet.errors import AccountNotFound as AccountNotFoundError
from wallet.errors import TransferNotFound
from wallet.graph import (
    AccountClosed,
    AccountNotFound,
    AccountRef,
    CurrencyMismatch,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    Money,
)
from wallet.money import DEFAULT_CURRENCY

AccountLoader = DataLoader[UUID, client.Account]
TransferLoader = DataLoader[UUID, client.Transfer]


class Context(Protocol):
    """What the resolvers need of a request."""

    @property
    def bank(self) -> BankClient: ...

    @property
    def accounts(self) -> AccountLoader: ...

    @property
    def transfers(self) -> TransferLoader: ...


Info = strawberry.Info[Context, None]


def account_loader(bank: BankClient) -> AccountLoader:
    """Accounts in one RPC a tick."""
    return loading.loader(bank.accounts)


def transfer_loader(bank: BankClient) -> TransferLoader:
    """Transfers in one RPC a tick."""
    return loading.loader(bank.transfers)


@strawberry.federation.type(keys=["id"], description="Money of one currency that belongs to one user.")
class Account:
    id: strawberry.ID
    loaded: strawberry.Private[client.Account | None] = None

    @classmethod
    def of(cls, account: client.Account) -> Self:
        """The same account for the graph."""
        return cls(id=strawberry.ID(str(account.id)), loaded=account)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.of(await info.context.accounts.load(id))

    @strawberry.field(description="The balance now.")
    async def balance(self, info: Info) -> Money:
        return Money.of((await _account(self, info)).balance)

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _account(self, info)).created_at


async def _account(account: Account, info: Info) -> client.Account:
    return getattr(account, "loaded", None) or await info.context.accounts.load(UUID(account.id))


@strawberry.federation.type(keys=["id"], description="A transfer that is done.")
class Transfer:
    id: strawberry.ID
    loaded: strawberry.Private[client.Transfer | None] = None

    @classmethod
    def of(cls, transfer: client.Transfer) -> Self:
        """The same transfer for the graph."""
        return cls(id=strawberry.ID(str(transfer.id)), loaded=transfer)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.of(await info.context.transfers.load(id))

    @strawberry.field
    async def sender(self, info: Info) -> AccountRef:
        return AccountRef(id=strawberry.ID(str((await _transfer(self, info)).sender_id)))

    @strawberry.field
    async def recipient(self, info: Info) -> AccountRef:
        return AccountRef(id=strawberry.ID(str((await _transfer(self, info)).recipient_id)))

    @strawberry.field
    async def amount(self, info: Info) -> Money:
        return Money.of((await _transfer(self, info)).amount)

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _transfer(self, info)).created_at


async def _transfer(transfer: Transfer, info: Info) -> client.Transfer:
    return getattr(transfer, "loaded", None) or await info.context.transfers.load(UUID(transfer.id))


@strawberry.input
class TransferMoneyInput:
    sender_id: strawberry.ID
    recipient_id: strawberry.ID
    amount: str = strawberry.field(description="A decimal number, such as 10.00.")
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217.")
    idempotency_key: str = strawberry.field(
        description="Chosen by the caller, one for each intended effect: 1 to 255 printable ASCII characters.",
    )


@strawberry.type
class TransferMoneySuccess:
    transfer: Transfer
    balance: Money = strawberry.field(description="The sender's, right after the transfer.")


TransferMoneyResult = Annotated[
    TransferMoneySuccess
    | InvalidInput
    | InsufficientFunds
    | CurrencyMismatch
    | AccountNotFound
    | AccountClosed
    | IdempotencyConflict,
    strawberry.union("TransferMoneyResult"),
]


@strawberry.type
class Query:
    @strawberry.field(description="An account of the caller's, or null.")
    async def account(self, info: Info, id: strawberry.ID) -> Account | None:  # noqa: A002
        try:
            return Account.of(await info.context.accounts.load(inputs.uuid(id)))
        except (AccountNotFoundError, ValueError):
            return None

    @strawberry.field(description="A transfer from or to an account of the caller's, or null.")
    async def transfer(self, info: Info, id: strawberry.ID) -> Transfer | None:  # noqa: A002
        try:
            return Transfer.of(await info.context.transfers.load(inputs.uuid(id)))
        except (TransferNotFound, ValueError):
            return None


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Moves money once for each idempotency key. After UNAVAILABLE or DEADLINE_EXCEEDED the outcome is "
        "not known: retry with the same key.",
    )
    async def transfer_money(self, info: Info, input: TransferMoneyInput) -> TransferMoneyResult:  # noqa: A002
        with inputs.Fields() as fields:
            sender_id = fields.read("senderId", inputs.uuid, input.sender_id)
            recipient_id = fields.read("recipientId", inputs.uuid, input.recipient_id)
            amount = fields.money(input.amount, input.currency)
        receipt = await info.context.bank.transfer(sender_id, recipient_id, amount, input.idempotency_key)
        return TransferMoneySuccess(
            transfer=Transfer.of(receipt.transfer),
            balance=Money.of(receipt.posting.balance_after),
        )
