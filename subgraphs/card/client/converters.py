"""Converts between the client's values and `card.proto` messages."""

from typing import Final
from uuid import UUID

from kit.rpc.converters import money_from_proto, time_from_proto
from kit.runtime.pauses import convert_all
from protos.wallet.card.v1 import card_pb2
from subgraphs.card.client.types import (
    Brand,
    Card,
    CardDetails,
    Status,
    TopUp,
    TopUpPage,
    TopUpPageRequest,
)

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


def card_details_to_proto(card: CardDetails) -> card_pb2.CardDetails:
    """Convert card details."""
    return card_pb2.CardDetails(
        number=card.number,
        expiry_month=card.expiry_month,
        expiry_year=card.expiry_year,
        cvv=card.cvv,
    )


def top_up_from_proto(message: card_pb2.TopUp) -> TopUp:
    """Convert a top-up."""
    return TopUp(
        UUID(message.id),
        UUID(message.account_id),
        money_from_proto(message.amount),
        _STATUSES[message.status],
        Card(_BRANDS[message.card.brand], message.card.last_four),
        message.failure or None,
        UUID(message.transfer_id) if message.transfer_id else None,
        time_from_proto(message.created_at),
        time_from_proto(message.updated_at),
        message.version,
    )


def top_up_page_request_to_proto(request: TopUpPageRequest) -> card_pb2.ListTopUpsRequest:
    """Convert the request of a page."""
    return card_pb2.ListTopUpsRequest(
        account_id=str(request.account_id),
        page_size=request.limit,
        older_than=str(request.older_than or ""),
        newer_than=str(request.newer_than or ""),
    )


async def top_up_page_from_proto(message: card_pb2.ListTopUpsResponse) -> TopUpPage:
    """Convert a page, with pauses."""
    top_ups = tuple(await convert_all(top_up_from_proto, message.top_ups))
    return TopUpPage(top_ups, message.has_older, message.has_newer)
