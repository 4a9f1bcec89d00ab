"""Card top-ups as their callers see them: typed values in and out, typed errors."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from kit.rpc import converters
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.status import error_from_status
from kit.rpc.tls import TLS
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from wallet.errors import WalletError
from wallet.money import Money

SERVICE: Final = card_pb2.DESCRIPTOR.services_by_name["CardService"].full_name

_READS: Final = ("GetTopUp", "BatchGetTopUps", "ListTopUps")
_WHAT: Final = "the card service"

Status = Literal[
    "CREATED",
    "AUTHORIZED",
    "CAPTURED",
    "COMPLETED",
    "DECLINED",
    "VOIDED",
    "REFUNDED",
    "NEEDS_REVIEW",
]
Brand = Literal["VISA", "MASTERCARD", "MIR", "AMEX", "UNIONPAY", "OTHER"]

_STATUSES: Final[dict[int, Status]] = {
    card_pb2.TOP_UP_STATUS_CREATED: "CREATED",
    card_pb2.TOP_UP_STATUS_AUTHORIZED: "AUTHORIZED",
    card_pb2.TOP_UP_STATUS_CAPTURED: "CAPTURED",
    card_pb2.TOP_UP_STATUS_COMPLETED: "COMPLETED",
    card_pb2.TOP_UP_STATUS_DECLINED: "DECLINED",
    card_pb2.TOP_UP_STATUS_VOIDED: "VOIDED",
    card_pb2.TOP_UP_STATUS_REFUNDED: "REFUNDED",
    card_pb2.TOP_UP_STATUS_NEEDS_REVIEW: "NEEDS_REVIEW",
}
_BRANDS: Final[dict[int, Brand]] = {
    card_pb2.CARD_BRAND_VISA: "VISA",
    card_pb2.CARD_BRAND_MASTERCARD: "MASTERCARD",
    card_pb2.CARD_BRAND_MIR: "MIR",
    card_pb2.CARD_BRAND_AMEX: "AMEX",
    card_pb2.CARD_BRAND_UNIONPAY: "UNIONPAY",
    card_pb2.CARD_BRAND_OTHER: "OTHER",
}


@dataclass(frozen=True, slots=True)
class CardDetails:
    """A card's data on its only way through. Its `repr` shows neither number nor code."""

    number: str = field(repr=False)
    expiry_month: int
    expiry_year: int
    cvv: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Card:
    """A card as it may be shown."""

    brand: Brand
    last_four: str


@dataclass(frozen=True, slots=True)
class TopUp:
    """A top-up now. `version` grows with every change of it.

    Attributes:
        failure: why it did not come to be, as a machine name; None while all goes well.
        transfer_id: the deposit in the ledger, once COMPLETED.
    """

    id: UUID
    account_id: UUID
    amount: Money
    status: Status
    card: Card
    failure: str | None
    transfer_id: UUID | None
    created_at: datetime
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class TopUpPage:
    """Top-ups, newest first, and whether there are more on either side."""

    top_ups: tuple[TopUp, ...]
    has_older: bool
    has_newer: bool


class CardClient:
    """Calls the card service in the name of the current call's caller (`kit.rpc.request_context.current`).

    Every method raises the `WalletError` that the service refused it with, Unavailable when it does not answer and
    DeadlineExceeded when it does not in time. After these two the outcome of a call with a key is unknown, and calling
    again with the same key is safe; reads are always safe to call again.
    """

    def __init__(self, stub: "card_pb2_grpc.CardServiceAsyncStub", limits: ClientLimits = ClientLimits()) -> None:
        self._stub = stub
        self._calls = RpcClient(_WHAT, limits)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, limits: ClientLimits = ClientLimits(), tls: TLS | None = None
    ) -> AsyncIterator["CardClient"]:
        """A client of the card service at a gRPC target; connects when first called."""
        async with open_channel(target, SERVICE, _READS, tls, name="card") as opened:
            yield cls(card_pb2_grpc.CardServiceStub(opened), limits)

    async def top_up(self, account_id: UUID, amount: Money, card: CardDetails, idempotency_key: str) -> TopUp:
        """Begins to pay a sum into an account, once per key: the top-up in its current state, maybe final already. A
        declined card is no error but a top-up in state DECLINED.
        """
        request = card_pb2.ProcessCardTopUpRequest(
            account_id=str(account_id),
            amount=converters.money_to_proto(amount),
            card=card_pb2.CardDetails(
                number=card.number,
                expiry_month=card.expiry_month,
                expiry_year=card.expiry_year,
                cvv=card.cvv,
            ),
            idempotency_key=idempotency_key,
        )
        response = await self._calls.unary(self._stub.ProcessCardTopUp, request)
        return _top_up(response.top_up)

    async def get(self, top_up_id: UUID) -> TopUp:
        """One top-up as it is now."""
        request = card_pb2.GetTopUpRequest(id=str(top_up_id))
        response = await self._calls.unary(self._stub.GetTopUp, request)
        return _top_up(response.top_up)

    async def top_ups(self, ids: Sequence[UUID]) -> dict[UUID, TopUp | WalletError]:
        """Each top-up, or why the caller does not get it; at most 1,000."""
        request = card_pb2.BatchGetTopUpsRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetTopUps, request)
        return {
            UUID(result.key): _top_up(result.value) if result.HasField("value") else error_from_status(result.error)
            for result in response.results
        }

    async def list(
        self,
        account_id: UUID,
        *,
        limit: int,
        older_than: UUID | None = None,
        newer_than: UUID | None = None,
    ) -> TopUpPage:
        """A page of the account's top-ups: those before one top-up, or after one."""
        request = card_pb2.ListTopUpsRequest(
            account_id=str(account_id),
            page_size=limit,
            older_than=str(older_than or ""),
            newer_than=str(newer_than or ""),
        )
        response = await self._calls.unary(self._stub.ListTopUps, request)
        return TopUpPage(tuple(map(_top_up, response.top_ups)), response.has_older, response.has_newer)

    async def watch(self, top_up_id: UUID) -> AsyncGenerator[TopUp, None]:
        """The top-up as it is now, then each change of it, until it is final."""
        request = card_pb2.WatchTopUpRequest(id=str(top_up_id))
        async with aclosing(self._calls.stream(self._stub.WatchTopUp, request)) as responses:
            async for response in responses:
                yield _top_up(response.top_up)


def _top_up(message: card_pb2.TopUp) -> TopUp:
    return TopUp(
        UUID(message.id),
        UUID(message.account_id),
        converters.money_from_proto(message.amount),
        _STATUSES[message.status],
        Card(_BRANDS[message.card.brand], message.card.last_four),
        message.failure or None,
        UUID(message.transfer_id) if message.transfer_id else None,
        converters.time_from_proto(message.created_at),
        converters.time_from_proto(message.updated_at),
        message.version,
    )
