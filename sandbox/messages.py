"""Payments as the contract tells them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from openapi.acquirer import Code, Error, Event, Type
from openapi.acquirer import Payment as Message
from sandbox.payments import Payment, Refusal

_MEANINGS: Final[Mapping[Code, str]] = {
    Code.unauthorized: "the API key is missing or wrong",
    Code.invalid_request: "the request is not of the contract's form",
    Code.invalid_card: "this is no card",
    Code.unknown_token: "there is no card of this token",
    Code.not_found: "there is no such thing",
    Code.key_reused: "the key came with another request",
    Code.key_in_use: "a request with this key is still at work",
    Code.key_cancelled: "the key is cancelled",
    Code.wrong_status: "the payment's status does not allow it",
    Code.refused: "the acquirer will not do it, now or later",
    Code.unavailable: "not now; the outcome is not known",
}


def payment_message(payment: Payment) -> Message:
    """The payment as it is answered and told."""
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


def error_body(refusal: Refusal) -> dict[str, Any]:
    """The refusal as it is answered."""
    message = "; ".join(filter(None, (_MEANINGS[refusal.code], refusal.detail)))
    payment = payment_message(refusal.payment) if refusal.payment else None
    error = Error(code=refusal.code, message=message, payment=payment)
    return error.model_dump(mode="json", by_alias=True, exclude_none=True)


def event_id(payment: Payment) -> str:
    """Names the change to the payment's status; a payment has each status once at most."""
    return f"evt_{payment.id.removeprefix('pay_')}_{payment.status.lower()}"


def event_body(payment: Payment, at: datetime) -> str:
    """The webhook about what the payment has just become."""
    event = Event(
        id=event_id(payment),
        type=Type(f"payment.{payment.status.lower()}"),
        created_at=at,
        payment=payment_message(payment),
    )
    return event.model_dump_json(by_alias=True, exclude_none=True)
