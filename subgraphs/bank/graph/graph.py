"""What the bank contributes to the graph: accounts and transfers."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Protocol, Self
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import cursor, inputs, loading, paging
from wallet.errors import AccountNotFound as AccountNotFoundError
from wallet.errors import TransferNotFound
from wallet.graph import (
    PAGED_ONWARDS,
    AccountClosed,
    AccountNotFound,
    AccountRef,
    CurrencyMismatch,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    Money,
    PageInfo,
    cost_directive,
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
    return loading.batch_loader(bank.batch_get_accounts)


def transfer_loader(bank: BankClient) -> TransferLoader:
    """Transfers in one RPC a tick."""
    return loading.batch_loader(bank.batch_get_transfers)


@strawberry.enum
class AccountStatus(Enum):
    OPEN = strawberry.enum_value("OPEN", description="It pays and is paid.")
    CLOSED = strawberry.enum_value("CLOSED", description="For good: it is empty, and neither pays nor is paid.")


@strawberry.federation.type(keys=["id"])
class User:
    id: strawberry.ID

    @strawberry.field(
        description="The user's accounts, closed ones too, in the order of their ids.",
        directives=[cost_directive(5), PAGED_ONWARDS],
    )
    async def accounts(
        self, info: Info, first: int | None = None, after: str | None = None
    ) -> Annotated["AccountConnection", strawberry.lazy("subgraphs.bank.graph")] | None:
        return await _owned(info, self.id, first, after)


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
        return Money.from_money((await _account(self, info)).balance)

    @strawberry.field
    async def status(self, info: Info) -> AccountStatus:
        return AccountStatus((await _account(self, info)).status)

    @strawberry.field(description="Whose it is. Null for an account of nobody's.")
    async def owner(self, info: Info) -> User | None:
        owner_id = (await _account(self, info)).owner_id
        return User(id=strawberry.ID(owner_id)) if owner_id else None

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _account(self, info)).created_at


async def _account(account: Account, info: Info) -> client.Account:
    return getattr(account, "loaded", None) or await info.context.accounts.load(UUID(account.id))


@strawberry.type
class AccountEdge:
    cursor: str
    node: Account


@strawberry.type(description="A page of accounts, in the order of their ids.")
class AccountConnection:
    edges: list[AccountEdge]
    page_info: PageInfo


async def _owned(info: Info, owner_id: str, first: int | None, after: str | None) -> AccountConnection:
    """A page of the owner's accounts; of the caller's where none is named."""
    asked = paging.parse_relay_arguments(cursor.decode_id, first=first, after=after, last=None, before=None)
    page = await info.context.bank.list_accounts(owner_id, limit=asked.limit, after=asked.older_than)
    edges = [AccountEdge(cursor=cursor.encode_id(each.id), node=Account.of(each)) for each in page.accounts]
    return AccountConnection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=page.has_more,
            has_previous_page=after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )


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
        return Money.from_money((await _transfer(self, info)).amount)

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


@strawberry.input
class OpenAccountInput:
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217.")
    idempotency_key: str = strawberry.field(
        description="Chosen by the caller, one for each intended effect: 1 to 255 printable ASCII characters.",
    )


@strawberry.type
class OpenAccountSuccess:
    account: Account


OpenAccountResult = Annotated[
    OpenAccountSuccess | InvalidInput | IdempotencyConflict, strawberry.union("OpenAccountResult")
]


@strawberry.type
class Query:
    @strawberry.field(
        description="The caller's accounts, closed ones too, in the order of their ids.",
        directives=[cost_directive(5), PAGED_ONWARDS],
    )
    async def accounts(
        self, info: Info, first: int | None = None, after: str | None = None
    ) -> AccountConnection | None:
        return await _owned(info, "", first, after)

    @strawberry.field(description="An account of the caller's, or null.")
    async def account(self, info: Info, id: strawberry.ID) -> Account | None:  # noqa: A002
        try:
            return Account.of(await info.context.accounts.load(inputs.parse_uuid(id)))
        except (AccountNotFoundError, ValueError):
            return None

    @strawberry.field(description="A transfer from or to an account of the caller's, or null.")
    async def transfer(self, info: Info, id: strawberry.ID) -> Transfer | None:  # noqa: A002
        try:
            return Transfer.of(await info.context.transfers.load(inputs.parse_uuid(id)))
        except (TransferNotFound, ValueError):
            return None


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Moves money once for each idempotency key. After UNAVAILABLE or DEADLINE_EXCEEDED the outcome is "
        "not known: retry with the same key.",
    )
    async def transfer_money(self, info: Info, input: TransferMoneyInput) -> TransferMoneyResult:  # noqa: A002
        with inputs.FieldParser() as fields:
            sender_id = fields.parse("senderId", inputs.parse_uuid, input.sender_id)
            recipient_id = fields.parse("recipientId", inputs.parse_uuid, input.recipient_id)
            amount = fields.parse_money(input.amount, input.currency)
        receipt = await info.context.bank.transfer(sender_id, recipient_id, amount, input.idempotency_key)
        return TransferMoneySuccess(
            transfer=Transfer.of(receipt.transfer),
            balance=Money.from_money(receipt.posting.balance_after),
        )

    @strawberry.mutation(
        description="Opens an empty account of the caller's, once for each idempotency key. After UNAVAILABLE or "
        "DEADLINE_EXCEEDED the outcome is not known: retry with the same key.",
    )
    async def open_account(self, info: Info, input: OpenAccountInput) -> OpenAccountResult:  # noqa: A002
        return OpenAccountSuccess(
            account=Account.of(await info.context.bank.open_account(input.currency, input.idempotency_key))
        )
