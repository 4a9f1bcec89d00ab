"""Routes of transfers between accounts."""

from http import HTTPStatus
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import REPLAYED
from gateway.rest.direct_route import DirectRoute, json_response
from gateway.rest.idempotency_key import read_idempotency_key
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs
from wallet.errors import TransferNotFound


def transfer_routes(bank: BankClient) -> list[DirectRoute]:
    """Build the routes of `/accounts/{accountId}/transfers`."""

    async def create_transfer(
        request: Request,
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TransferRequest,
    ) -> Response:
        with inputs.FieldParser() as fields:
            key = read_idempotency_key(request.headers, fields)
            amount = fields.parse_money(body.amount, body.currency)
        receipt = await bank.transfer(accountId, body.recipient_id, amount, key.text, key.raw)
        headers = {"Location": f"/accounts/{accountId}/transfers/{receipt.transfer.id}"}
        if receipt.is_replay:
            headers.update(REPLAYED)
        return json_response(transfer_to_rest(receipt.transfer), HTTPStatus.CREATED, headers)

    async def get_transfer(_: Request, accountId: UUID, transferId: UUID) -> Response:  # noqa: N803  the contract's names
        transfer = await bank.get_transfer(transferId)
        if accountId not in {transfer.sender_id, transfer.recipient_id}:
            raise TransferNotFound(str(transferId))
        return json_response(transfer_to_rest(transfer))

    return [
        DirectRoute("POST", "/accounts/{accountId}/transfers", create_transfer, body=models.TransferRequest),
        DirectRoute("GET", "/accounts/{accountId}/transfers/{transferId}", get_transfer),
    ]


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
