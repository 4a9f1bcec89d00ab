"""State machine of payments and records of idempotency keys: pure functions of frozen values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from openapi.acquirer import Code, DeclineCode, PaymentStatus
from sandbox.behaviours import Behaviour, Step

_NEXT: Final[Mapping[tuple[PaymentStatus, Step], PaymentStatus]] = {
    (PaymentStatus.authorized, Step.CAPTURE): PaymentStatus.captured,
    (PaymentStatus.authorized, Step.VOID): PaymentStatus.voided,
    (PaymentStatus.captured, Step.REFUND): PaymentStatus.refunded,
}

_ZERO: Final = "0"


@dataclass(frozen=True, slots=True)
class AuthorizationOrder:
    """Request for an authorization. The amount is the decimal string of the request."""

    token: str
    amount: str
    currency: str
    reference: str

    @property
    def request(self) -> str:
        """Fingerprint of the request: equal for two requests with the same meaning."""
        amount = f"{Decimal(self.amount).normalize():f}"
        return json.dumps([Step.AUTHORIZE, self.token, amount, self.currency, self.reference])


@dataclass(frozen=True, slots=True)
class Payment:
    """State of a payment.

    Captures and refunds have the full amount, so the amounts `captured` and `refunded` follow from the status.
    """

    id: str
    idempotency_key: str
    behaviour: Behaviour
    status: PaymentStatus
    decline_code: DeclineCode | None
    amount: str
    currency: str
    reference: str
    created_at: datetime

    @property
    def captured(self) -> str:
        """Captured amount, refunded or not."""
        return self.amount if self.status in {PaymentStatus.captured, PaymentStatus.refunded} else _ZERO

    @property
    def refunded(self) -> str:
        """Refunded amount."""
        return self.amount if self.status is PaymentStatus.refunded else _ZERO


class Refusal(Exception):
    """Refused request: an error code of the contract, with its message.

    Attributes:
        code: error code.
        detail: message for people, without card data.
        payment: current state of the payment, if the refusal concerns one.
    """

    def __init__(self, code: Code, detail: str = "", payment: Payment | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.payment = payment


def authorize_payment(id_: str, order: AuthorizationOrder, key: str, behaviour: Behaviour, at: datetime) -> Payment:
    """Return a new payment, AUTHORIZED or DECLINED by the card's behaviour."""
    return Payment(
        id=id_,
        idempotency_key=key,
        behaviour=behaviour,
        status=PaymentStatus.declined if behaviour.decline else PaymentStatus.authorized,
        decline_code=behaviour.decline,
        amount=order.amount,
        currency=order.currency,
        reference=order.reference,
        created_at=at,
    )


def apply_step(payment: Payment, step: Step) -> Payment:
    """Return the payment after the step.

    Raises:
        Refusal: the step is not possible in this status (WRONG_STATUS), or the card refuses the step (REFUSED).
    """
    status = _NEXT.get((payment.status, step))
    if status is None:
        raise Refusal(Code.wrong_status, payment=payment)
    if step in payment.behaviour.refuses:
        raise Refusal(Code.refused, payment=payment)
    return replace(payment, status=status)


def cancel_payment(payment: Payment) -> Payment:
    """Return the payment after its key was cancelled: VOIDED if it was AUTHORIZED, else unchanged.

    Raises:
        Refusal: the amount is captured (WRONG_STATUS).
    """
    if payment.status is PaymentStatus.authorized:
        return replace(payment, status=PaymentStatus.voided)
    if payment.captured != _ZERO:
        raise Refusal(Code.wrong_status, payment=payment)
    return payment


def request_fingerprint(step: Step, payment_id: str) -> str:
    """Return the fingerprint of a step on a payment."""
    return json.dumps([step, payment_id])


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Record of an idempotency key.

    Attributes:
        request: fingerprint of the key's request; None if the key was cancelled before any request.
        refusal: code with which the request was refused; None if it was executed.
        is_cancelled: the key was cancelled; requests with it are refused.
    """

    request: str | None
    refusal: Code | None = None
    is_cancelled: bool = False

    def replay(self, request: str, payment: Payment | None) -> Payment:
        """Repeat the first outcome with the payment's current state.

        Raises:
            Refusal: the key was cancelled (KEY_CANCELLED), it belongs to another request (KEY_REUSED), or the first
                request was refused (with the same code as then).
        """
        if self.request not in {None, request}:
            raise Refusal(Code.key_reused)
        if self.is_cancelled or payment is None:
            raise Refusal(Code.key_cancelled)
        if self.refusal:
            raise Refusal(self.refusal, payment=payment)
        return payment
