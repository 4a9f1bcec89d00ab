"""gRPC servicer of the card service: converts requests and results."""

# ruff: noqa: D102, N802  card.proto names and documents the methods
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc

from kit.auth.principal import TokenVerifier
from kit.rpc import request_context
from kit.rpc.client_address import stated_address
from kit.rpc.converters import money_from_proto
from kit.rpc.status import error_to_status
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from subgraphs.card.service.api.converters import (
    card_details_from_proto,
    id_from_text,
    ids_from_texts,
    page_request_from_proto,
    page_to_proto,
    top_up_to_proto,
    try_page_request_from_proto,
)
from subgraphs.card.service.application.service import TopUps
from wallet import inputs, paging
from wallet.errors import TopUpNotFound, WalletError

SERVICE: Final = card_pb2.DESCRIPTOR.services_by_name["CardService"].full_name


class CardServicer(card_pb2_grpc.CardServiceServicer):
    """Implementation of `card.proto`. Errors propagate; `kit.rpc.server` converts them to gRPC statuses."""

    def __init__(self, top_ups: TopUps, verifier: TokenVerifier) -> None:
        """Args:
        top_ups: use cases.
        verifier: verifies that the gateway stated the address of a client.
        """
        self._top_ups = top_ups
        self._verifier = verifier

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        card_pb2_grpc.add_CardServiceServicer_to_server(self, server)

    async def ProcessCardTopUp(
        self,
        request: card_pb2.ProcessCardTopUpRequest,
        context: Any,
    ) -> card_pb2.ProcessCardTopUpResponse:
        with inputs.FieldParser() as fields:
            account_id = fields.parse("accountId", inputs.parse_uuid, request.account_id)
            amount = fields.parse("amount", money_from_proto, request.amount)
        card = card_details_from_proto(request.card)
        caller = request_context.current_principal()
        address = await stated_address(context, self._verifier)
        key, raw_key = request.idempotency_key, request.raw_idempotency_key or None
        top_up, is_replay = await self._top_ups.create(caller, account_id, amount, card, key, address, raw_key)
        return card_pb2.ProcessCardTopUpResponse(top_up=top_up_to_proto(top_up), is_replay=is_replay)

    async def GetTopUp(
        self,
        request: card_pb2.GetTopUpRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.GetTopUpResponse:
        top_up = await self._top_ups.get(request_context.current_principal(), id_from_text("id", request.id))
        return card_pb2.GetTopUpResponse(top_up=top_up_to_proto(top_up))

    async def BatchGetTopUps(
        self,
        request: card_pb2.BatchGetTopUpsRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.BatchGetTopUpsResponse:
        ids = ids_from_texts(request.ids)
        top_ups = await self._top_ups.get_many(request_context.current_principal(), list(ids.values()))
        return card_pb2.BatchGetTopUpsResponse(
            results=[
                card_pb2.BatchGetTopUpsResponse.Result(key=key, value=top_up_to_proto(top_ups[id_]))
                if id_ in top_ups
                else card_pb2.BatchGetTopUpsResponse.Result(key=key, error=error_to_status(TopUpNotFound(str(id_))))
                for key, id_ in ids.items()
            ],
        )

    async def ListTopUps(
        self,
        request: card_pb2.ListTopUpsRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.ListTopUpsResponse:
        return await page_to_proto(await self._top_ups.list_by_account(page_request_from_proto(request)))

    async def BatchListTopUps(
        self,
        request: card_pb2.BatchListTopUpsRequest,
        context: Any,  # noqa: ARG002
    ) -> card_pb2.BatchListTopUpsResponse:
        paging.check_batch([each.page_size for each in request.requests])
        pages = await self._top_ups.list_pages([try_page_request_from_proto(each) for each in request.requests])
        response = card_pb2.BatchListTopUpsResponse()
        for page in pages:
            if isinstance(page, WalletError):
                response.results.add(error=error_to_status(page))
            else:
                response.results.add(value=await page_to_proto(page))
        return response

    async def WatchTopUp(
        self,
        request: card_pb2.WatchTopUpRequest,
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[card_pb2.WatchTopUpResponse]:
        id_ = id_from_text("id", request.id)
        async with aclosing(self._top_ups.watch(request_context.current_principal(), id_)) as states:
            async for top_up in states:
                yield card_pb2.WatchTopUpResponse(top_up=top_up_to_proto(top_up))
