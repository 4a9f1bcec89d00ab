"""GraphQL types of card top-ups."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Self
from uuid import UUID

import strawberry
from strawberry.federation.schema_directives import Key
from strawberry.federation.types import FieldSet

from subgraphs.card import client
from subgraphs.card.graph.context import Info
from wallet import cursor, paging
from wallet.graph import PAGE_COST, PAGED, Money, PageInfo, cost_directive


@strawberry.enum
class TopUpStatus(Enum):
    CREATED = strawberry.enum_value(
        "CREATED", description="Created; the outcome of the authorization is not known yet."
    )
    AUTHORIZED = strawberry.enum_value("AUTHORIZED", description="The issuer has reserved the amount on the card.")
    CAPTURED = strawberry.enum_value(
        "CAPTURED",
        description="The amount was charged to the card and is not on the account yet.",
    )
    COMPLETED = strawberry.enum_value("COMPLETED", description="Final: the amount is on the account.")
    DECLINED = strawberry.enum_value(
        "DECLINED",
        description="Final: the issuer or the acquirer declined the card. Nothing was charged.",
    )
    VOIDED = strawberry.enum_value("VOIDED", description="Final: cancelled before anything was charged.")
    REFUNDED = strawberry.enum_value("REFUNDED", description="Final: charged, could not be credited, and refunded.")
    NEEDS_REVIEW = strawberry.enum_value("NEEDS_REVIEW", description="An operator must check the top-up.")


@strawberry.enum
class CardBrand(Enum):
    VISA = "VISA"
    MASTERCARD = "MASTERCARD"
    MIR = "MIR"
    AMEX = "AMEX"
    UNIONPAY = "UNIONPAY"
    OTHER = "OTHER"


@strawberry.type(description="Card data that may be shown.")
class Card:
    brand: CardBrand
    last_four: str

    @classmethod
    def from_client(cls, card: client.Card) -> "Card":
        """Convert a `client.Card`."""
        return cls(brand=CardBrand(card.brand), last_four=card.last_four)


@strawberry.federation.type(keys=[Key(fields=FieldSet("id"), resolvable=False)])
class Transfer:
    id: strawberry.ID


@strawberry.federation.type(keys=["id"])
class Account:
    id: strawberry.ID

    @strawberry.field(
        description="The account's top-ups, newest first. `first` and `after` page to older top-ups, `last` and "
        "`before` to newer ones. `last` without `before` returns the end of the list, the oldest top-ups. Pages are "
        "always complete: they are read from the database that stores the top-ups.",
        directives=[cost_directive(PAGE_COST), PAGED],
    )
    async def top_ups(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Annotated["TopUpConnection", strawberry.lazy("subgraphs.card.graph.types")] | None:
        page_request = paging.parse_relay_arguments(
            cursor.decode_id, start=cursor.ID_START, first=first, after=after, last=last, before=before
        )
        page = await info.context.top_up_pages.load(
            client.TopUpPageRequest(
                UUID(self.id),
                limit=page_request.limit,
                older_than=page_request.older_than,
                newer_than=page_request.newer_than,
            )
        )
        return TopUpConnection.from_client(page)


@strawberry.federation.type(keys=["id"], description="A payment by card into an account.")
class TopUp:
    id: strawberry.ID
    loaded: strawberry.Private[client.TopUp | None] = None

    @classmethod
    def from_client(cls, top_up: client.TopUp) -> Self:
        """Convert a `client.TopUp`."""
        return cls(id=strawberry.ID(str(top_up.id)), loaded=top_up)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.from_client(await info.context.top_ups.load(id))

    @strawberry.field(description="Account that receives the amount. Null while the bank is unavailable.")
    async def account(self, info: Info) -> Account | None:
        return Account(id=strawberry.ID(str((await _load_top_up(self, info)).account_id)))

    @strawberry.field
    async def amount(self, info: Info) -> Money:
        return Money.from_money((await _load_top_up(self, info)).amount)

    @strawberry.field
    async def status(self, info: Info) -> TopUpStatus:
        return TopUpStatus((await _load_top_up(self, info)).status)

    @strawberry.field
    async def card(self, info: Info) -> Card:
        return Card.from_client((await _load_top_up(self, info)).card)

    @strawberry.field(
        description="Reason of the failure as a machine name, such as `DO_NOT_HONOR`; null without a failure.",
    )
    async def failure(self, info: Info) -> str | None:
        return (await _load_top_up(self, info)).failure

    @strawberry.field(description="Transfer in the ledger, once the top-up is COMPLETED; else null.")
    async def transfer(self, info: Info) -> Transfer | None:
        transfer_id = (await _load_top_up(self, info)).transfer_id
        return None if transfer_id is None else Transfer(id=strawberry.ID(str(transfer_id)))

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _load_top_up(self, info)).created_at

    @strawberry.field
    async def updated_at(self, info: Info) -> datetime:
        return (await _load_top_up(self, info)).updated_at


async def _load_top_up(top_up: TopUp, info: Info) -> client.TopUp:
    return getattr(top_up, "loaded", None) or await info.context.top_ups.load(UUID(top_up.id))


@strawberry.type
class TopUpEdge:
    cursor: str
    node: TopUp


@strawberry.type(description="A page of top-ups, newest first.")
class TopUpConnection:
    edges: list[TopUpEdge]
    page_info: PageInfo

    @classmethod
    def from_client(cls, page: client.TopUpPage) -> "TopUpConnection":
        """Convert a `client.TopUpPage`."""
        edges = [TopUpEdge(cursor=cursor.encode_id(each.id), node=TopUp.from_client(each)) for each in page.top_ups]
        return cls(
            edges=edges,
            page_info=PageInfo.from_cursors(
                [edge.cursor for edge in edges],
                has_older=page.has_older,
                has_newer=page.has_newer,
            ),
        )
