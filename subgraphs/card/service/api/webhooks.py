"""What the acquirer tells by itself. It is never believed: it only says when to ask."""

from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from pydantic import SecretStr, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from openapi import acquirer as messages
from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.application.saga import Saga
from subgraphs.card.service.domain.top_up import PaymentStatus, top_up_of
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_MAX_BYTES: Final = 64 * 1024


class Inbox:
    """Takes each webhook once, and wakes the top-up that it is about, if it may tell something new of it."""

    def __init__(self, repository: Repository, saga: Saga) -> None:
        self._repository = repository
        self._saga = saga

    async def receive(self, webhook_id: str, event: messages.Event) -> bool:
        """Whether it woke its top-up.

        Raises:
            Unavailable: it was not taken in, and is to be sent again.
        """
        told = PaymentStatus(event.type.removeprefix("payment.").upper())
        top_up_id = top_up_of(event.payment.idempotency_key)
        if top_up_id is None:
            log.error("a webhook of no payment of ours", webhook_id=webhook_id)
        wakes = await self._repository.receive(webhook_id, event.type, top_up_id, told)
        if wakes:
            self._saga.wake()
        return wakes


def webhook_app(inbox: Inbox, secret: SecretStr) -> FastAPI:
    """`POST /webhooks/acquirer`: 204 taken, 400 unreadable, 401 not signed with the secret (Standard Webhooks), or not
    lately, 413 too long, 503 to be sent again.
    """
    app, signature = FastAPI(openapi_url=None), Webhook(secret.get_secret_value())

    @app.post("/webhooks/acquirer")
    async def receive(request: Request) -> Response:
        status, outcome = await _receive(request, inbox, signature)
        metrics.WEBHOOKS.labels(outcome).inc()
        return Response(status_code=status)

    return app


async def _receive(request: Request, inbox: Inbox, signature: Webhook) -> tuple[int, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BYTES:
            return 413, "too_long"
    try:
        signature.verify(bytes(body), dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # the library splits and decodes what anybody may send
        log.warning("a webhook was not signed by the acquirer")
        return 401, "forged"
    try:
        event = messages.Event.model_validate_json(bytes(body))
    except ValidationError as error:
        log.error("a webhook cannot be read", problems=error.errors(include_input=False, include_url=False))
        return 400, "unreadable"
    try:
        wakes = await inbox.receive(request.headers["webhook-id"], event)
    except Unavailable:
        return 503, "unavailable"
    return 204, "woke" if wakes else "no_news"
