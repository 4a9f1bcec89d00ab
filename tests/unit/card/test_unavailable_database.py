"""Responses of the webhook listener and of the admin routes if the database or the bank is unavailable, or a lease is
lost.
"""

import json
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import SecretStr
from standardwebhooks import Webhook
from starlette.types import ASGIApp

from kit.auth.principal import Principal
from subgraphs.card.service.adapters.repository import LeaseLostError
from subgraphs.card.service.api.admin import decline_router, review_router
from subgraphs.card.service.api.webhooks import WebhookInbox, webhook_app
from subgraphs.card.service.domain.declines import Block, DeclineLimits
from subgraphs.card.service.domain.top_up import TopUp
from tests.unit.card.top_ups import NOW
from wallet.errors import DeadlineExceeded, ResourceExhausted, Unavailable

SECRET = "whsec_c2VjcmV0"
EVENT = {
    "id": "evt_1",
    "type": "payment.captured",
    "createdAt": NOW.isoformat(),
    "payment": {
        "id": "pay_1",
        "idempotencyKey": "k",
        "status": "CAPTURED",
        "amount": "10.00",
        "currency": "RUB",
        "captured": "10.00",
        "refunded": "0.00",
        "reference": "",
        "createdAt": NOW.isoformat(),
    },
}


class Failing:
    """Component whose methods all raise the same error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def receive(self, *_: object) -> bool:
        raise self._error

    async def list_for_review(self) -> list[TopUp]:
        raise self._error

    async def review_missing_deposits(self) -> int:
        raise self._error

    async def retry(self, _: UUID) -> TopUp:
        raise self._error

    async def list_blocks(self, _: object) -> list[Block]:
        raise self._error

    async def lift_block(self, *_: object) -> int:
        raise self._error


async def set_caller(request: Request) -> None:
    request.state.principal = Principal("issuer", "operator", is_service=False, expires_at=0)


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://card")


async def test_webhook_that_could_not_be_stored_gets_503() -> None:
    app = webhook_app(cast("WebhookInbox", Failing(Unavailable())), SecretStr(SECRET))
    body, now = json.dumps(EVENT), datetime.now(UTC)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("evt_1", now, body),
    }
    async with client(app) as http:
        assert (await http.post("/webhooks/acquirer", content=body, headers=headers)).status_code == 503


@pytest.mark.parametrize(
    ("error", "method", "path", "status"),
    [
        (Unavailable(), "GET", "/review", 503),
        (Unavailable(), "POST", "/review/deposits", 503),
        (DeadlineExceeded("the bank"), "POST", "/review/deposits", 503),
        (ResourceExhausted(), "POST", "/review/deposits", 503),
        (LeaseLostError(), "POST", "/review/deposits", 409),
        (Unavailable(), "POST", f"/review/{UUID(int=1)}/retry", 503),
        (LeaseLostError(), "POST", f"/review/{UUID(int=1)}/retry", 409),
        (Unavailable(), "GET", "/declines", 503),
        (Unavailable(), "POST", f"/declines/card/{UUID(int=1)}/lift", 503),
    ],
)
async def test_failed_admin_request_gets_its_status_and_a_detail(
    error: Exception, method: str, path: str, status: int
) -> None:
    app, failing = FastAPI(), cast("Any", Failing(error))
    app.include_router(review_router(failing, failing))
    app.include_router(decline_router(failing, DeclineLimits()), dependencies=[Depends(set_caller)])
    async with client(app) as http:
        response = await http.request(method, path)
    assert response.status_code == status
    assert response.json()["detail"]
