"""On what terms a top-up is begun: limits, and what makes two requests the same. Pure functions of values."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from wallet.errors import FieldViolation, InvalidInput, TopUpLimitExceeded
from wallet.inputs import idempotency_key_violations
from wallet.money import Money


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be paid in by card in one currency: in one top-up, and by one caller in 24 hours."""

    top_up: Decimal
    day: Decimal


Limits = Mapping[str, Limit]
"""By currency. What is not in it is not paid in by card."""


def check_limits(limits: Limits, amount: Money, used: Money) -> None:
    """Returns when so much more may be paid in by a caller who has paid in `used` in the last 24 hours.

    Raises:
        InvalidInput: the currency is not paid in by card.
        TopUpLimitExceeded: it is too much.
    """
    limit = limits.get(amount.currency)
    if limit is None:
        raise InvalidInput.for_field("currency", f"cannot be paid in by card; {', '.join(sorted(limits))} can")
    left = max(min(limit.top_up, limit.day - used.amount), Decimal(0))
    if amount.amount <= left:
        return
    period, most = ("TOP_UP", limit.top_up) if amount.amount > limit.top_up else ("DAY", limit.day)
    raise TopUpLimitExceeded(
        period,
        str(Money(most, amount.currency)),
        str(Money(left, amount.currency)),
        amount.currency,
    )


def check(amount: Money, idempotency_key: str) -> list[FieldViolation]:
    """What is wrong with a request, its card apart."""
    violations = idempotency_key_violations(idempotency_key)
    if not amount.is_positive:
        violations.append(FieldViolation("amount", "must be positive"))
    return violations


def fingerprint(secret: bytes, token: str, account_id: UUID, amount: Money) -> bytes:
    """What makes two requests with one key the same request. The card is in it as the acquirer's token alone."""
    said = "\0".join((token, account_id.hex, str(amount), amount.currency))
    return hmac.digest(secret, said.encode(), "sha256")
