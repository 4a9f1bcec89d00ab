"""What the bank contributes to the graph: accounts and transfers."""

import asyncio
from datetime import datetime
from typing import Annotated, Protocol
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs
from wallet.errors import AccountNotFound as AccountNotFoundError
from wallet.errors import TransferNotFound, WalletError
from wallet.graph import (
    ERRORS_AS_DATA,
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
    """Accounts in one RPC a tick. It does not cache: a query after a mutation sees what the mutation did."""

    async def load(ids: list[UUID]) -> list[client.Account | WalletError]:
        found = await bank.accounts(list(dict.fromkeys(ids)))
        return [found[id_] for id_ in ids]

    return DataLoader(load_fn=load, cache=False)


def transfer_loader(bank: BankClient) -> TransferLoader:
    """Transfers, each once a tick. It does not cache, as the loader of accounts does not."""

    async def load(ids: list[UUID]) -> list[client.Transfer | BaseException]:
        wanted = list(dict.fromkeys(ids))
        found = await asyncio.gather(*map(bank.get_transfer, wanted), return_exceptions=True)
        by_id = dict(zip(wanted, found, strict=True))
        return [by_id[id_] for id_ in ids]

    return DataLoader(load_fn=load, cache=False)


@strawberry.federation.type(keys=["id"], description="Money of one currency that belongs to one user.")
class Account:
    id: strawberry.ID
    loaded: strawberry.Private[client.Account | None] = None

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
    def of(cls, transfer: client.Transfer) -> "Transfer":
        """The same transfer for the graph."""
        return cls(id=strawberry.ID(str(transfer.id)), loaded=transfer)

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
            loaded = await info.context.accounts.load(inputs.uuid(id))
        except (AccountNotFoundError, ValueError):
            return None
        return Account(id=strawberry.ID(str(loaded.id)), loaded=loaded)

    @strawberry.field(description="A transfer from or to an account of the caller's, or null.")
    async def transfer(self, info: Info, id: strawberry.ID) -> Transfer | None:  # noqa: A002
        try:
            return Transfer.of(await info.context.bank.get_transfer(inputs.uuid(id)))
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


def schema() -> strawberry.federation.Schema:
    """The bank's subgraph alone."""
    return strawberry.federation.Schema(query=Query, mutation=Mutation, exception_handlers=ERRORS_AS_DATA)
