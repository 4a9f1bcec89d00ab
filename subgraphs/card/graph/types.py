"""What card top-ups contribute to the graph."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from typing import Annotated, Final, Protocol, Self
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader
from strawberry.federation.schema_directives import Key
from strawberry.federation.types import FieldSet

from kit.rpc import channel
from subgraphs.card import client
from subgraphs.card.client import CardClient, CardDetails
from wallet import cursor, inputs, loading, paging
from wallet.errors import TopUpNotFound
from wallet.graph import (
    PAGED,
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    Error,
    IdempotencyConflict,
    InvalidInput,
    Money,
    PageInfo,
    TopUpLimitExceeded,
    cost_directive,
)
from wallet.inputs import Secret
from wallet.money import DEFAULT_CURRENCY

TopUpLoader = DataLoader[UUID, client.TopUp]

_DECLINED: Final = "DECLINED"


class Context(Protocol):
    """What the resolvers need of a request."""

    @property
    def card(self) -> CardClient: ...

    @property
    def top_ups(self) -> TopUpLoader: ...


Info = strawberry.Info[Context, None]


def top_up_loader(card: CardClient) -> TopUpLoader:
    """Top-ups in one RPC a tick."""
    return loading.batch_loader(card.top_ups)


@strawberry.enum
class TopUpStatus(Enum):
    CREATED = strawberry.enum_value("CREATED", description="Asked for; whether the card can pay is not known yet.")
    AUTHORIZED = strawberry.enum_value("AUTHORIZED", description="The card's issuer holds the sum.")
    CAPTURED = strawberry.enum_value(
        "CAPTURED",
        description="The sum is taken from the card and not on the account yet.",
    )
    COMPLETED = strawberry.enum_value("COMPLETED", description="Final: the sum is on the account.")
    DECLINED = strawberry.enum_value(
        "DECLINED",
        description="Final: the issuer or the acquirer refused. Nothing was taken.",
    )
    VOIDED = strawberry.enum_value("VOIDED", description="Final: given up before anything was taken.")
    REFUNDED = strawberry.enum_value("REFUNDED", description="Final: taken, could not be credited, and given back.")
    NEEDS_REVIEW = strawberry.enum_value("NEEDS_REVIEW", description="A person has to look at it.")


@strawberry.enum
class CardBrand(Enum):
    VISA = "VISA"
    MASTERCARD = "MASTERCARD"
    MIR = "MIR"
    AMEX = "AMEX"
    UNIONPAY = "UNIONPAY"
    OTHER = "OTHER"


@strawberry.type(description="A card as it may be shown.")
class Card:
    brand: CardBrand
    last_four: str

    @classmethod
    def of(cls, card: client.Card) -> "Card":
        """The same card for the graph."""
        return cls(brand=CardBrand(card.brand), last_four=card.last_four)


@strawberry.federation.type(keys=[Key(fields=FieldSet("id"), resolvable=False)])
class Transfer:
    id: strawberry.ID


@strawberry.federation.type(keys=["id"])
class Account:
    id: strawberry.ID

    @strawberry.field(
        description="The account's top-ups, newest first. `first` and `after` go towards older ones, `last` and "
        "`before` towards newer ones.",
        directives=[cost_directive(5), PAGED],
    )
    async def top_ups(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Annotated["TopUpConnection", strawberry.lazy("subgraphs.card.graph")] | None:
        asked = paging.parse_relay_arguments(cursor.decode_id, first=first, after=after, last=last, before=before)
        page = await info.context.card.list(
            UUID(self.id),
            limit=asked.limit,
            older_than=asked.older_than,
            newer_than=asked.newer_than,
        )
        return TopUpConnection.of(page)


@strawberry.federation.type(keys=["id"], description="A sum that is paid into an account by card.")
class TopUp:
    id: strawberry.ID
    loaded: strawberry.Private[client.TopUp | None] = None

    @classmethod
    def of(cls, top_up: client.TopUp) -> Self:
        """The same top-up for the graph."""
        return cls(id=strawberry.ID(str(top_up.id)), loaded=top_up)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.of(await info.context.top_ups.load(id))

    @strawberry.field(description="The caller's account that it is paid into. Null while the bank cannot tell of it.")
    async def account(self, info: Info) -> Account | None:
        return Account(id=strawberry.ID(str((await _top_up(self, info)).account_id)))

    @strawberry.field
    async def amount(self, info: Info) -> Money:
        return Money.from_money((await _top_up(self, info)).amount)

    @strawberry.field
    async def status(self, info: Info) -> TopUpStatus:
        return TopUpStatus((await _top_up(self, info)).status)

    @strawberry.field
    async def card(self, info: Info) -> Card:
        return Card.of((await _top_up(self, info)).card)

    @strawberry.field(
        description="Why it did not come to be, as a machine name such as `DO_NOT_HONOR`. Null while all goes well.",
    )
    async def failure(self, info: Info) -> str | None:
        return (await _top_up(self, info)).failure

    @strawberry.field(description="What the ledger has of it, once it is COMPLETED. Null until then.")
    async def transfer(self, info: Info) -> Transfer | None:
        transfer_id = (await _top_up(self, info)).transfer_id
        return None if transfer_id is None else Transfer(id=strawberry.ID(str(transfer_id)))

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _top_up(self, info)).created_at

    @strawberry.field
    async def updated_at(self, info: Info) -> datetime:
        return (await _top_up(self, info)).updated_at


async def _top_up(top_up: TopUp, info: Info) -> client.TopUp:
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
    def of(cls, page: client.TopUpPage) -> "TopUpConnection":
        """The same page for the graph."""
        edges = [TopUpEdge(cursor=cursor.encode_id(each.id), node=TopUp.of(each)) for each in page.top_ups]
        return cls(
            edges=edges,
            page_info=PageInfo.from_cursors(
                [edge.cursor for edge in edges],
                has_older=page.has_older,
                has_newer=page.has_newer,
            ),
        )


@strawberry.input(description="A card's data on its only way through: to the acquirer.")
class CardInput:
    number: Secret = strawberry.field(description="12 to 19 digits.")
    expiry_month: int
    expiry_year: int = strawberry.field(description="Four digits.")
    cvv: Secret = strawberry.field(description="3 digits, 4 on American Express.")


@strawberry.input
class TopUpAccountInput:
    account_id: strawberry.ID
    amount: str = strawberry.field(description="A decimal number, such as 10.00.")
    currency: str = strawberry.field(default=DEFAULT_CURRENCY, description="ISO 4217.")
    card: CardInput = strawberry.field(description="Best sent by a variable: query texts are kept in many places.")
    idempotency_key: str = strawberry.field(
        description="Chosen by the caller, one for each intended effect: 1 to 255 printable ASCII characters.",
    )


@strawberry.type
class TopUpAccountSuccess:
    top_up: TopUp = strawberry.field(description="In its current state; `topUpUpdated` tells how it goes on.")


@strawberry.type(description="The issuer or the acquirer refused the card. Nothing was taken.")
class CardDeclined(Error):
    decline_code: str = strawberry.field(description="Why, as a machine name such as `DO_NOT_HONOR`.")
    top_up: TopUp

    @classmethod
    def of(cls, top_up: client.TopUp) -> "CardDeclined":
        """What became of a top-up that is DECLINED."""
        decline_code = top_up.failure or _DECLINED
        return cls(
            message=f"the card was declined: {decline_code}",
            code="CARD_DECLINED",
            decline_code=decline_code,
            top_up=TopUp.of(top_up),
        )


TopUpAccountResult = Annotated[
    TopUpAccountSuccess
    | CardDeclined
    | InvalidInput
    | AccountNotFound
    | AccountClosed
    | CurrencyMismatch
    | TopUpLimitExceeded
    | IdempotencyConflict,
    strawberry.union("TopUpAccountResult"),
]


@strawberry.type
class Query:
    @strawberry.field(description="A top-up of an account of the caller's, or null.")
    async def top_up(self, info: Info, id: strawberry.ID) -> TopUp | None:  # noqa: A002
        try:
            return TopUp.of(await info.context.top_ups.load(inputs.parse_uuid(id)))
        except (TopUpNotFound, ValueError):
            return None


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Pays into an account by card, once for each idempotency key. It answers as soon as the top-up is "
        "final, or after a short wait as it then is. After UNAVAILABLE or DEADLINE_EXCEEDED the outcome is not known: "
        "retry with the same key.",
    )
    async def top_up_account(self, info: Info, input: TopUpAccountInput) -> TopUpAccountResult:  # noqa: A002
        with inputs.FieldParser() as fields:
            account_id = fields.parse("accountId", inputs.parse_uuid, input.account_id)
            amount = fields.parse_money(input.amount, input.currency)
            number = fields.parse("card.number", inputs.parse_digits, input.card.number.text)
            cvv = fields.parse("card.cvv", inputs.parse_digits, input.card.cvv.text)
        card = CardDetails(number, input.card.expiry_month, input.card.expiry_year, cvv)
        top_up = await info.context.card.top_up(account_id, amount, card, input.idempotency_key)
        if top_up.status == _DECLINED:
            return CardDeclined.of(top_up)
        return TopUpAccountSuccess(top_up=TopUp.of(top_up))


@strawberry.type
class Subscription:
    @strawberry.subscription(description="A top-up as it is now, then each change of it, until it is final.")
    async def top_up_updated(self, info: Info, id: strawberry.ID) -> AsyncGenerator[TopUp, None]:  # noqa: A002
        with inputs.FieldParser() as fields:
            top_up_id = fields.parse("id", inputs.parse_uuid, id)
        seen = 0
        async with aclosing(channel.reconnecting_stream(lambda: info.context.card.watch(top_up_id))) as changes:
            async for top_up in changes:
                if top_up.version > seen:  # a stream that is opened again begins with what the last one ended with
                    seen = top_up.version
                    yield TopUp.of(top_up)
