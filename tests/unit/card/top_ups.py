"""Top-ups and payments for unit tests."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from subgraphs.card.service.domain.cards import Brand, CardToken
from subgraphs.card.service.domain.payment import Payment, PaymentStatus
from subgraphs.card.service.domain.top_up import IdempotencyKey, Status, Step, TopUp
from wallet.money import Money

AMOUNT = Money.parse("10.00", "RUB")
ZERO = Money.parse("0", "RUB")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def top_up(**overrides: Any) -> TopUp:
    """Return a newly created top-up with some attributes overridden."""
    attributes: dict[str, Any] = {
        "id": UUID(int=(int(NOW.timestamp() * 1_000) << 80) + 0x74C3_A6D6_42556A5C7775),  # UUIDv7
        "key": IdempotencyKey("issuer|alice", "k"),
        "fingerprint": b"f",
        "owner_id": "alice",
        "account_id": UUID(int=1),
        "amount": AMOUNT,
        "card": CardToken("tok_1", Brand.VISA, "4242"),
        "card_digest": b"d",
        "status": Status.CREATED,
        "step": Step.AUTHORIZE,
        "attempts": 0,
        "retries": 0,
        "failure": None,
        "payment_id": None,
        "transfer_id": None,
        "review": None,
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
    }
    return TopUp(**(attributes | overrides))


def payment(status: PaymentStatus, amount: Money = AMOUNT) -> Payment:
    """Return a payment with the amounts that its status requires."""
    return Payment(
        "pay_1",
        top_up().authorization_key,
        status,
        amount,
        amount if status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED} else amount - amount,
        amount if status is PaymentStatus.REFUNDED else amount - amount,
        "DO_NOT_HONOR" if status is PaymentStatus.DECLINED else None,
    )
