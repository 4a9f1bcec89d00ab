"""Top-ups: immutable values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from subgraphs.card.service.domain.cards import CardToken
from wallet.money import Money


class Status(StrEnum):
    """Public status of a top-up."""

    CREATED = "CREATED"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    COMPLETED = "COMPLETED"
    DECLINED = "DECLINED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"
    NEEDS_REVIEW = "NEEDS_REVIEW"


FINAL_STATUSES: Final = frozenset({Status.COMPLETED, Status.DECLINED, Status.VOIDED, Status.REFUNDED})
"""A top-up with one of these statuses keeps the status. The exception is a COMPLETED top-up whose deposit was lost in a
restore of the ledger: it may become REFUNDED."""


class Step(StrEnum):
    """Next call of a top-up. It is stored before the call is made."""

    AUTHORIZE = "AUTHORIZE"
    """The acquirer holds the amount on the card, or declines."""
    RESOLVE = "RESOLVE"
    """The outcome of the authorization is unknown: look up the payment."""
    CANCEL = "CANCEL"
    """The look-up found no payment. Cancel the authorization's key, so that a late authorization creates no payment."""
    CAPTURE = "CAPTURE"
    """The acquirer takes the amount from the card."""
    DEPOSIT = "DEPOSIT"
    """The bank credits the account."""
    VOID = "VOID"
    """The acquirer releases the amount that it holds."""
    REFUND = "REFUND"
    """The acquirer pays the captured amount back to the card."""


STATUS_BY_STEP: Final[Mapping[Step, Status]] = {
    Step.AUTHORIZE: Status.CREATED,
    Step.RESOLVE: Status.CREATED,
    Step.CANCEL: Status.CREATED,
    Step.CAPTURE: Status.AUTHORIZED,
    Step.VOID: Status.AUTHORIZED,
    Step.DEPOSIT: Status.CAPTURED,
    Step.REFUND: Status.CAPTURED,
}
"""Status of a top-up in progress, by its step."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Idempotency key of a request, unique for each principal.

    Attributes:
        principal: caller.
        key: the key in the form in which new top-ups are stored (see `wallet.idempotency_key.stored_forms`).
        earlier: the form in which an earlier release stored this key; None if it is `key`. If one top-up has this form
            and another has `key`, a search returns the one with this form.
    """

    principal: str
    key: str
    earlier: str | None = None

    @property
    def forms(self) -> list[str]:
        """Forms in which a top-up of this key may be stored. Each of them has at most one top-up."""
        return [self.key] if self.earlier is None else [self.key, self.earlier]


@dataclass(frozen=True, slots=True)
class NewTopUp:
    """Request for a top-up. `id` becomes the top-up's id if the idempotency key is new."""

    id: UUID
    key: IdempotencyKey
    fingerprint: bytes
    owner_id: str
    account_id: UUID
    amount: Money
    card: CardToken
    card_digest: bytes


@dataclass(frozen=True, slots=True)
class TopUp:
    """Stored state of a top-up.

    Attributes:
        key: idempotency key of the request.
        fingerprint: digest of the request.
        owner_id: user who owns the account; empty if the account has no owner.
        card_digest: digest of the card's number and expiry; None in top-ups of earlier releases.
        step: next call; None if the top-up is final. With NEEDS_REVIEW, the step at which the top-up stopped.
        attempts: number of attempts at this step whose outcome is unknown.
        retries: how often an operator has retried the top-up after a review.
        failure: reason of the failure as a machine name.
        payment_id: id of the payment at the acquirer, once the outcome of the authorization is known.
        transfer_id: id of the deposit in the ledger, once the top-up is COMPLETED.
        review: reason for a manual review: always set with NEEDS_REVIEW, and with a final status that the acquirer or
            the ledger contradicts.
        version: grows with every change.
    """

    id: UUID
    key: IdempotencyKey
    fingerprint: bytes
    owner_id: str
    account_id: UUID
    amount: Money
    card: CardToken
    card_digest: bytes | None
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
        """Whether the status is final."""
        return self.status in FINAL_STATUSES

    @property
    def is_in_progress(self) -> bool:
        """Whether the next step can be called without a manual review."""
        return self.step is not None and self.status is not Status.NEEDS_REVIEW

    @property
    def requested_at(self) -> datetime:
        """Time in the id (UUIDv7), by the clock of the process that received the request."""
        return datetime.fromtimestamp((self.id.int >> 80) / 1_000, UTC)

    def acquirer_key(self, step: Step) -> str:
        """Return the acquirer's idempotency key of a step.

        All attempts at a step have the same key. A retry after a review has a new key, because the acquirer repeats its
        refusal for the old key. The key of the authorization never changes, because it identifies the payment.
        """
        key = f"{self.id}:{step.lower()}"
        return key if not self.retries or step is Step.AUTHORIZE else f"{key}:{self.retries}"

    @property
    def authorization_key(self) -> str:
        """Key that identifies the payment at the acquirer."""
        return self.acquirer_key(Step.AUTHORIZE)

    @property
    def descriptor(self) -> Mapping[str, str]:
        """Descriptor of the deposit, which the bank stores and publishes in the deposit's event."""
        return {
            "topUpId": str(self.id),
            "cardBrand": self.card.brand,
            "cardLastFour": self.card.last_four,
        }


@dataclass(frozen=True, slots=True)
class TopUpPageRequest:
    """Requested page of an account's top-ups, newest first. Without a bound, the page has the newest top-ups.

    Attributes:
        account_id: id of the account.
        limit: maximum size of the page; 0 for the default.
        older_than: id of a top-up; the page begins with the next older one.
        newer_than: id of a top-up; the page ends with the next newer one. Not together with `older_than`.
    """

    account_id: UUID
    limit: int
    older_than: UUID | None = None
    newer_than: UUID | None = None


@dataclass(frozen=True, slots=True)
class TopUpPage:
    """Top-ups, newest first, and whether there are older or newer ones."""

    top_ups: tuple[TopUp, ...]
    has_older: bool
    has_newer: bool


@dataclass(frozen=True, slots=True)
class OpenTopUps:
    """Counts of the top-ups with one status that are in progress or need a review.

    Attributes:
        count: number of these top-ups.
        to_review: number of those that need a review.
        oldest_seconds: age of the oldest top-up.
    """

    status: Status
    count: int
    to_review: int
    oldest_seconds: float


def top_up_id_from_key(authorization_key: str) -> UUID | None:
    """Return the id of the top-up of a payment; None if the text is not an authorization key of this service."""
    text, _, step = authorization_key.partition(":")
    try:
        id_ = UUID(text)
    except ValueError:
        return None
    return id_ if str(id_) == text and step == Step.AUTHORIZE.lower() else None
