"""Payments at the acquirer, and the acquirer's responses about payments."""

from dataclasses import dataclass
from enum import StrEnum

from wallet.money import Money


class PaymentStatus(StrEnum):
    """Status of a payment at the acquirer."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"


@dataclass(frozen=True, slots=True)
class Payment:
    """Current state of a payment at the acquirer. `captured` includes amounts that were refunded later."""

    id: str
    key: str
    status: PaymentStatus
    amount: Money
    captured: Money
    refunded: Money
    decline_code: str | None = None

    @property
    def holds_nothing(self) -> bool:
        """Whether the payment is declined, voided, or refunded in full, so that it took no money from the customer."""
        return self.status is not PaymentStatus.AUTHORIZED and self.captured == self.refunded


@dataclass(frozen=True, slots=True)
class NoPayment:
    """The acquirer has no payment with the key. Until the key is cancelled, a late authorization may create one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Permanent refusal of a request by the acquirer. `payment` is the current payment, if the response contains it."""

    code: str
    payment: Payment | None = None
