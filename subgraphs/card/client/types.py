"""Values that the card service's client takes and returns."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from wallet.money import Money

Status = Literal[
    "CREATED",
    "AUTHORIZED",
    "CAPTURED",
    "COMPLETED",
    "DECLINED",
    "VOIDED",
    "REFUNDED",
    "NEEDS_REVIEW",
]
Brand = Literal["VISA", "MASTERCARD", "MIR", "AMEX", "UNIONPAY", "OTHER"]


@dataclass(frozen=True, slots=True)
class CardDetails:
    """Card data on the way to the acquirer. Its `repr` shows neither the card number nor the security code."""

    number: str = field(repr=False)
    expiry_month: int
    expiry_year: int
    cvv: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Card:
    """Card data that may be shown."""

    brand: Brand
    last_four: str


@dataclass(frozen=True, slots=True)
class TopUp:
    """Current state of a top-up.

    Attributes:
        failure: reason of the failure as a machine name; None without a failure.
        transfer_id: id of the deposit in the ledger; None unless the top-up is COMPLETED.
        version: counter that grows with every change of the top-up.
    """

    id: UUID
    account_id: UUID
    amount: Money
    status: Status
    card: Card
    failure: str | None
    transfer_id: UUID | None
    created_at: datetime
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class CreatedTopUp:
    """Top-up in its current state.

    `is_replay` is true if an earlier request with the same idempotency key started the top-up.
    """

    top_up: TopUp
    is_replay: bool


@dataclass(frozen=True, slots=True)
class TopUpPageRequest:
    """Requested page of an account's top-ups, newest first. Without a bound, the page has the newest top-ups.

    Attributes:
        account_id: id of the account.
        limit: maximum size of the page; 0 for the server's default.
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
