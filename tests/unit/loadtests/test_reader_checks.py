"""Checks of the operations that readers received, in pages and over subscriptions."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from loadtests.history.model import Invariant, Violation
from loadtests.history.reader_checks import check_operations, check_subscriptions
from loadtests.history.rows import Entry, LedgerRows, entry_from_rest
from loadtests.history.storage import SubscriptionRecord
from tests.unit.loadtests.reference_ledger import ALICE, BOB, CAROL, ReferenceLedger


@pytest.fixture
def rows() -> LedgerRows:
    ledger = ReferenceLedger()
    for number in range(4):
        ledger.transfer(f"k{number}", amount=number + 1)
    ledger.transfer("other", BOB, CAROL, 3)
    return ledger.rows


def entries_of_alice(rows: LedgerRows) -> list[Entry]:
    return [entry for entry in rows.entries if entry.account_id == ALICE]


def invariants(violations: Sequence[Violation]) -> list[Invariant]:
    return [violation.invariant for violation in violations]


class TestCheckOperations:
    def test_matching_operations_are_accepted_in_any_order(self, rows: LedgerRows) -> None:
        assert list(check_operations(rows, {ALICE: entries_of_alice(rows)[::-1]})) == []

    def test_repeated_operation_is_a_violation(self, rows: LedgerRows) -> None:
        entries = entries_of_alice(rows)
        (violation,) = check_operations(rows, {ALICE: [*entries, entries[1]]})
        assert (violation.invariant, violation.rows) == (Invariant.OPERATIONS, [entries[1]])

    def test_missing_operation_is_a_violation(self, rows: LedgerRows) -> None:
        violations = list(check_operations(rows, {ALICE: entries_of_alice(rows)[1:]}))
        assert invariants(violations) == [Invariant.OPERATIONS]

    def test_wrong_balance_is_a_violation(self, rows: LedgerRows) -> None:
        first, *others = entries_of_alice(rows)
        wrong = replace(first, balance_after=first.balance_after + 1)
        (violation,) = check_operations(rows, {ALICE: [wrong, *others]})
        assert set(violation.rows) == {first, wrong}

    def test_rest_operation_converts_to_a_signed_entry(self, rows: LedgerRows) -> None:
        entry = entries_of_alice(rows)[0]
        operation = {
            "id": str(entry.transfer_id),
            "version": entry.version,
            "direction": "OUT",
            "amount": "1.00",
            "balanceAfter": str(entry.balance_after),
        }
        assert entry_from_rest(ALICE, operation) == entry
        assert entry_from_rest(ALICE, operation | {"direction": "IN"}).amount == Decimal(1)


class TestCheckSubscriptions:
    def test_consecutive_versions_are_accepted(self, rows: LedgerRows) -> None:
        subscriptions = [SubscriptionRecord(ALICE, 1, [2, 3], []), SubscriptionRecord(ALICE, 0, [], [])]
        assert list(check_subscriptions(rows, subscriptions)) == []

    @pytest.mark.parametrize("versions", [[1, 3], [1, 1, 2], [2, 1], [2, 3], [1, 2, 3, 4, 5]])
    def test_gap_repetition_or_nonexistent_version_is_a_violation(self, rows: LedgerRows, versions: list[int]) -> None:
        violations = list(check_subscriptions(rows, [SubscriptionRecord(ALICE, 0, versions, [])]))
        assert invariants(violations) == [Invariant.SUBSCRIPTION]
