"""What owners were shown is the ledger's entries, each once; a feed is every version, in order."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from loadtests.history.log import Feed
from loadtests.history.model import Law, Violation
from loadtests.history.readers import judge_feeds, judge_pages
from loadtests.history.rows import Entry, Ledger, shown
from tests.unit.loadtests.teller import ALICE, BOB, CAROL, Teller


@pytest.fixture
def ledger() -> Ledger:
    teller = Teller()
    for number in range(4):
        teller.transfer(f"k{number}", amount=number + 1)
    teller.transfer("other", BOB, CAROL, 3)
    return teller.ledger


def pages_of(ledger: Ledger) -> list[Entry]:
    return [entry for entry in ledger.entries if entry.account_id == ALICE]


def laws(violations: Sequence[Violation]) -> list[Law]:
    return [violation.law for violation in violations]


class TestPages:
    def test_that_are_the_ledgers_entries_are_believed_in_any_order(self, ledger: Ledger) -> None:
        assert list(judge_pages(ledger, {ALICE: pages_of(ledger)[::-1]})) == []

    def test_that_show_an_operation_twice_are_not(self, ledger: Ledger) -> None:
        pages = pages_of(ledger)
        (violation,) = judge_pages(ledger, {ALICE: [*pages, pages[1]]})
        assert (violation.law, violation.rows) == (Law.HISTORY, [pages[1]])

    def test_that_lack_one_are_not(self, ledger: Ledger) -> None:
        assert laws(list(judge_pages(ledger, {ALICE: pages_of(ledger)[1:]}))) == [Law.HISTORY]

    def test_that_show_a_wrong_balance_are_not(self, ledger: Ledger) -> None:
        first, *others = pages_of(ledger)
        wrong = replace(first, balance_after=first.balance_after + 1)
        (violation,) = judge_pages(ledger, {ALICE: [wrong, *others]})
        assert set(violation.rows) == {first, wrong}

    def test_come_from_the_api_with_their_sign(self, ledger: Ledger) -> None:
        entry = pages_of(ledger)[0]
        told = {
            "id": str(entry.transfer_id),
            "version": entry.version,
            "direction": "OUT",
            "amount": "1.00",
            "balanceAfter": str(entry.balance_after),
        }
        assert shown(ALICE, told) == entry
        assert shown(ALICE, told | {"direction": "IN"}).amount == Decimal(1)


class TestFeeds:
    def test_that_tell_each_version_once_in_order_are_believed(self, ledger: Ledger) -> None:
        assert list(judge_feeds(ledger, [Feed(ALICE, 1, [2, 3], []), Feed(ALICE, 0, [], [])])) == []

    @pytest.mark.parametrize("versions", [[1, 3], [1, 1, 2], [2, 1], [2, 3], [1, 2, 3, 4, 5]])
    def test_with_a_gap_a_repeat_or_too_much_are_not(self, ledger: Ledger, versions: list[int]) -> None:
        assert laws(list(judge_feeds(ledger, [Feed(ALICE, 0, versions, [])]))) == [Law.FEED]
