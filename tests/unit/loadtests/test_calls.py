"""Recording of calls, and conversion of the client's outcomes."""

import asyncio
import itertools
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from loadtests.history.calls import (
    DEFECT,
    History,
    IdempotencyKey,
    LedgerRequest,
    NoEffect,
    Receipt,
    Refusal,
    RequestBody,
    UnknownOutcome,
    answer_from_outcome,
)
from subgraphs.bank import client
from wallet.errors import (
    AccountClosed,
    DeadlineExceeded,
    InternalError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    WalletError,
)
from wallet.money import Money

ALICE, BOB = UUID(int=1), UUID(int=2)
REQUEST = LedgerRequest(IdempotencyKey("alice", "transfer", "k"), RequestBody(ALICE, BOB, Decimal(10)), "alice")


def receipt_from_client() -> client.Receipt:
    created = datetime(2025, 1, 1, tzinfo=UTC)
    transfer = client.Transfer(UUID(int=9), "TRANSFER", ALICE, BOB, Money.parse("10"), created)
    return client.Receipt(transfer, client.Posting(ALICE, 1, Money.parse("90")))


class TestHistory:
    async def test_each_request_of_a_call_is_recorded_with_its_response_and_times(self) -> None:
        history = History(itertools.count(1.0).__next__)

        async def send() -> list[client.Receipt | WalletError]:
            return [receipt_from_client(), Unavailable()]

        assert await history.record([REQUEST, REQUEST], send()) == [call.answer for call in history.calls]
        assert [(call.number, call.began, call.ended) for call in history.calls] == [(1, 1.0, 2.0), (2, 1.0, 2.0)]
        first, second = (call.answer for call in history.calls)
        assert first == Receipt(UUID(int=9), ALICE, 1, Decimal(90), Decimal(10))
        assert second == UnknownOutcome("UNAVAILABLE")
        assert history.unresolved() == [REQUEST]

    async def test_error_of_a_call_is_recorded_for_all_its_requests(self) -> None:
        history = History()

        async def send() -> list[client.Receipt | WalletError]:
            raise ResourceExhausted

        assert await history.record([REQUEST] * 2, send()) == [NoEffect("RESOURCE_EXHAUSTED")] * 2
        assert history.unresolved() == []

    async def test_cancelled_call_is_recorded_with_unknown_outcome(self) -> None:
        history, started = History(), asyncio.Event()

        async def send() -> list[client.Receipt | WalletError]:
            started.set()
            await asyncio.Event().wait()
            return []

        recording = asyncio.create_task(history.record([REQUEST], send()))
        await started.wait()
        recording.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recording
        assert [call.answer for call in history.calls] == [UnknownOutcome("CANCELLED")]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (AccountClosed("a"), Refusal("ACCOUNT_CLOSED", {"account_id": "a"})),
        (Unavailable(), UnknownOutcome("UNAVAILABLE")),
        (DeadlineExceeded(), UnknownOutcome("DEADLINE_EXCEEDED")),
        (InternalError(), UnknownOutcome(DEFECT)),
        (ResourceExhausted(), NoEffect("RESOURCE_EXHAUSTED")),
        (PermissionDenied(), NoEffect("PERMISSION_DENIED")),
    ],
)
def test_error_is_converted_to_a_refusal_unknown_outcome_or_no_effect(error: WalletError, answer: object) -> None:
    assert answer_from_outcome(error) == answer
