from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from subgraphs.analytics.service.domain.model import Direction, Event, OperationType, Posting, Row, Words
from subgraphs.analytics.service.domain.rows import rows_from_event
from wallet.money import Money

ALICE, BOB, ID = UUID(int=1), UUID(int=2), UUID(int=3)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class TestRowsFromEvent:
    def test_event_becomes_a_row_for_each_account(self) -> None:
        event = Event(
            ID,
            OperationType.TOP_UP,
            Money.parse("10.50"),
            Posting(ALICE, 7, Money.parse("-89.50")),
            Posting(BOB, 1, Money.parse("10.50")),
            AT,
        )
        shared = {"operation_id": ID, "type": OperationType.TOP_UP, "amount": Decimal("10.50"), "currency": "RUB"}
        assert rows_from_event(event) == (
            Row(
                account_id=ALICE,
                account_version=7,
                direction=Direction.OUT,
                balance_after=Decimal("-89.50"),
                counterparty_id=BOB,
                occurred_at=AT,
                **shared,  # type: ignore[arg-type]
            ),
            Row(
                account_id=BOB,
                account_version=1,
                direction=Direction.IN,
                balance_after=Decimal("10.50"),
                counterparty_id=ALICE,
                occurred_at=AT,
                **shared,  # type: ignore[arg-type]
            ),
        )

    @pytest.mark.parametrize("description", ["Rent", ""])
    def test_recipient_gets_the_description_only(self, description: str) -> None:
        sides = Posting(ALICE, 1, Money.parse("0")), Posting(BOB, 1, Money.parse("1"))
        words = Words(description, "r1", {"order": "1"}, "users|alice")
        event = Event(ID, OperationType.TRANSFER, Money.parse("1"), *sides, AT, words=words)
        sender, recipient = rows_from_event(event)
        assert (sender.words, recipient.words) == (words, Words(description))
