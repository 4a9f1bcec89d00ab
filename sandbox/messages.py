"""Converters from payments and refusals to the contract's messages."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from openapi.acquirer import Code, Error, Event, Type
from openapi.acquirer import Payment as Message
from sandbox.payments import Payment, Refusal

_MESSAGES: Final[Mapping[Code, str]] = {
    Code.unauthorized: "the API key is missing or wrong: send it as Authorization: Bearer …",
    Code.invalid_request: "the request does not match the contract: correct it",
    Code.invalid_card: "the card is not valid: correct its data",
    Code.unknown_token: "no card has this token: create one with POST /v1/tokens",
    Code.not_found: "there is no such payment or path: check the id and the path",
    Code.key_reused: "the key was used with another request: use a new key",
    Code.key_in_use: "a request with this key is in progress: wait for it, then try again",
    Code.key_cancelled: "the key is cancelled: use a new key",
    Code.wrong_status: "the payment's status does not allow it: read the payment",
    Code.refused: "the acquirer refuses this operation permanently",
    Code.unavailable: "temporarily unavailable; the outcome is unknown: try again with the same key",
}


def payment_to_message(payment: Payment) -> Message:
    """Return the payment as in responses and webhooks."""
    return Message(
        id=payment.id,
        idempotency_key=payment.idempotency_key,
        status=payment.status,
        decline_code=payment.decline_code,
        amount=payment.amount,
        currency=payment.currency,
        captured=payment.captured,
        refunded=payment.refunded,
        reference=payment.reference,
        created_at=payment.created_at,
    )


def refusal_to_body(refusal: Refusal) -> dict[str, Any]:
    """Return the response body of a refusal."""
    message = "; ".join(filter(None, (_MESSAGES[refusal.code], refusal.detail)))
    payment = payment_to_message(refusal.payment) if refusal.payment else None
    error = Error(code=refusal.code, message=message, payment=payment)
    return error.model_dump(mode="json", by_alias=True, exclude_none=True)


def webhook_event_id(payment: Payment) -> str:
    """Return the id of the event for the payment's current status; a payment has each status at most once."""
    return f"evt_{payment.id.removeprefix('pay_')}_{payment.status.lower()}"


def webhook_event_body(payment: Payment, at: datetime) -> str:
    """Return the webhook body for the payment's new status."""
    event = Event(
        id=webhook_event_id(payment),
        type=Type(f"payment.{payment.status.lower()}"),
        created_at=at,
        payment=payment_to_message(payment),
    )
    return event.model_dump_json(by_alias=True, exclude_none=True)
