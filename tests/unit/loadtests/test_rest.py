"""Conversion of REST responses to outcomes in the history."""

from decimal import Decimal
from uuid import UUID

import pytest

from loadtests import rest
from loadtests.history.calls import IdempotencyKey, LedgerRequest, Receipt, Refusal, RequestBody

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
