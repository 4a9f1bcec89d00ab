"""Conversion of REST responses to outcomes in the history."""

from decimal import Decimal
from uuid import UUID

import pytest

from loadtests import rest
from loadtests.history.calls import (
    Answer,
    IdempotencyKey,
    LedgerRequest,
    NoEffect,
    Receipt,
    Refusal,
    RequestBody,
    UnknownOutcome,
)

REQUEST = LedgerRequest(
    IdempotencyKey("alice", "transfer", "k"), RequestBody(UUID(int=1), UUID(int=2), Decimal(10)), "alice"
)
TRANSFER = {"id": str(UUID(int=3)), "amount": "10.00"}
REFUSED = {"code": "INSUFFICIENT_FUNDS", "needed": "10.00", "available": "1.00", "currency": "RUB"}


@pytest.mark.parametrize(("headers", "is_replay"), [({}, False), ({"Idempotency-Replayed": "true"}, True)])
def test_mark_of_a_replay_is_read_from_the_header(headers: dict[str, str], is_replay: bool) -> None:
    receipt = rest.parse_answer(REQUEST, 201, TRANSFER, headers)
    refusal = rest.parse_answer(REQUEST, 400, REFUSED, headers)
    assert isinstance(receipt, Receipt)
    assert isinstance(refusal, Refusal)
    assert (receipt.is_replay, refusal.is_replay) == (is_replay, is_replay)


RESULTS = [
    {"outcome": "SUCCEEDED", "replayed": True, "transfer": TRANSFER},
    {"outcome": "REFUSED", "replayed": True, "problem": REFUSED},
    {"outcome": "UNKNOWN", "replayed": False, "problem": {"code": "UNAVAILABLE"}},
    {"outcome": "REFUSED", "replayed": False, "problem": {"code": "INVALID_INPUT"}},
]


def test_each_result_of_a_batch_is_an_answer() -> None:
    made, refused, unknown, invalid = rest.parse_batch([REQUEST] * 4, 200, {"results": RESULTS}, {})
    single: list[Answer] = [
        rest.parse_answer(REQUEST, 201, TRANSFER, {"Idempotency-Replayed": "true"}),
        rest.parse_answer(REQUEST, 400, REFUSED, {"Idempotency-Replayed": "true"}),
    ]
    assert [made, refused] == single
    assert isinstance(made, Receipt)
    assert isinstance(refused, Refusal)
    assert (made.is_replay, refused.is_replay) == (True, True)
    assert unknown == UnknownOutcome("UNAVAILABLE")
    assert invalid == NoEffect("INVALID_INPUT")


@pytest.mark.parametrize("status", [0, 503, 504])
def test_batch_without_a_response_has_unknown_outcomes(status: int) -> None:
    answers = rest.parse_batch([REQUEST] * 2, status, {}, {})
    assert [type(each) for each in answers] == [UnknownOutcome] * 2


def test_missing_result_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        rest.parse_batch([REQUEST] * 2, 200, {"results": RESULTS[:1]}, {})


def test_refusal_that_claims_an_unknown_outcome_is_noticed() -> None:
    with pytest.raises(ValueError, match="UNKNOWN"):
        rest.parse_result(REQUEST, {"outcome": "UNKNOWN", "replayed": False, "problem": REFUSED})
