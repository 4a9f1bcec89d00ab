"""Checks of the operations that readers received, in pages and over subscriptions."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from uuid import UUID

from loadtests.history.model import Invariant, Row, Violation
from loadtests.history.rows import Entry, LedgerRows
from loadtests.history.storage import SubscriptionRecord


def check_operations(ledger: LedgerRows, operations: Mapping[UUID, Sequence[Entry]]) -> Iterator[Violation]:
    """Yield a violation for each account with operations that are missing, repeated or wrong.

    Args:
        ledger: rows, read after the last call.
        operations: operations that readers received, by account. They were read again until the list was complete, or
            until a time-out.
    """
    expected: dict[UUID, list[Entry]] = {id_: [] for id_ in operations}
    for entry in ledger.entries:
        if entry.account_id in expected:
            expected[entry.account_id].append(entry)
    for id_, received in operations.items():
        wrong = (Counter(received) - Counter(expected[id_])) + (Counter(expected[id_]) - Counter(received))
        if wrong:
            rows: list[Row] = [*sorted(wrong, key=attrgetter("version"))]
            yield Violation(Invariant.OPERATIONS, rows)


def check_subscriptions(ledger: LedgerRows, subscriptions: Iterable[SubscriptionRecord]) -> Iterator[Violation]:
    """Yield a violation for each subscription with a gap, a repetition or a version that does not exist."""
    versions = {account.id: account.version for account in ledger.accounts}
    for each in subscriptions:
        last = each.after + len(each.versions)
        if list(each.versions) != list(range(each.after + 1, last + 1)) or last > versions.get(each.account_id, 0):
            yield Violation(Invariant.SUBSCRIPTION, [], [each])
