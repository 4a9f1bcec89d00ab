"""Rules of top-up requests: validation, limits and fingerprints. Pure functions."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from subgraphs.card.service.domain.cards import CardDetails, card_brand
from subgraphs.card.service.domain.declines import card_digest
from subgraphs.card.service.domain.top_up import TopUp
from wallet.errors import FieldViolation, InvalidInput, TopUpLimitExceeded
from wallet.inputs import idempotency_key_violations
from wallet.money import Money


@dataclass(frozen=True, slots=True)
class Limit:
    """Maximum amounts of one currency.

    Attributes:
        per_top_up: maximum of one top-up.
        per_day: maximum of one caller's top-ups within 24 hours.
    """

    per_top_up: Decimal
    per_day: Decimal


Limits = Mapping[str, Limit]
"""Limits by currency. Top-ups in other currencies are refused."""


def check_limits(limits: Limits, amount: Money, used: Money) -> None:
    """Check a top-up against the limits.

    Args:
        limits: limits by currency.
        amount: amount of the top-up.
        used: sum of the caller's top-ups of the last 24 hours in the same currency, except for failed ones.

    Raises:
        InvalidInput: the currency has no limits.
        TopUpLimitExceeded: the amount exceeds the remaining quota.
    """
    limit = limits.get(amount.currency)
    if limit is None:
        raise InvalidInput.for_field("currency", f"has no card top-ups; supported: {', '.join(sorted(limits))}")
    available = max(min(limit.per_top_up, limit.per_day - used.amount), Decimal(0))
    if amount.amount <= available:
        return
    is_above_top_up = amount.amount > limit.per_top_up
    period, maximum = ("TOP_UP", limit.per_top_up) if is_above_top_up else ("DAY", limit.per_day)
    raise TopUpLimitExceeded(
        period,
        str(Money(maximum, amount.currency)),
        str(Money(available, amount.currency)),
        amount.currency,
    )


def max_used(limits: Limits, amount: Money) -> Decimal | None:
    """Return the largest sum of a caller's other top-ups with which `check_limits` allows an amount; None if none does.

    Args:
        limits: limits by currency.
        amount: amount of the top-up.
    """
    limit = limits.get(amount.currency)
    if limit is None or amount.amount > limit.per_top_up:
        return None
    return limit.per_day - amount.amount


def check_request(amount: Money, key: str, raw_key: str | None) -> list[FieldViolation]:
    """Return the violations of a request's fields, except for those of the card."""
    violations = idempotency_key_violations(key, raw_key)
    if not amount.is_positive:
        violations.append(FieldViolation("amount", "must be positive"))
    return violations


def is_replay(top_up: TopUp, fingerprint_secret: bytes, card: CardDetails, account_id: UUID, amount: Money) -> bool:
    """Return whether a request with the key of a top-up repeats the request that created the top-up.

    The comparison does not call the acquirer. If it did, a caller could repeat one key with many cards, and the
    acquirer would validate each card without a limit. The code of the card is not compared. The card of a top-up
    without a digest is compared by brand and last four digits.
    """
    fingerprint = request_fingerprint(fingerprint_secret, top_up.card.token, account_id, amount)
    if top_up.card_digest is None:
        is_same_card = (card_brand(card.number), card.number[-4:]) == (top_up.card.brand, top_up.card.last_four)
    else:
        is_same_card = card_digest(fingerprint_secret, card) == top_up.card_digest
    return is_same_card and fingerprint == top_up.fingerprint


def request_fingerprint(secret: bytes, token: str, account_id: UUID, amount: Money) -> bytes:
    """Return the fingerprint of a request: requests with one key and one fingerprint are the same request.

    The fingerprint contains the card only as the acquirer's token.
    """
    text = "\0".join((token, account_id.hex, str(amount), amount.currency))
    return hmac.digest(secret, text.encode(), "sha256")
