import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from subgraphs.analytics.service.adapters.events import InvalidEvent, decode_event
from subgraphs.analytics.service.domain.model import NO_WORDS, Event, OperationType, Posting, Words
from wallet.money import Money

ALICE, BOB, ID = UUID(int=1), UUID(int=2), UUID(int=3)
TRANSFER = [("ce_type", b"wallet.transfer.completed")]
TOP_UP = [("ce_type", b"wallet.topup.completed")]


def body(**changes: Any) -> dict[str, Any]:
    return {
        "transferId": str(ID),
        "occurredAt": "2026-01-02T06:04:05.678901+03:00",
        "amount": "10.5",
        "currency": "RUB",
        "sender": {"accountId": str(ALICE), "version": 7, "balanceAfter": "89.50"},
        "recipient": {"accountId": str(BOB), "version": 1, "balanceAfter": "-0.01"},
    } | changes


def encoded(**changes: Any) -> bytes:
    return json.dumps(body(**changes)).encode()


class TestDecodeEvent:
    def test_transfer_is_decoded(self) -> None:
        assert decode_event(encoded(), TRANSFER) == Event(
            ID,
            OperationType.TRANSFER,
            Money.parse("10.50"),
            Posting(ALICE, 7, Money.parse("89.50")),
            Posting(BOB, 1, Money.parse("-0.01")),
            datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        )

    def test_words_of_a_transfer_are_decoded(self) -> None:
        words = {"description": "Rent", "reference": "r1", "metadata": {"order": "1"}, "createdBy": "users|alice"}
        event = decode_event(encoded(**words), TRANSFER)
        assert event.words == Words("Rent", "r1", {"order": "1"}, "users|alice")
        assert decode_event(encoded(), TRANSFER).words is NO_WORDS

    def test_top_up_with_descriptor_is_decoded(self) -> None:
        assert decode_event(encoded(descriptor={"cardBrand": "VISA"}), TOP_UP).type is OperationType.TOP_UP

    def test_unknown_fields_and_headers_are_ignored(self) -> None:
        assert decode_event(encoded(added="later"), [*TRANSFER, ("ce_traceparent", b"00-1-2-00")]).id == ID

    @pytest.mark.parametrize(
        ("value", "headers", "reason"),
        [
            (encoded(), [], "the header ce_type is missing"),
            (encoded(), [("ce_type", b"wallet.transfer.undone")], "the header ce_type names no event of the contract"),
            (None, TRANSFER, "body: Invalid JSON"),
            (b"", TRANSFER, "body: Invalid JSON"),
            (b"\xff\xfe", TRANSFER, "body: Invalid JSON"),
            (b"{", TRANSFER, "body: Invalid JSON"),
            (b"[]", TRANSFER, "body: "),
            (b"{}", TRANSFER, "transferId: Field required"),
            (encoded(occurredAt=1767323045), TRANSFER, "occurredAt: "),
            (encoded(occurredAt="2026-01-02T03:04:05"), TRANSFER, "occurredAt: "),
            (encoded(occurredAt="1492-01-02T03:04:05Z"), TRANSFER, "occurredAt: is out of range"),
            (encoded(amount=10.5), TRANSFER, "amount: "),
            (encoded(amount="-10.50"), TRANSFER, "amount: "),
            (encoded(amount="0.00"), TRANSFER, "amount: must be positive"),
            (encoded(amount="10.505"), TRANSFER, "money: must have at most 2 decimals in RUB"),
            (encoded(currency="XXX"), TRANSFER, "money: must be in an ISO 4217 currency"),
            (
                encoded(sender={"accountId": str(ALICE), "version": "7", "balanceAfter": "1"}),
                TRANSFER,
                "sender.version",
            ),
            (encoded(sender={"accountId": str(ALICE), "version": 0, "balanceAfter": "1"}), TRANSFER, "sender.version"),
            (
                encoded(sender={"accountId": str(ALICE), "version": 2**63, "balanceAfter": "1"}),
                TRANSFER,
                "version: is out of range",
            ),
            (encoded(sender=body()["recipient"]), TRANSFER, "recipient: is the sender"),
            (encoded(descriptor={"pan": "4" * 129}), TOP_UP, "descriptor.pan"),
        ],
    )
    def test_invalid_message_is_refused_with_a_reason(
        self, value: bytes | None, headers: list[tuple[str, bytes]], reason: str
    ) -> None:
        with pytest.raises(InvalidEvent) as caught:
            decode_event(value, headers)
        assert caught.value.reason.startswith(reason)

    def test_reason_does_not_contain_values_of_the_message(self) -> None:
        with pytest.raises(InvalidEvent) as caught:
            decode_event(encoded(amount="4111111111111111x"), TRANSFER)
        assert "4111" not in caught.value.reason
