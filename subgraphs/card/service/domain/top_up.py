"""What a top-up is, and what the acquirer and the bank can say of it: frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from wallet.money import Money


class Status(StrEnum):
    """What the world sees of a top-up."""

    CREATED = "CREATED"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    COMPLETED = "COMPLETED"
    DECLINED = "DECLINED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"
    NEEDS_REVIEW = "NEEDS_REVIEW"


FINAL: Final = frozenset({Status.COMPLETED, Status.DECLINED, Status.VOIDED, Status.REFUNDED})
"""What never changes any more."""


class Step(StrEnum):
    """The call that is to be made next, or is being made."""

    AUTHORIZE = "AUTHORIZE"
    """The acquirer holds the sum, or declines."""
    RESOLVE = "RESOLVE"
    """What came of the authorization is not known: ask the acquirer."""
    CANCEL = "CANCEL"
    """The acquirer knows of no authorization, which is not final: bar its key."""
    CAPTURE = "CAPTURE"
    """The acquirer takes the sum from the card."""
    DEPOSIT = "DEPOSIT"
    """The bank credits the account."""
    VOID = "VOID"
    """The acquirer lets go of the sum that it holds."""
    REFUND = "REFUND"
    """The acquirer gives the sum back."""


STATUS_AT: Final[Mapping[Step, Status]] = {
    Step.AUTHORIZE: Status.CREATED,
    Step.RESOLVE: Status.CREATED,
    Step.CANCEL: Status.CREATED,
    Step.CAPTURE: Status.AUTHORIZED,
    Step.VOID: Status.AUTHORIZED,
    Step.DEPOSIT: Status.CAPTURED,
    Step.REFUND: Status.CAPTURED,
}
"""A top-up that is under way has the status of its step."""


class Brand(StrEnum):
    """Whose network a card is of."""

    VISA = "VISA"
    MASTERCARD = "MASTERCARD"
    MIR = "MIR"
    AMEX = "AMEX"
    UNIONPAY = "UNIONPAY"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Token:
    """A card as the acquirer knows it, and as it may be shown. `token` is the same for the same number and expiry."""

    token: str
    brand: Brand
    last_four: str


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key in its scope: one caller."""

    principal: str
    key: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A top-up that is asked for. `id` is what it will have if it is the first of its key."""

    id: UUID
    key: Key
    fingerprint: bytes
    owner_id: str
    account_id: UUID
    amount: Money
    card: Token


@dataclass(frozen=True, slots=True)
class TopUp:
    """A top-up as it is kept.

    Attributes:
        key: what it was asked for with.
        fingerprint: of the request.
        owner_id: the user whose account it is; empty where nobody owns it.
        step: what is next; None when it is final. With NEEDS_REVIEW, the step that it stopped in.
        attempts: how often the step was tried and its outcome did not become known.
        retries: how often a person has had it go on.
        failure: why it does not come to be, as a machine name.
        payment_id: the acquirer's, once it is authorized.
        transfer_id: the deposit in the ledger, once it is completed.
        review: what a person has to look at: always with NEEDS_REVIEW, and with a final status that the acquirer
            contradicts.
        version: grows with every change.
    """

    id: UUID
    key: Key
    fingerprint: bytes
    owner_id: str
    account_id: UUID
    amount: Money
    card: Token
    status: Status
    step: Step | None
    attempts: int
    retries: int
    failure: str | None
    payment_id: str | None
    transfer_id: UUID | None
    review: str | None
    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def is_final(self) -> bool:
        """Whether its status is its last."""
        return self.status in FINAL

    @property
    def is_under_way(self) -> bool:
        """Whether there is a step to be taken without anybody's help."""
        return self.step is not None and self.status is not Status.NEEDS_REVIEW

    def acquirer_key(self, step: Step) -> str:
        """The acquirer's idempotency key of a step: the same whoever takes it, and however often, until a person has
        looked at why it was refused. The authorization's is for ever, since the payment is known by it.
        """
        key = f"{self.id}:{step.lower()}"
        return key if not self.retries or step is Step.AUTHORIZE else f"{key}:{self.retries}"

    @property
    def authorization_key(self) -> str:
        """The key that the acquirer knows the payment by."""
        return self.acquirer_key(Step.AUTHORIZE)

    @property
    def descriptor(self) -> Mapping[str, str]:
        """What the ledger is told of the deposit, and the world by its event."""
        return {
            "topUpId": str(self.id),
            "cardBrand": self.card.brand,
            "cardLastFour": self.card.last_four,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """Top-ups, newest first, and whether there are more on either side."""

    top_ups: tuple[TopUp, ...]
    has_older: bool
    has_newer: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """How many top-ups of a status are under way or to be looked at by a person.

    Attributes:
        status: that they have.
        count: of all of them.
        to_review: of those to be looked at.
        oldest_seconds: the age of the oldest.
    """

    status: Status
    count: int
    to_review: int
    oldest_seconds: float


def top_up_of(authorization_key: str) -> UUID | None:
    """The top-up that a payment at the acquirer belongs to, or None if the key is none of ours."""
    text, _, step = authorization_key.partition(":")
    try:
        id_ = UUID(text)
    except ValueError:
        return None
    return id_ if str(id_) == text and step == Step.AUTHORIZE.lower() else None


class PaymentStatus(StrEnum):
    """What a payment is at the acquirer."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the acquirer has it now. `captured` is what was taken, given back or not."""

    id: str
    key: str
    status: PaymentStatus
    amount: Money
    captured: Money
    refunded: Money
    decline_code: str | None = None


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit in the ledger that says it is of a top-up."""

    transfer_id: UUID
    top_up_id: str
    account_id: UUID
    amount: Money


@dataclass(frozen=True, slots=True)
class NoPayment:
    """The acquirer has no payment by the key. Final only once the key is cancelled."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The acquirer does not do it as it is asked, now or later. `payment` is the payment as it is, if it was told."""

    code: str
    payment: Payment | None = None


@dataclass(frozen=True, slots=True)
class Deposited:
    """The account is credited."""

    transfer_id: UUID


@dataclass(frozen=True, slots=True)
class AccountRefused:
    """The bank cannot credit the account, now or later. `reason` is the error's machine name."""

    reason: str


@dataclass(frozen=True, slots=True)
class DepositConflict:
    """The bank knows the deposit's key with another request."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Whether it was done is not known. The same call again, with the same key, tells."""


Result = Payment | NoPayment | Refusal | Deposited | AccountRefused | DepositConflict | Unknown
"""What came of a step."""
