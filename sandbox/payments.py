"""The life of a payment, and what an idempotency key stands for: pure functions of frozen values."""

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

_NOTHING: Final = "0"


@dataclass(frozen=True, slots=True)
class Order:
    """What a merchant wants authorized. The amount is a decimal string, as it came."""

    token: str
    amount: str
    currency: str
    reference: str

    @property
    def request(self) -> str:
        """What makes two requests with one key the same request."""
        amount = f"{Decimal(self.amount).normalize():f}"
        return json.dumps([Step.AUTHORIZE, self.token, amount, self.currency, self.reference])


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment at one moment. Only the whole sum is ever taken or given back, so the status says how much was."""

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
        """The sum that was taken, refunded or not."""
        return self.amount if self.status in {PaymentStatus.captured, PaymentStatus.refunded} else _NOTHING

    @property
    def refunded(self) -> str:
        """The sum that was given back."""
        return self.amount if self.status is PaymentStatus.refunded else _NOTHING


class Refusal(Exception):
    """The answer is an error of the contract.

    Attributes:
        code: its machine name.
        detail: more, for people; never anything of a card.
        payment: as it is, where the refusal is about one.
    """

    def __init__(self, code: Code, detail: str = "", payment: Payment | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.payment = payment


def authorized(id_: str, order: Order, key: str, behaviour: Behaviour, at: datetime) -> Payment:
    """The new payment, AUTHORIZED or DECLINED as the card will have it."""
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


def changed(payment: Payment, step: Step) -> Payment:
    """The payment after the step.

    Raises:
        Refusal: WRONG_STATUS, the payment is past this step or not there yet; REFUSED, the card will not have it.
    """
    status = _NEXT.get((payment.status, step))
    if status is None:
        raise Refusal(Code.wrong_status, payment=payment)
    if step in payment.behaviour.refuses:
        raise Refusal(Code.refused, payment=payment)
    return replace(payment, status=status)


def cancelled(payment: Payment) -> Payment:
    """The payment after its key was cancelled: nothing is held any more.

    Raises:
        Refusal: WRONG_STATUS, the sum was taken.
    """
    if payment.status is PaymentStatus.authorized:
        return replace(payment, status=PaymentStatus.voided)
    if payment.captured != _NOTHING:
        raise Refusal(Code.wrong_status, payment=payment)
    return payment


def change_request(step: Step, payment_id: str) -> str:
    """What makes two changes with one key the same request."""
    return json.dumps([step, payment_id])


@dataclass(frozen=True, slots=True)
class Use:
    """What a key stands for since it was first seen.

    Attributes:
        request: what came with it; None if it was cancelled before anything did.
        refusal: what the request was refused with, for ever; None if it was done.
        is_cancelled: it authorizes nothing any more.
    """

    request: str | None
    refusal: Code | None = None
    is_cancelled: bool = False

    def replay(self, request: str, payment: Payment | None) -> Payment:
        """The first outcome again, the payment being as it is now.

        Raises:
            Refusal: KEY_CANCELLED; KEY_REUSED, the key stands for another request; or the first refusal.
        """
        if self.request not in {None, request}:
            raise Refusal(Code.key_reused)
        if self.is_cancelled or payment is None:
            raise Refusal(Code.key_cancelled)
        if self.refusal:
            raise Refusal(self.refusal, payment=payment)
        return payment
