"""History checker: correct histories have no violations, and each falsified history violates the expected invariant."""

import itertools
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from math import inf
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadtests.history.calls import (
    DEFECT,
    BalanceSnapshot,
    FloorChange,
    FrozenPeriod,
    NoEffect,
    Operation,
    Refusal,
    UnknownOutcome,
)
from loadtests.history.checker import check_history
from loadtests.history.model import Invariant
from tests.unit.loadtests.reference_ledger import (
    ALICE,
    BOB,
    CAROL,
    CLEARING,
    CLOSED,
    MISSING,
    OPENING,
    START,
    ReferenceLedger,
)

REQUESTS: list[tuple[Operation, str, UUID, UUID, int]] = [
    ("transfer", "a", ALICE, BOB, 60),
    ("transfer", "b", ALICE, BOB, 60),
    ("transfer", "c", ALICE, CAROL, 1),
    ("transfer", "c", ALICE, BOB, 2),
    ("transfer", "d", ALICE, CLOSED, 1),
    ("transfer", "e", BOB, ALICE, 1),
    ("transfer", "f", ALICE, MISSING, 1),
    ("transfer", "g", ALICE, CLEARING, 1),
    ("deposit", "a", CLEARING, ALICE, 30),
    ("deposit", "b", CLEARING, ALICE, 5),
]


@pytest.fixture
def ledger() -> ReferenceLedger:
    return ReferenceLedger()


@st.composite
def histories(draw: st.DrawFn) -> ReferenceLedger:
    """Generate overlapping calls, with retries, conflicting requests, and lost requests and responses."""
    ledger = ReferenceLedger()
    duration, usually = st.floats(0, 4), st.sampled_from([True, True, True, False])
    for _ in range(draw(st.integers(0, 25))):
        if draw(st.integers(0, 5)) == 0:
            ledger.take_snapshot()
        ledger.call(
            *draw(st.sampled_from(REQUESTS)),
            before=draw(duration),
            after=draw(duration),
            is_executed=draw(usually),
            is_answered=draw(usually),
        )
    ledger.resolve()
    return ledger


class TestRandomHistories:
    @given(histories())
    def test_correct_history_has_no_violations(self, ledger: ReferenceLedger) -> None:
        assert check_history(ledger.rows, ledger.calls, ledger.snapshots) == []

    @given(histories(), st.data())
    def test_missing_row_is_a_violation(self, ledger: ReferenceLedger, data: st.DataObject) -> None:
        tables = [table for table in (ledger.transfers, ledger.entries, ledger.keys) if table]
        assume(tables)
        table = data.draw(st.sampled_from(tables))
        del table[data.draw(st.integers(0, len(table) - 1))]
        assert ledger.violated_invariants()

    @given(histories(), st.data())
    def test_entry_off_by_a_kopeck_is_a_violation(self, ledger: ReferenceLedger, data: st.DataObject) -> None:
        assume(ledger.entries)
        place = data.draw(st.integers(0, len(ledger.entries) - 1))
        column = data.draw(st.sampled_from(["amount", "balance_after", "version"]))
        entry = ledger.entries[place]
        ledger.entries[place] = replace(entry, **{column: getattr(entry, column) + Decimal("0.01")})
        assert Invariant.ENTRIES in ledger.violated_invariants()

    @given(histories(), st.data())
    def test_swapped_responses_of_two_keys_are_a_violation(self, ledger: ReferenceLedger, data: st.DataObject) -> None:
        calls = ledger.calls
        answered = [n for n, call in enumerate(calls) if not isinstance(call.answer, UnknownOutcome)]
        pairs = [
            (a, b)
            for a, b in itertools.combinations(answered, 2)
            if calls[a].request.key != calls[b].request.key and calls[a].answer != calls[b].answer
        ]
        assume(pairs)
        a, b = data.draw(st.sampled_from(pairs))
        calls[a], calls[b] = replace(calls[a], answer=calls[b].answer), replace(calls[b], answer=calls[a].answer)
        assert ledger.violated_invariants()


class TestRows:
    def test_two_transfers_with_one_key_are_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("k")
        del ledger.keys[:]
        ledger.transfer("k")
        assert Invariant.ONE_KEY in ledger.violated_invariants()

    def test_key_without_its_transfer_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.transfers.clear()
        assert Invariant.ONE_KEY in ledger.violated_invariants()

    def test_unrequested_transfer_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.calls.clear()
        assert ledger.violated_invariants() == {Invariant.REQUESTED}

    def test_unrequested_refusal_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        ledger.calls.clear()
        assert ledger.violated_invariants() == {Invariant.REQUESTED}

    def test_transfer_with_another_amount_than_requested_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=11, is_answered=False)
        call = ledger.calls[0]
        ledger.falsify_call(request=replace(call.request, body=replace(call.request.body, amount=Decimal(10))))
        assert Invariant.REQUESTED in ledger.violated_invariants()

    def test_wrong_balance_of_an_account_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.falsify_account(ALICE, balance=OPENING)
        assert ledger.violated_invariants() == {Invariant.ACCOUNTS}

    def test_wrong_version_of_an_account_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.falsify_account(BOB, version=2)
        assert ledger.violated_invariants() == {Invariant.ACCOUNTS}

    def test_closed_account_with_money_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.falsify_account(BOB, status="CLOSED")
        assert ledger.violated_invariants() == {Invariant.ACCOUNTS}

    def test_entry_without_a_transfer_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.entries.append(replace(ledger.entries[0], version=2))
        assert ledger.violated_invariants() == {Invariant.ENTRIES}

    def test_gap_in_versions_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.transfers[0] = replace(ledger.transfers[0], sender_version=2)
        ledger.entries[0] = replace(ledger.entries[0], version=2)
        assert Invariant.ORDER in ledger.violated_invariants()

    def test_contradicting_versions_are_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a")
        ledger.transfer("b")
        first, second = ledger.transfers
        ledger.transfers[:] = [replace(first, recipient_version=2), replace(second, recipient_version=1)]
        assert Invariant.ORDER in ledger.violated_invariants()

    def test_decreasing_creation_time_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a")
        ledger.transfer("b")
        ledger.transfers[1] = replace(ledger.transfers[1], created_at=START - timedelta(seconds=1))
        assert ledger.violated_invariants() == {Invariant.TIME}

    def test_transfer_dated_after_the_rows_were_read_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a")
        ledger.transfers[0] = replace(ledger.transfers[0], created_at=START + timedelta(days=400))
        assert ledger.violated_invariants() == {Invariant.FUTURE}

    def test_balance_below_minimum_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=70)
        ledger.falsify_account(ALICE, min_balance=Decimal(50))
        assert ledger.violated_invariants() == {Invariant.RULES}

    def test_transfer_of_another_currency_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.falsify_account(BOB, currency="USD")
        assert ledger.violated_invariants() == {Invariant.RULES}

    def test_deposit_from_a_customer_account_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.deposit()
        ledger.falsify_account(CLEARING, purpose="CUSTOMER")
        assert ledger.violated_invariants() == {Invariant.RULES}

    def test_transfer_to_a_missing_account_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        del ledger.accounts[BOB]
        assert Invariant.RULES in ledger.violated_invariants()

    def test_changed_sum_of_balances_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.take_snapshot()
        ledger.snapshots.append(BalanceSnapshot(2, 2 * OPENING - 10))
        assert ledger.violated_invariants() == {Invariant.SNAPSHOT}


class TestResponses:
    def test_receipt_without_a_transfer_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        empty = ReferenceLedger(calls=ledger.calls)
        assert empty.violated_invariants() == {Invariant.ACKNOWLEDGED}

    def test_receipt_for_a_refused_request_is_a_violation(self, ledger: ReferenceLedger) -> None:
        receipt = ledger.transfer("committed")
        ledger.transfer("refused", amount=1000)
        ledger.falsify_call(answer=receipt)
        assert Invariant.ACKNOWLEDGED in ledger.violated_invariants()

    @pytest.mark.parametrize(
        "falsified", [{"version": 2}, {"balance_after": Decimal(89)}, {"amount": Decimal(11)}, {"account_id": BOB}]
    )
    def test_receipt_that_differs_from_the_ledger_is_a_violation(
        self, ledger: ReferenceLedger, falsified: dict[str, Any]
    ) -> None:
        ledger.transfer()
        ledger.falsify_receipt(**falsified)
        assert ledger.violated_invariants() == {Invariant.RECEIPT}

    def test_refusal_of_a_committed_transfer_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        refusal = {"account_id": str(ALICE), "needed": "10", "available": "5", "currency": "RUB"}
        ledger.falsify_call(answer=Refusal("INSUFFICIENT_FUNDS", refusal))
        assert ledger.violated_invariants() == {Invariant.REFUSED}

    def test_refusal_without_an_idempotency_record_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        ledger.keys.clear()
        assert ledger.violated_invariants() == {Invariant.REFUSED}

    def test_different_refusals_of_one_request_are_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        ledger.transfer(amount=1000)
        refusal = ledger.calls[1].answer
        assert isinstance(refusal, Refusal)
        ledger.falsify_call(answer=replace(refusal, metadata={**refusal.metadata, "available": "99"}))
        assert ledger.violated_invariants() == {Invariant.SAME}

    def test_retry_with_another_transfer_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.transfer()
        ledger.falsify_receipt(transfer_id=UUID(int=1))
        assert ledger.violated_invariants() == {Invariant.SAME}

    def test_two_acknowledged_requests_with_one_key_are_a_violation(self, ledger: ReferenceLedger) -> None:
        receipt = ledger.transfer(amount=10)
        ledger.transfer(amount=11)
        ledger.falsify_call(answer=receipt)
        assert ledger.violated_invariants() == {Invariant.CONFLICT, Invariant.REPLAY}

    def test_two_refused_requests_with_one_key_are_a_violation(self, ledger: ReferenceLedger) -> None:
        refusal = ledger.transfer(amount=1000)
        ledger.transfer(amount=1001)
        ledger.falsify_call(answer=refusal)
        assert ledger.violated_invariants() == {Invariant.CONFLICT, Invariant.REPLAY}

    def test_conflict_without_an_earlier_request_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.falsify_call(answer=Refusal("IDEMPOTENCY_CONFLICT", {"idempotency_key": "k"}))
        assert ledger.violated_invariants() == {Invariant.CONFLICT}

    def test_conflict_for_every_request_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        ledger.transfer(amount=1001)
        ledger.falsify_call(0, answer=ledger.calls[1].answer)
        assert ledger.violated_invariants() == {Invariant.CONFLICT}

    def test_no_effect_response_to_an_executed_request_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer()
        ledger.falsify_call(answer=NoEffect("RESOURCE_EXHAUSTED"))
        assert ledger.violated_invariants() == {Invariant.NO_EFFECT}

    def test_no_effect_response_to_an_unexecuted_request_is_accepted(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(is_executed=False)
        ledger.falsify_call(answer=NoEffect("RESOURCE_EXHAUSTED"))
        assert ledger.violated_invariants() == set()

    @pytest.mark.parametrize("amount", [10, 1000], ids=["receipt", "refusal"])
    def test_first_response_marked_as_a_replay_is_a_violation(self, ledger: ReferenceLedger, amount: int) -> None:
        ledger.transfer(amount=amount)
        ledger.transfer("another", amount=1)
        ledger.falsify_mark(0, is_replay=True)
        assert ledger.violated_invariants() == {Invariant.REPLAY}

    @pytest.mark.parametrize("amount", [10, 1000], ids=["receipt", "refusal"])
    def test_repeated_response_without_a_mark_is_a_violation(self, ledger: ReferenceLedger, amount: int) -> None:
        ledger.transfer(amount=amount)
        ledger.transfer(amount=amount)
        assert ledger.violated_invariants() == set()
        ledger.falsify_mark(1, is_replay=False)
        assert ledger.violated_invariants() == {Invariant.REPLAY}

    def test_conflict_that_is_marked_as_a_replay_is_a_violation(self, ledger: ReferenceLedger) -> None:
        for amount in (10, 11, 11):
            ledger.transfer(amount=amount)
        ledger.falsify_mark(2, is_replay=True)
        assert ledger.violated_invariants() == {Invariant.REPLAY}

    def test_replay_of_a_lost_response_is_accepted(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(is_answered=False)
        ledger.transfer()
        assert ledger.calls[1].answer.is_replay  # type: ignore[union-attr]  # a receipt
        assert ledger.violated_invariants() == set()

    def test_responses_of_an_api_without_marks_are_accepted(self, ledger: ReferenceLedger) -> None:
        for place in range(2):
            ledger.transfer()
            ledger.falsify_mark(place, is_replay=None)
        assert ledger.violated_invariants() == set()

    def test_unresolved_outcome_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(is_answered=False)
        assert ledger.violated_invariants() == {Invariant.KNOWN}

    def test_internal_error_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(is_answered=False)
        ledger.falsify_call(answer=UnknownOutcome(DEFECT))
        ledger.transfer()
        assert ledger.violated_invariants() == {Invariant.DEFECT}


class TestRefusals:
    def test_refusal_with_a_wrong_available_amount_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        row, call = ledger.keys[0], ledger.calls[0]
        assert row.refusal is not None
        wrong = replace(row.refusal, metadata={**row.refusal.metadata, "available": "7"})
        ledger.keys[0] = replace(row, refusal=wrong)
        ledger.calls[0] = replace(call, answer=wrong)
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}

    def test_refusal_based_on_a_past_balance_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("poor", amount=1000)
        ledger.transfer("moves", ALICE, BOB, 30)
        ledger.falsify_call(0, began=3.0, ended=4.0)
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}

    def test_refusal_based_on_a_future_balance_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("moves", ALICE, BOB, 30)
        ledger.transfer("poor", amount=1000)
        ledger.falsify_call(1, began=0.1, ended=0.2)
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}

    def test_refusal_based_on_a_balance_during_the_call_is_accepted(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("moves", ALICE, BOB, 30)
        ledger.transfer("poor", amount=1000, before=5, after=5)
        ledger.transfer("moves on", ALICE, BOB, 30)
        assert ledger.violated_invariants() == set()

    def test_refusal_despite_sufficient_funds_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        call = ledger.calls[0]
        ledger.falsify_call(request=replace(call.request, body=replace(call.request.body, amount=Decimal(100))))
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}

    def test_account_not_found_for_an_existing_account_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(recipient=MISSING)
        ledger.accounts[MISSING] = replace(ledger.accounts[CAROL], id=MISSING)
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}

    def test_account_closed_for_an_open_account_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(recipient=CLOSED)
        ledger.falsify_account(CLOSED, status="OPEN")
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}

    def test_account_closed_for_an_account_with_later_transfers_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("in", ALICE, CAROL, 10)
        ledger.transfer("refused", recipient=CLOSED)
        ledger.falsify_call(0, began=5.0, ended=6.0)
        ledger.accounts[CLOSED] = replace(ledger.accounts.pop(CAROL), id=CLOSED, status="CLOSED")
        transfer = ledger.transfers[0]
        ledger.transfers[0] = replace(transfer, recipient_id=CLOSED)
        ledger.entries[1] = replace(ledger.entries[1], account_id=CLOSED)
        call = ledger.calls[0]
        ledger.falsify_call(0, request=replace(call.request, body=replace(call.request.body, recipient_id=CLOSED)))
        assert Invariant.JUSTIFIED in ledger.violated_invariants()

    def test_currency_mismatch_for_the_same_currency_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer(amount=1000)
        refusal = Refusal("CURRENCY_MISMATCH", {"account_id": str(BOB), "currency": "RUB"})
        ledger.keys[0] = replace(ledger.keys[0], refusal=refusal)
        ledger.falsify_call(answer=refusal)
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}


class TestRealTimeOrder:
    def test_versions_that_contradict_the_order_of_calls_are_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("first")
        ledger.transfer("second")
        ledger.falsify_call(0, began=5.0, ended=6.0)
        violations = check_history(ledger.rows, ledger.calls)
        assert [violation.invariant for violation in violations] == [Invariant.REAL_TIME] * 2  # for both accounts
        for violation in violations:
            assert list(violation.rows) == ledger.transfers
            assert list(violation.calls) == ledger.calls

    def test_concurrent_calls_may_commit_in_any_order(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("first")
        ledger.transfer("second", before=2)
        ledger.falsify_call(0, began=0.5, ended=6.0)
        assert ledger.violated_invariants() == set()

    def test_request_with_a_lost_response_may_commit_until_its_retry_ends(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("first", is_answered=False)
        ledger.transfer("second")
        ledger.transfer("first")
        ledger.calls[0], ledger.calls[1] = (replace(call, began=call.began + 0.5) for call in ledger.calls[:2])
        assert ledger.violated_invariants() == set()
        ledger.falsify_call(0, began=2.9)
        assert Invariant.REAL_TIME in ledger.violated_invariants()

    def test_calls_with_one_shared_account_must_commit_in_order(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("first", ALICE, BOB, 50)
        ledger.transfer("second", ALICE, CAROL, 50)
        ledger.falsify_call(0, began=8.0, ended=9.0)
        assert ledger.violated_invariants() == {Invariant.REAL_TIME}


class TestViolation:
    def test_violation_text_has_invariant_rows_and_calls(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("the key")
        ledger.falsify_receipt(version=7)
        (violation,) = check_history(ledger.rows, ledger.calls)
        text = str(violation)
        for part in (Invariant.RECEIPT, str(ledger.transfers[0].id), "the key", "version=7", "number=1"):
            assert part in text


class TestReferences:
    def test_refusal_of_a_used_reference_is_correct(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a", reference="r")
        answer = ledger.transfer("b", reference="r", is_reference_unique=True)
        assert answer == Refusal("REFERENCE_USED", {"account_id": str(ALICE), "reference": "r"})
        assert ledger.violated_invariants() == set()

    def test_reference_used_twice_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a", reference="r")
        ledger.transfer("b", reference="other", is_reference_unique=True)
        ledger.transfers[-1] = replace(ledger.transfers[-1], reference="r")
        assert Invariant.REFERENCE in ledger.violated_invariants()

    def test_refusal_of_a_free_reference_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a", reference="r")
        ledger.transfer("b", reference="r", is_reference_unique=True)
        ledger.transfers[0] = replace(ledger.transfers[0], reference="other")
        assert Invariant.JUSTIFIED in ledger.violated_invariants()

    def test_changed_description_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a", reference="r")
        ledger.transfers[0] = replace(ledger.transfers[0], description="falsified")
        assert Invariant.REQUESTED in ledger.violated_invariants()


class TestFrozen:
    @pytest.mark.parametrize("directions", ["OUTGOING", "ALL"])
    def test_transfer_within_the_period_is_a_violation(self, ledger: ReferenceLedger, directions: str) -> None:
        ledger.transfer("a")
        ledger.frozen.append(FrozenPeriod(ALICE, directions, 0, 0.1, 2, 2.1))
        assert ledger.violated_invariants() == {Invariant.FROZEN}

    @pytest.mark.parametrize(
        "period",
        [
            FrozenPeriod(ALICE, "INCOMING", 0, 0.1, 2, 2.1),
            FrozenPeriod(BOB, "OUTGOING", 0, 0.1, 2, 2.1),
            FrozenPeriod(ALICE, "ALL", 0, 1, 2, 2.1),
            FrozenPeriod(ALICE, "ALL", 0, 0.1, 1, 2.1),
        ],
    )
    def test_transfer_that_may_be_outside_of_the_period_is_correct(
        self, ledger: ReferenceLedger, period: FrozenPeriod
    ) -> None:
        ledger.transfer("a")
        ledger.frozen.append(period)
        assert ledger.violated_invariants() == set()

    def test_refusal_is_justified_only_if_the_account_may_have_been_frozen(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a", recipient=CLOSED)
        refusal = Refusal("ACCOUNT_FROZEN", {"account_id": str(ALICE)}, is_replay=False)
        ledger.falsify_call(answer=refusal)
        ledger.keys[-1] = replace(ledger.keys[-1], refusal=refusal)
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}
        ledger.frozen.append(FrozenPeriod(ALICE, "OUTGOING", 0.5, 1.5, 1.5, 2))
        assert ledger.violated_invariants() == set()


class TestFloors:
    BEFORE = FloorChange(ALICE, Decimal(0), -inf, -inf)

    def test_balance_below_a_floor_that_was_certainly_set_is_a_violation(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a")
        ledger.floors += [self.BEFORE, FloorChange(ALICE, Decimal(95), 0, 0.1)]
        assert ledger.violated_invariants() == {Invariant.FLOOR}

    @pytest.mark.parametrize(
        "change",
        [
            FloorChange(ALICE, Decimal(90), 0, 0.1),
            FloorChange(BOB, Decimal(95), 0, 0.1),
            FloorChange(ALICE, Decimal(95), 0, 1),
            FloorChange(ALICE, Decimal(95), 0, inf),
            FloorChange(ALICE, Decimal(95), 3, 3.1),
        ],
    )
    def test_balance_above_a_possible_floor_is_correct(self, ledger: ReferenceLedger, change: FloorChange) -> None:
        ledger.transfer("a")
        ledger.floors += [self.BEFORE, change]
        assert ledger.violated_invariants() == set()

    def test_balance_below_all_floors_is_a_violation_of_the_rules(self, ledger: ReferenceLedger) -> None:
        ledger.transfer("a")
        ledger.floors.append(FloorChange(ALICE, Decimal(95), -inf, -inf))
        assert ledger.violated_invariants() == {Invariant.FLOOR, Invariant.RULES}

    def test_refusal_is_justified_only_by_a_possible_floor(self, ledger: ReferenceLedger) -> None:
        answer = ledger.transfer("a", amount=150)
        assert isinstance(answer, Refusal)
        assert answer.reason == "INSUFFICIENT_FUNDS"
        ledger.floors += [self.BEFORE, FloorChange(ALICE, Decimal(-20), 0, 0.1)]
        assert ledger.violated_invariants() == {Invariant.JUSTIFIED}
        ledger.floors[-1] = FloorChange(ALICE, Decimal(-20), 0, inf)
        assert ledger.violated_invariants() == set()
