"""Routes of transfers between accounts."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from gateway.errors import REPLAYED
from gateway.rest.guarded_route import GuardedRoute
from gateway.rest.idempotency_key import read_idempotency_key
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs
from wallet.errors import TransferNotFound


def transfer_routes(bank: BankClient) -> APIRouter:
    """Build the routes of `/accounts/{accountId}/transfers`."""
    router = APIRouter(route_class=GuardedRoute)

    @router.post("/accounts/{accountId}/transfers", status_code=201)
    async def create_transfer(
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TransferRequest,
        request: Request,
        response: Response,
    ) -> models.Transfer:
        with inputs.FieldParser() as fields:
            key = read_idempotency_key(request.headers, fields)
            amount = fields.parse_money(body.amount, body.currency)
        receipt = await bank.transfer(accountId, body.recipient_id, amount, key.text, key.raw)
        response.headers["Location"] = f"/accounts/{accountId}/transfers/{receipt.transfer.id}"
        if receipt.is_replay:
            response.headers.update(REPLAYED)
        return transfer_to_rest(receipt.transfer)

    @router.get("/accounts/{accountId}/transfers/{transferId}")
    async def get_transfer(accountId: UUID, transferId: UUID) -> models.Transfer:  # noqa: N803  the contract's names
        transfer = await bank.get_transfer(transferId)
        if accountId not in {transfer.sender_id, transfer.recipient_id}:
            raise TransferNotFound(str(transferId))
        return transfer_to_rest(transfer)

    return router


def transfer_to_rest(transfer: client.Transfer) -> models.Transfer:
    """Convert a transfer to the contract's model."""
    return models.Transfer(
        id=transfer.id,
        sender_id=transfer.sender_id,
        recipient_id=transfer.recipient_id,
        amount=str(transfer.amount),
        currency=transfer.amount.currency,
        created_at=transfer.created_at,
    )
