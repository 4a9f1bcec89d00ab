"""Deposits of top-ups. In some tests other clients use the clearing account, so the checker does not get its rows."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from loadtests.history.calls import (
    Answer,
    IdempotencyKey,
    LedgerRequest,
    NoEffect,
    Receipt,
    RecordedCall,
    RequestBody,
    TopUpState,
    UnknownOutcome,
    deposits_of_top_ups,
    unresolved_requests,
)
from loadtests.history.checker import check_history, check_top_up_marks
from loadtests.history.model import Invariant
from loadtests.history.rows import LedgerRows
from tests.unit.loadtests.reference_ledger import ALICE, BOB, CLEARING, ReferenceLedger

ID, TRANSFER = UUID(int=50), UUID(int=60)
REQUEST = LedgerRequest(
    IdempotencyKey("issuer|alice", "top-up", "card-k"), RequestBody(CLEARING, ALICE, Decimal(10)), None
)


def calls_with(*answers: Answer) -> list[RecordedCall]:
    return [RecordedCall(n, REQUEST, n, n + 0.5, answer) for n, answer in enumerate(answers, 1)]


class TestDepositsOfTopUps:
    def test_deposit_lasts_from_first_attempt_to_first_completed_response(self) -> None:
        created, completed = TopUpState(ID, "CREATED"), TopUpState(ID, "COMPLETED", TRANSFER)
        (call,) = deposits_of_top_ups(calls_with(UnknownOutcome("UNAVAILABLE"), created, completed, completed))
        assert (call.began, call.ended) == (1, 3.5)
        assert call.request.key == IdempotencyKey("card", "deposit", str(ID))
        assert call.answer == Receipt(TRANSFER, ALICE, None, None, Decimal(10))

    def test_declined_top_up_has_a_deposit_without_effect(self) -> None:
        (call,) = deposits_of_top_ups(calls_with(UnknownOutcome("UNAVAILABLE"), TopUpState(ID, "DECLINED")))
        assert call.answer == NoEffect("DECLINED")

    def test_rejected_top_up_has_no_deposit(self) -> None:
        assert deposits_of_top_ups(calls_with(NoEffect("TOP_UP_LIMIT_EXCEEDED"))) == []

    def test_unfinished_top_up_has_a_deposit_with_unknown_outcome(self) -> None:
        (call,) = deposits_of_top_ups(calls_with(TopUpState(ID, "CAPTURED")))
        assert isinstance(call.answer, UnknownOutcome)

    def test_other_calls_are_unchanged(self) -> None:
        ledger = ReferenceLedger()
        ledger.transfer()
        assert deposits_of_top_ups(ledger.calls) == ledger.calls


class TestMarksOfReplays:
    @pytest.mark.parametrize(
        ("marks", "wrong"),
        [
            ([False], []),
            ([False, True, True], []),
            ([True, False], []),
            ([None, None], []),
            ([True], [[1]]),
            ([False, False, True], [[1, 2]]),
        ],
        ids=str,
    )
    def test_wrong_mark_of_a_replay_is_a_violation(self, marks: list[bool | None], wrong: list[list[int]]) -> None:
        calls = [
            replace(call, began=0.0) for call in calls_with(*(TopUpState(ID, "CREATED", None, mark) for mark in marks))
        ]
        violations = check_top_up_marks(calls)
        assert [violation.calls for violation in violations] == [[calls[n - 1] for n in numbers] for numbers in wrong]
        assert {violation.invariant for violation in violations} <= {Invariant.REPLAY}

    def test_replay_of_a_lost_response_is_accepted(self) -> None:
        assert (
            check_top_up_marks(calls_with(UnknownOutcome("UNAVAILABLE"), TopUpState(ID, "CREATED", None, True))) == []
        )


class TestUnresolvedRequests:
    def test_unfinished_top_up_is_unresolved(self) -> None:
        assert unresolved_requests(calls_with(TopUpState(ID, "CAPTURED"))) == [REQUEST]

    def test_top_up_in_a_final_state_is_resolved(self) -> None:
        for status in ("COMPLETED", "DECLINED", "VOIDED", "REFUNDED"):
            assert unresolved_requests(calls_with(TopUpState(ID, "CREATED"), TopUpState(ID, status))) == []


class TestUntrackedClearingAccount:
    @staticmethod
    def rows_without_clearing(ledger: ReferenceLedger) -> LedgerRows:
        rows = ledger.rows
        return replace(
            rows,
            accounts=[account for account in rows.accounts if account.id != CLEARING],
            entries=[entry for entry in rows.entries if entry.account_id != CLEARING],
            untracked=frozenset({CLEARING}),
        )

    def test_deposits_from_an_untracked_account_are_accepted(self) -> None:
        ledger = ReferenceLedger()
        ledger.deposit("a")
        ledger.transfer("b", BOB, ALICE, 5)
        ledger.deposit("c", ALICE)
        ledger.transfers[-1] = replace(ledger.transfers[-1], sender_version=99)  # other clients used the account
        assert check_history(self.rows_without_clearing(ledger), ledger.calls) == []

    def test_unrequested_deposit_is_a_violation(self) -> None:
        ledger = ReferenceLedger()
        ledger.deposit("a")
        ledger.calls.clear()
        violations = check_history(self.rows_without_clearing(ledger), ledger.calls)
        assert {violation.invariant for violation in violations} == {Invariant.REQUESTED}

    def test_transfer_from_an_untracked_account_is_a_violation(self) -> None:
        ledger = ReferenceLedger()
        ledger.deposit("a")
        ledger.transfers[-1] = replace(ledger.transfers[-1], kind="TRANSFER")
        violations = check_history(self.rows_without_clearing(ledger), ledger.calls)
        assert Invariant.RULES in {violation.invariant for violation in violations}


def test_present_values_of_a_partial_receipt_are_checked() -> None:
    ledger = ReferenceLedger()
    ledger.transfer()
    ledger.falsify_receipt(version=None, balance_after=None)
    assert ledger.violated_invariants() == set()
    ledger.falsify_receipt(balance_after=Decimal(1))
    assert ledger.violated_invariants() == {Invariant.RECEIPT}
