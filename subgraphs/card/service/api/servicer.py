"""Proto to domain and back, nothing else."""

# ruff: noqa: D102, N802  the methods are card.proto's, which names and documents them
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

import grpc

from kit.rpc import converters, request_context, status
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from subgraphs.card.service.application.service import Cards
from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.top_up import Brand, Status, TopUp
from wallet import inputs
from wallet.errors import InvalidInput, TopUpNotFound
from wallet.inputs import FieldParser

SERVICE: Final = card_pb2.DESCRIPTOR.services_by_name["CardService"].full_name

_MAX_KEYS: Final = 1_000
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


class CardServicer(card_pb2_grpc.CardServiceServicer):
    """`card.proto`, served. Errors are raised as they are; `kit.rpc.server` makes statuses of them."""

    def __init__(self, cards: Cards) -> None:
        self._cards = cards

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        card_pb2_grpc.add_CardServiceServicer_to_server(self, server)

    async def ProcessCardTopUp(
        self,
        request: card_pb2.ProcessCardTopUpRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.ProcessCardTopUpResponse:
        with FieldParser() as fields:
            account_id = fields.parse("accountId", inputs.parse_uuid, request.account_id)
            amount = fields.parse("amount", converters.money_from_proto, request.amount)
        card = CardDetails(
            request.card.number,
            request.card.expiry_month,
            request.card.expiry_year,
            request.card.cvv,
        )
        top_up = await self._cards.top_up(
            request_context.current_principal(), account_id, amount, card, request.idempotency_key
        )
        return card_pb2.ProcessCardTopUpResponse(top_up=_top_up(top_up))

    async def GetTopUp(
        self,
        request: card_pb2.GetTopUpRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.GetTopUpResponse:
        top_up = await self._cards.get(request_context.current_principal(), _id("id", request.id))
        return card_pb2.GetTopUpResponse(top_up=_top_up(top_up))

    async def BatchGetTopUps(
        self,
        request: card_pb2.BatchGetTopUpsRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.BatchGetTopUpsResponse:
        if len(request.ids) > _MAX_KEYS:
            raise InvalidInput.for_field("ids", f"must be at most {_MAX_KEYS}")
        keys = {key: _id("ids", key) for key in request.ids}
        found = await self._cards.get_all(request_context.current_principal(), list(keys.values()))
        return card_pb2.BatchGetTopUpsResponse(
            results=[
                card_pb2.BatchGetTopUpsResponse.Result(key=key, value=_top_up(found[id_]))
                if id_ in found
                else card_pb2.BatchGetTopUpsResponse.Result(
                    key=key, error=status.error_to_status(TopUpNotFound(str(id_)))
                )
                for key, id_ in keys.items()
            ],
        )

    async def ListTopUps(
        self,
        request: card_pb2.ListTopUpsRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.ListTopUpsResponse:
        page = await self._cards.page(
            _id("accountId", request.account_id),
            limit=request.page_size,
            older_than=_id("olderThan", request.older_than) if request.older_than else None,
            newer_than=_id("newerThan", request.newer_than) if request.newer_than else None,
        )
        return card_pb2.ListTopUpsResponse(
            top_ups=map(_top_up, page.top_ups),
            has_older=page.has_older,
            has_newer=page.has_newer,
        )

    async def WatchTopUp(
        self,
        request: card_pb2.WatchTopUpRequest,
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[card_pb2.WatchTopUpResponse]:
        async with aclosing(self._cards.watch(request_context.current_principal(), _id("id", request.id))) as states:
            async for top_up in states:
                yield card_pb2.WatchTopUpResponse(top_up=_top_up(top_up))


def _id(field: str, text: str) -> UUID:
    try:
        return inputs.parse_uuid(text)
    except ValueError as error:
        raise InvalidInput.for_field(field, str(error)) from None


def _top_up(top_up: TopUp) -> card_pb2.TopUp:
    return card_pb2.TopUp(
        id=str(top_up.id),
        account_id=str(top_up.account_id),
        amount=converters.money_to_proto(top_up.amount),
        status=_STATUSES[top_up.status],
        card=card_pb2.Card(brand=_BRANDS[top_up.card.brand], last_four=top_up.card.last_four),
        failure=top_up.failure or "",
        transfer_id=str(top_up.transfer_id or ""),
        created_at=converters.time_to_proto(top_up.created_at),
        updated_at=converters.time_to_proto(top_up.updated_at),
        version=top_up.version,
    )
