"""Top-ups for tests of rules."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from subgraphs.card.service.domain.top_up import Brand, Key, Payment, PaymentStatus, Status, Step, Token, TopUp
from wallet.money import Money

AMOUNT = Money.parse("10.00", "RUB")
NOTHING = Money.parse("0", "RUB")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def top_up(**given: Any) -> TopUp:
    """One that has just been admitted, but for what is given."""
    made: dict[str, Any] = {
        "id": UUID("01a1fc68-ad44-74c3-a6d6-42556a5c7775"),
        "key": Key("issuer|alice", "k"),
        "fingerprint": b"f",
        "owner_id": "alice",
        "account_id": UUID(int=1),
        "amount": AMOUNT,
        "card": Token("tok_1", Brand.VISA, "4242"),
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
    return TopUp(**(made | given))


def payment(status: PaymentStatus, amount: Money = AMOUNT) -> Payment:
    """The acquirer's, with the sums that belong to its status."""
    return Payment(
        "pay_1",
        top_up().authorization_key,
        status,
        amount,
        amount if status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED} else amount - amount,
        amount if status is PaymentStatus.REFUNDED else amount - amount,
        "DO_NOT_HONOR" if status is PaymentStatus.DECLINED else None,
    )
