"""Routes of transfers between accounts."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.errors import REPLAYED
from gateway.rest.direct_route import DirectRoute, json_response
from gateway.rest.guarded_route import GuardedRoute
from gateway.rest.idempotency_key import read_idempotency_key
from gateway.rest.page_charge import ChargePage
from kit.http.invalid_requests import WholeNumber
from kit.runtime.pauses import convert_all
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs
from wallet.errors import TransferNotFound


def transfer_routes(bank: BankClient, charge_page: ChargePage) -> list[BaseRoute]:
    """Build the routes of `/accounts/{accountId}/transfers`.

    Args:
        bank: gRPC client of the bank.
        charge_page: counts a large page as several requests.
    """
    router = APIRouter(route_class=GuardedRoute)

    async def create_transfer(
        request: Request,
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TransferRequest,
    ) -> Response:
        with inputs.FieldParser() as fields:
            key = read_idempotency_key(request.headers, fields)
            amount = fields.parse_money(body.amount, body.currency)
        receipt = await bank.transfer(accountId, body.recipient_id, amount, key.text, key.raw, words_from_rest(body))
        headers = {"Location": f"/accounts/{accountId}/transfers/{receipt.transfer.id}"}
        if receipt.is_replay:
            headers.update(REPLAYED)
        return json_response(transfer_to_rest(receipt.transfer), HTTPStatus.CREATED, headers)

    async def get_transfer(_: Request, accountId: UUID, transferId: UUID) -> Response:  # noqa: N803  the contract's names
        transfer = await bank.get_transfer(transferId)
        if accountId not in {transfer.sender_id, transfer.recipient_id}:
            raise TransferNotFound(str(transferId))
        return json_response(transfer_to_rest(transfer))

    @router.get("/accounts/{accountId}/transfers", response_model_exclude_none=True)
    async def list_transfers(
        accountId: UUID,  # noqa: N803  the contract's name
        reference: Annotated[str, Query(min_length=1, max_length=64)],
        limit: Annotated[WholeNumber, Query(ge=1, le=1_000)] = 50,
        after: UUID | None = None,
    ) -> models.TransferPage:
        await charge_page(limit)
        page = await bank.list_transfers(accountId, reference, limit=limit, after=after)
        transfers = await convert_all(transfer_to_rest, page.transfers)
        return models.TransferPage(transfers=transfers, has_more=page.has_more)

    return [
        DirectRoute("POST", "/accounts/{accountId}/transfers", create_transfer, body=models.TransferRequest),
        DirectRoute("GET", "/accounts/{accountId}/transfers/{transferId}", get_transfer),
        *router.routes,
    ]


def words_from_rest(body: models.TransferRequest | models.TransferBatchItem) -> client.Words:
    """Return the words of a requested transfer."""
    if not (body.description or body.reference or body.metadata or body.unique_reference):
        return client.NO_WORDS
    return client.Words(body.description or "", body.reference or "", body.metadata or {}, body.unique_reference)


def transfer_to_rest(transfer: client.Transfer) -> models.Transfer:
    """Convert a transfer to the contract's model."""
    return models.Transfer(
        id=transfer.id,
        sender_id=transfer.sender_id,
        recipient_id=transfer.recipient_id,
        amount=str(transfer.amount),
        currency=transfer.amount.currency,
        created_at=transfer.created_at,
        description=transfer.description or None,
        reference=transfer.reference or None,
        metadata=dict(transfer.metadata) or None,
    )
