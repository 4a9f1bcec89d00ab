"""Webhooks of the acquirer. Their content is never trusted: a webhook only makes the service call the acquirer."""

from typing import Final

import structlog
from pydantic import SecretStr, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.http.routing import new_app
from openapi import acquirer as messages
from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.application.saga import Saga
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.top_up import top_up_id_from_key
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_PATH: Final = "/webhooks/acquirer"
_MAX_BYTES: Final = 64 * 1024


class WebhookInbox:
    """Stores each webhook once, and makes its top-up due if the acquirer must be called."""

    def __init__(self, repository: Repository, saga: Saga) -> None:
        self._repository = repository
        self._saga = saga

    async def receive(self, webhook_id: str, event: messages.Event) -> bool:
        """Store a webhook and return whether its top-up became due.

        Raises:
            Unavailable: it is unknown whether the webhook was stored; the acquirer must send it again.
        """
        reported = PaymentStatus(event.type.removeprefix("payment.").upper())
        top_up_id = top_up_id_from_key(event.payment.idempotency_key)
        is_due = await self._repository.record_webhook(webhook_id, event.type, top_up_id, reported)
        if is_due is None:
            log.error("webhook for an unknown payment", webhook_id=webhook_id)
        if is_due:
            self._saga.wake_completer()
        return bool(is_due)


def webhook_app(inbox: WebhookInbox, secret: SecretStr) -> ASGIApp:
    """Create the app with `POST /webhooks/acquirer`.

    Statuses: 204: stored; 400: unreadable body; 401: invalid or old signature (Standard Webhooks); 413: body too long;
    503: send the webhook again. A sender that disconnects before the end of the body gets no response.

    FastAPI, whose layers take longer than the rest of a webhook, only responds to requests for other paths and methods.
    """
    app, signature = new_app(), Webhook(secret.get_secret_value())

    @app.post(_PATH)
    async def receive(request: Request) -> Response:
        status, outcome = await _receive(request, inbox, signature)
        metrics.WEBHOOKS.labels(outcome).inc()
        return Response(status_code=status)

    async def dispatch(scope: Scope, receive_message: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", _PATH):
            response = await receive(Request(scope, receive_message))
            await response(scope, receive_message, send)
        else:
            await app(scope, receive_message, send)

    return dispatch


async def _receive(request: Request, inbox: WebhookInbox, signature: Webhook) -> tuple[int, str]:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BYTES:
                return 413, "too_long"
    except ClientDisconnect:
        return 499, "incomplete"
    try:
        signature.verify(bytes(body), dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: the library decodes headers before it verifies them
        log.warning("webhook signature invalid")
        return 401, "forged"
    try:
        event = messages.Event.model_validate_json(bytes(body))
    except ValidationError as error:
        log.error("webhook unreadable", problems=error.errors(include_input=False, include_url=False))
        return 400, "unreadable"
    try:
        is_due = await inbox.receive(request.headers["webhook-id"], event)
    except Unavailable:
        return 503, "unavailable"
    return 204, "woke" if is_due else "no_news"
