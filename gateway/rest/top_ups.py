"""Routes of top-ups by card."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from gateway.errors import REPLAYED
from gateway.rest.guarded_route import GuardedRoute
from gateway.rest.idempotency_key import read_idempotency_key
from openapi import models
from subgraphs.card import client
from subgraphs.card.client import CardClient
from wallet import inputs
from wallet.errors import TopUpNotFound


def top_up_routes(card: CardClient) -> APIRouter:
    """Build the routes of `/accounts/{accountId}/topup` and `/accounts/{accountId}/topups`."""
    router = APIRouter(route_class=GuardedRoute)

    @router.post("/accounts/{accountId}/topup", status_code=202, response_model_exclude_none=True)
    async def create_top_up(
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TopUpRequest,
        request: Request,
        response: Response,
    ) -> models.TopUp:
        with inputs.FieldParser() as fields:
            key = read_idempotency_key(request.headers, fields)
            amount = fields.parse_money(body.amount, body.currency)
            number = fields.parse("card.number", inputs.parse_digits, body.card.number.get_secret_value())
            cvv = fields.parse("card.cvv", inputs.parse_digits, body.card.cvv.get_secret_value())
        details = client.CardDetails(number, body.card.expiry_month, body.card.expiry_year, cvv)
        created = await card.create_top_up(accountId, amount, details, key.text, key.raw)
        response.headers["Location"] = f"/accounts/{accountId}/topups/{created.top_up.id}"
        if created.is_replay:
            response.headers.update(REPLAYED)
        return top_up_to_rest(created.top_up)

    @router.get("/accounts/{accountId}/topups/{topUpId}", response_model_exclude_none=True)
    async def get_top_up(accountId: UUID, topUpId: UUID) -> models.TopUp:  # noqa: N803  the contract's names
        top_up = await card.get_top_up(topUpId)
        if top_up.account_id != accountId:
            raise TopUpNotFound(str(topUpId))
        return top_up_to_rest(top_up)

    return router


def top_up_to_rest(top_up: client.TopUp) -> models.TopUp:
    """Convert a top-up to the contract's model."""
    return models.TopUp(
        id=top_up.id,
        account_id=top_up.account_id,
        amount=str(top_up.amount),
        currency=top_up.amount.currency,
        status=models.TopUpStatus(top_up.status),
        card=models.Card(brand=models.CardBrand(top_up.card.brand), last_four=top_up.card.last_four),
        failure=top_up.failure,
        transfer_id=top_up.transfer_id,
        created_at=top_up.created_at,
        updated_at=top_up.updated_at,
    )
