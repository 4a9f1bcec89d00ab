"""GraphQL types of accounts and transfers."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Final, Self
from uuid import UUID

import strawberry

from subgraphs.bank import client
from subgraphs.bank.graph.context import Info
from subgraphs.bank.graph.loaders import AccountPageRequest
from wallet import cursor, paging
from wallet.errors import InvalidInput
from wallet.graph import (
    DESCRIPTION_COST,
    METADATA_COST,
    PAGE_COST,
    PAGED,
    PAGED_FORWARD,
    AccountRef,
    Metadata,
    Money,
    PageInfo,
    cost_directive,
    list_size_directive,
)
from wallet.inputs import require_offset

ACCOUNT_PAGES: Final = (
    "`first` and `after` page forward, `last` and `before` backward. `last` without `before` returns the end of the "
    "list."
)
"""Description of the arguments of a connection of accounts."""

MAX_CHANGES: Final = 100
"""Maximum number of changes of an account in a response."""

BALANCE_AT_COST: Final = 40
"""`@cost` of a balance at a time: about 20 look-ups by index."""

CHANGE_COST: Final = PAGE_COST // MAX_CHANGES + 7
"""`@cost` of one change in a list of changes: its part of the cost of a page, and its fields."""


@strawberry.enum
class AccountStatus(Enum):
    OPEN = strawberry.enum_value("OPEN", description="The account can send and receive money.")
    CLOSED = strawberry.enum_value(
        "CLOSED", description="Closed permanently: the account is empty and can neither send nor receive money."
    )


@strawberry.enum(description="Transfers of a frozen account that are refused.")
class AccountFreeze(Enum):
    OUTGOING = strawberry.enum_value("OUTGOING", description="The account cannot pay.")
    INCOMING = strawberry.enum_value("INCOMING", description="The account cannot be paid.")
    ALL = strawberry.enum_value("ALL", description="The account can neither pay nor be paid.")


@strawberry.type(description="A change of an account that is not an operation.")
class AccountChange:
    revision: int = strawberry.field(description="Number of the change.")
    action: str = strawberry.field(description="CLOSE, FREEZE, THAW or SET_FLOOR.")
    changed_by: str = strawberry.field(description="Issuer and subject of the caller.")
    changed_at: datetime
    reason: str
    before: Metadata = strawberry.field(description="Values before the change.")
    after: Metadata = strawberry.field(description="Values after the change.")

    @classmethod
    def from_client(cls, change: client.AccountChange) -> Self:
        """Convert a `client.AccountChange`."""
        return cls(
            revision=change.revision,
            action=change.action,
            changed_by=change.changed_by,
            changed_at=change.changed_at,
            reason=change.reason,
            before=Metadata(change.before),
            after=Metadata(change.after),
        )


@strawberry.type(description="Balance of an account after one of its operations.")
class BalanceAt:
    balance: Money
    version: int = strawberry.field(description="Version of the account; 0 before its first operation.")
    occurred_at: datetime | None = strawberry.field(description="Time of the operation; null for version 0.")

    @classmethod
    def from_client(cls, balance: client.BalanceAt) -> Self:
        """Convert a `client.BalanceAt`."""
        return cls(balance=Money.from_money(balance.balance), version=balance.version, occurred_at=balance.occurred_at)


@strawberry.federation.type(keys=["id"])
class User:
    id: strawberry.ID

    @strawberry.field(
        description=f"The user's accounts in id order, closed accounts included. {ACCOUNT_PAGES}",
        directives=[cost_directive(PAGE_COST), PAGED],
    )
    async def accounts(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Annotated["AccountConnection", strawberry.lazy("subgraphs.bank.graph.types")] | None:
        return await list_accounts(info, self.id, first, after, last, before)


@strawberry.federation.type(
    keys=["id"], description="A balance in one currency that belongs to one user, or to the system itself."
)
class Account:
    id: strawberry.ID
    loaded: strawberry.Private[client.Account | None] = None

    @classmethod
    def from_client(cls, account: client.Account) -> Self:
        """Convert a `client.Account`."""
        return cls(id=strawberry.ID(str(account.id)), loaded=account)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.from_client(await info.context.accounts.load(id))

    @strawberry.field(description="Current balance.")
    async def balance(self, info: Info) -> Money:
        return Money.from_money((await _load_account(self, info)).balance)

    @strawberry.field(
        description="Balance after the last operation that is not later than `time`, or whose version is not above "
        "`version`; give one of the two. The opening balance before the first operation, and the current balance for a "
        "time or a version that is not reached yet.",
        directives=[cost_directive(BALANCE_AT_COST)],
    )
    async def balance_at(
        self, info: Info, time: datetime | None = None, version: int | None = None
    ) -> BalanceAt | None:
        request = _balance_request(UUID(self.id), time, version)
        return BalanceAt.from_client(await info.context.balances.load(request))

    @strawberry.field
    async def status(self, info: Info) -> AccountStatus:
        return AccountStatus((await _load_account(self, info)).status)

    @strawberry.field(description="Transfers that are refused; null if the account is not frozen.")
    async def frozen(self, info: Info) -> AccountFreeze | None:
        frozen = (await _load_account(self, info)).frozen
        return AccountFreeze(frozen) if frozen else None

    @strawberry.field(description="Lower limit of the balance, below zero: a credit line. Null without a credit line.")
    async def floor(self, info: Info) -> Money | None:
        floor = (await _load_account(self, info)).floor
        return None if floor is None else Money.from_money(floor)

    @strawberry.field(description="Amount that the account can pay: its balance above the floor.")
    async def available(self, info: Info) -> Money:
        account = await _load_account(self, info)
        return Money.from_money(account.available or account.balance)

    @strawberry.field(
        description="The newest 100 changes of the account that are not operations, newest first. For admins.",
        directives=[cost_directive(CHANGE_COST), list_size_directive(MAX_CHANGES)],
    )
    async def changes(self, info: Info) -> list[AccountChange] | None:
        changes = await info.context.bank.list_account_changes(UUID(self.id), limit=MAX_CHANGES)
        return [AccountChange.from_client(each) for each in changes]

    @strawberry.field(description="Owner of the account; null for an account without an owner.")
    async def owner(self, info: Info) -> User | None:
        owner_id = (await _load_account(self, info)).owner_id
        return User(id=strawberry.ID(owner_id)) if owner_id else None

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _load_account(self, info)).created_at

    @strawberry.field(
        description="The transfers from the account that have a reference, in id order.",
        directives=[cost_directive(PAGE_COST), PAGED_FORWARD],
    )
    async def transfers(
        self, info: Info, reference: str, first: int | None = None, after: str | None = None
    ) -> Annotated["TransferConnection", strawberry.lazy("subgraphs.bank.graph.types")] | None:
        return await list_transfers(info, UUID(self.id), reference, first, after)


def _balance_request(account_id: UUID, time: datetime | None, version: int | None) -> client.BalanceRequest:
    """Return the request for a balance.

    Raises:
        InvalidInput: neither a time nor a version is given, or both are, or one is not valid.
    """
    if (time is None) == (version is None):
        raise InvalidInput.for_field("version" if time else "time", "give either `time` or `version`")
    if version is not None and version < 0:
        raise InvalidInput.for_field("version", "must not be negative")
    if time is not None:
        require_offset("time", time)
    return client.BalanceRequest(account_id, version, time)


async def _load_account(account: Account, info: Info) -> client.Account:
    return getattr(account, "loaded", None) or await info.context.accounts.load(UUID(account.id))


@strawberry.type
class AccountEdge:
    cursor: str
    node: Account


@strawberry.type(description="A page of accounts in id order.")
class AccountConnection:
    edges: list[AccountEdge]
    page_info: PageInfo


async def list_accounts(
    info: Info, owner_id: str, first: int | None, after: str | None, last: int | None, before: str | None
) -> AccountConnection:
    """Return a page of an owner's accounts; an empty `owner_id` means the caller."""
    # The list is in id order, so a later account is what an older item is in a list that is sorted newest first.
    page_request = paging.parse_relay_arguments(
        cursor.decode_id, start=cursor.ID_END, first=first, after=after, last=last, before=before
    )
    after_id, before_id = page_request.older_than, page_request.newer_than
    page = await info.context.account_pages.load(AccountPageRequest(owner_id, page_request.limit, after_id, before_id))
    edges = [AccountEdge(cursor=cursor.encode_id(each.id), node=Account.from_client(each)) for each in page.accounts]
    is_backward = before_id is not None
    return AccountConnection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=bool(before) if is_backward else page.has_more,
            has_previous_page=page.has_more if is_backward else bool(after),
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )


@strawberry.federation.type(keys=["id"], description="A completed transfer.")
class Transfer:
    id: strawberry.ID
    loaded: strawberry.Private[client.Transfer | None] = None

    @classmethod
    def from_client(cls, transfer: client.Transfer) -> Self:
        """Convert a `client.Transfer`."""
        return cls(id=strawberry.ID(str(transfer.id)), loaded=transfer)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.from_client(await info.context.transfers.load(id))

    @strawberry.field
    async def sender(self, info: Info) -> AccountRef:
        return AccountRef(id=strawberry.ID(str((await _load_transfer(self, info)).sender_id)))

    @strawberry.field
    async def recipient(self, info: Info) -> AccountRef:
        return AccountRef(id=strawberry.ID(str((await _load_transfer(self, info)).recipient_id)))

    @strawberry.field
    async def amount(self, info: Info) -> Money:
        return Money.from_money((await _load_transfer(self, info)).amount)

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _load_transfer(self, info)).created_at

    @strawberry.field(
        description="Text for both sides; null if there is none.", directives=[cost_directive(DESCRIPTION_COST)]
    )
    async def description(self, info: Info) -> str | None:
        return (await _load_transfer(self, info)).description or None

    @strawberry.field(
        description="The sender's own id of the transfer; null for those who may not read the sender's account."
    )
    async def reference(self, info: Info) -> str | None:
        return (await _load_transfer(self, info)).reference or None

    @strawberry.field(
        description="Data of the caller who made the transfer; null if there is none, and for other callers.",
        directives=[cost_directive(METADATA_COST)],
    )
    async def metadata(self, info: Info) -> Metadata | None:
        metadata = (await _load_transfer(self, info)).metadata
        return Metadata(metadata) if metadata else None


async def _load_transfer(transfer: Transfer, info: Info) -> client.Transfer:
    return getattr(transfer, "loaded", None) or await info.context.transfers.load(UUID(transfer.id))


@strawberry.type
class TransferEdge:
    cursor: str
    node: Transfer


@strawberry.type(description="A page of transfers in id order.")
class TransferConnection:
    edges: list[TransferEdge]
    page_info: PageInfo


async def list_transfers(
    info: Info, sender_id: UUID, reference: str, first: int | None, after: str | None
) -> TransferConnection:
    """Return a page of the transfers from an account that have a reference."""
    page_request = paging.parse_relay_arguments(
        cursor.decode_id, start=cursor.ID_START, first=first, after=after, last=None, before=None
    )
    page = await info.context.bank.list_transfers(
        sender_id, reference, limit=page_request.limit, after=page_request.older_than
    )
    edges = [TransferEdge(cursor=cursor.encode_id(each.id), node=Transfer.from_client(each)) for each in page.transfers]
    return TransferConnection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=page.has_more,
            has_previous_page=after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )
