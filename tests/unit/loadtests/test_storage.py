"""Files with the records of a load test."""

import os
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from loadtests.history.calls import (
    Answer,
    IdempotencyKey,
    LedgerRequest,
    NoEffect,
    Receipt,
    Refusal,
    RequestBody,
    TopUpState,
    UnknownOutcome,
)
from loadtests.history.storage import (
    HistoryWriter,
    RequestRecord,
    SubscriptionRecord,
    calls_from_records,
    read_records,
)

ALICE, BOB, TRANSFER = (UUID(int=n) for n in range(3))
REQUEST = LedgerRequest(
    IdempotencyKey("issuer|alice", "transfer", "k"), RequestBody(ALICE, BOB, Decimal("10.50")), "alice"
)


@pytest.mark.parametrize(
    "answer",
    [
        Receipt(TRANSFER, ALICE, 7, Decimal("1.20"), Decimal("10.50")),
        Receipt(TRANSFER, ALICE, None, None, Decimal("10.50")),
        Refusal("INSUFFICIENT_FUNDS", {"needed": "10.50", "available": "1.00"}),
        Receipt(TRANSFER, ALICE, 7, Decimal("1.20"), Decimal("10.50"), is_replay=True),
        Refusal("INSUFFICIENT_FUNDS", {"needed": "10.50", "available": "1.00"}, is_replay=True),
        TopUpState(TRANSFER, "COMPLETED", BOB),
        TopUpState(TRANSFER, "CREATED"),
        UnknownOutcome("UNAVAILABLE"),
        NoEffect("RATE_LIMITED"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_written_ledger_request_and_response_are_read_back(tmp_path: Path, answer: Answer) -> None:
    record = RequestRecord(name="transfer", due=1.0, began=1.5, ended=2.0, error="", request=REQUEST, answer=answer)
    with HistoryWriter(tmp_path) as writer:
        writer.write(record)
    (read,) = read_records(tmp_path)
    assert read == record
    assert getattr(read.answer, "is_replay", None) == getattr(answer, "is_replay", None)


def test_written_reads_subscriptions_and_dropped_requests_are_read_back(tmp_path: Path) -> None:
    records = [
        RequestRecord(name="balance", began=1.0, ended=2.0, error="UNAVAILABLE"),
        RequestRecord(name="subscription", subscription=SubscriptionRecord(ALICE, 0, [1, 2], [0.5])),
        RequestRecord(name="dropped", due=3.0, dropped=1),
    ]
    with HistoryWriter(tmp_path) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(tmp_path)) == records


def test_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    with HistoryWriter(tmp_path) as writer:
        writer.write(RequestRecord(name="first"))
        writer.write(RequestRecord(name="second"))
    file = tmp_path / f"history-{os.getpid()}.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    assert [record.name for record in read_records(tmp_path)] == ["first"]


def test_records_of_several_processes_are_merged_in_order_of_their_ends(tmp_path: Path) -> None:
    for pid, times in (("1", (1.0, 4.0)), ("2", (2.0, 3.0))):
        with HistoryWriter(tmp_path) as writer:
            for ended in times:
                answer = UnknownOutcome("UNAVAILABLE")
                writer.write(RequestRecord(name="transfer", ended=ended, request=REQUEST, answer=answer))
        (tmp_path / f"history-{os.getpid()}.jsonl").rename(tmp_path / f"history-0{pid}.jsonl")
    calls = calls_from_records(read_records(tmp_path))
    assert [(call.number, call.ended) for call in calls] == [(1, 1), (2, 2), (3, 3), (4, 4)]
