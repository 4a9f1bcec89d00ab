"""Converts between `card.proto` messages and the domain's values."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from kit.rpc.converters import money_to_proto, time_to_proto
from kit.runtime.pauses import convert_all
from protos.wallet.card.v1 import card_pb2
from subgraphs.card.service.domain.cards import Brand, CardDetails
from subgraphs.card.service.domain.top_up import Status, TopUp, TopUpPage, TopUpPageRequest
from wallet import inputs
from wallet.errors import InvalidInput

_MAX_IDS: Final = 1_000
_STATUSES: Final = {
    Status.CREATED: card_pb2.TOP_UP_STATUS_CREATED,
    Status.AUTHORIZED: card_pb2.TOP_UP_STATUS_AUTHORIZED,
    Status.CAPTURED: card_pb2.TOP_UP_STATUS_CAPTURED,
    Status.COMPLETED: card_pb2.TOP_UP_STATUS_COMPLETED,
    Status.DECLINED: card_pb2.TOP_UP_STATUS_DECLINED,
    Status.VOIDED: card_pb2.TOP_UP_STATUS_VOIDED,
    Status.REFUNDED: card_pb2.TOP_UP_STATUS_REFUNDED,
    Status.NEEDS_REVIEW: card_pb2.TOP_UP_STATUS_NEEDS_REVIEW,
}
_BRANDS: Final = {
    Brand.VISA: card_pb2.CARD_BRAND_VISA,
    Brand.MASTERCARD: card_pb2.CARD_BRAND_MASTERCARD,
    Brand.MIR: card_pb2.CARD_BRAND_MIR,
    Brand.AMEX: card_pb2.CARD_BRAND_AMEX,
    Brand.UNIONPAY: card_pb2.CARD_BRAND_UNIONPAY,
    Brand.OTHER: card_pb2.CARD_BRAND_OTHER,
}


def id_from_text(field: str, text: str) -> UUID:
    """Parse the UUID of a request field.

    Raises:
        InvalidInput: the text is not a UUID. The error names the field.
    """
    try:
        return inputs.parse_uuid(text)
    except ValueError as error:
        raise InvalidInput.for_field(field, str(error)) from None


def _optional_id_from_text(field: str, text: str) -> UUID | None:
    return id_from_text(field, text) if text else None


def ids_from_texts(texts: Sequence[str]) -> dict[str, UUID]:
    """Parse the ids of a batch request. Return the UUID of each text.

    Raises:
        InvalidInput: too many ids, or one of them is not a UUID.
    """
    if len(texts) > _MAX_IDS:
        raise InvalidInput.for_field("ids", f"must have at most {_MAX_IDS} entries")
    return {text: id_from_text("ids", text) for text in texts}


def page_request_from_proto(message: card_pb2.ListTopUpsRequest) -> TopUpPageRequest:
    """Convert the request of a page.

    Raises:
        InvalidInput: an id is not a UUID.
    """
    return TopUpPageRequest(
        id_from_text("accountId", message.account_id),
        limit=message.page_size,
        older_than=_optional_id_from_text("olderThan", message.older_than),
        newer_than=_optional_id_from_text("newerThan", message.newer_than),
    )


def try_page_request_from_proto(message: card_pb2.ListTopUpsRequest) -> TopUpPageRequest | InvalidInput:
    """Convert the request of a page; return the error if an id is not a UUID."""
    try:
        return page_request_from_proto(message)
    except InvalidInput as error:
        return error


async def page_to_proto(page: TopUpPage) -> card_pb2.ListTopUpsResponse:
    """Convert a page, with pauses."""
    return card_pb2.ListTopUpsResponse(
        top_ups=await convert_all(top_up_to_proto, page.top_ups), has_older=page.has_older, has_newer=page.has_newer
    )


def card_details_from_proto(message: card_pb2.CardDetails) -> CardDetails:
    """Convert card details."""
    return CardDetails(message.number, message.expiry_month, message.expiry_year, message.cvv)


def top_up_to_proto(top_up: TopUp) -> card_pb2.TopUp:
    """Convert a top-up."""
    return card_pb2.TopUp(
        id=str(top_up.id),
        account_id=str(top_up.account_id),
        amount=money_to_proto(top_up.amount),
        status=_STATUSES[top_up.status],
        card=card_pb2.Card(brand=_BRANDS[top_up.card.brand], last_four=top_up.card.last_four),
        failure=top_up.failure or "",
        transfer_id=str(top_up.transfer_id or ""),
        created_at=time_to_proto(top_up.created_at),
        updated_at=time_to_proto(top_up.updated_at),
        version=top_up.version,
    )
