"""What top-ups ask of the ledger, and a ledger of which only some accounts are looked at."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from loadtests.history.calls import Answer, Body, Call, Key, Nothing, Receipt, TopUp, Unknown, Wish, deposits, unknown
from loadtests.history.judge import judge
from loadtests.history.model import Law
from loadtests.history.rows import Ledger
from tests.unit.loadtests.teller import ALICE, BOB, CLEARING, Teller

ID, MADE = UUID(int=50), UUID(int=60)
WISH = Wish(Key("issuer|alice", "top-up", "card-k"), Body(CLEARING, ALICE, Decimal(10)), None)


def asked(*answers: Answer) -> list[Call]:
    return [Call(n, WISH, n, n + 0.5, answer) for n, answer in enumerate(answers, 1)]


class TestDeposits:
    def test_of_a_completed_top_up_lie_between_the_first_call_and_the_first_word_of_it(self) -> None:
        (call,) = deposits(asked(Unknown("UNAVAILABLE"), TopUp(ID, "CREATED"), *[TopUp(ID, "COMPLETED", MADE)] * 2))
        assert (call.began, call.ended) == (1, 3.5)
        assert call.wish.key == Key("card", "deposit", str(ID))
        assert call.answer == Receipt(MADE, ALICE, None, None, Decimal(10))

    def test_of_a_declined_one_there_are_none(self) -> None:
        (call,) = deposits(asked(Unknown("UNAVAILABLE"), TopUp(ID, "DECLINED")))
        assert call.answer == Nothing("DECLINED")

    def test_of_one_that_was_refused_outright_nothing_is_known_or_asked(self) -> None:
        assert deposits(asked(Nothing("TOP_UP_LIMIT_EXCEEDED"))) == []

    def test_of_one_that_nobody_knows_are_unknown(self) -> None:
        (call,) = deposits(asked(TopUp(ID, "CAPTURED")))
        assert isinstance(call.answer, Unknown)

    def test_leave_other_calls_as_they_are(self) -> None:
        teller = Teller()
        teller.transfer()
        assert deposits(teller.calls) == teller.calls


class TestUnknown:
    def test_is_a_top_up_that_has_not_come_to_its_end(self) -> None:
        assert unknown(asked(TopUp(ID, "CAPTURED"))) == [WISH]

    def test_is_not_one_that_has(self) -> None:
        for status in ("COMPLETED", "DECLINED", "VOIDED", "REFUNDED"):
            assert unknown(asked(TopUp(ID, "CREATED"), TopUp(ID, status))) == []


class TestSomeAccounts:
    """Of the clearing account, which everybody uses, no book is kept."""

    @staticmethod
    def cut(teller: Teller) -> Ledger:
        whole = teller.ledger
        return replace(
            whole,
            accounts=[account for account in whole.accounts if account.id != CLEARING],
            entries=[entry for entry in whole.entries if entry.account_id != CLEARING],
            outside=frozenset({CLEARING}),
        )

    def test_with_deposits_from_outside_are_believed(self) -> None:
        teller = Teller()
        teller.deposit("a")
        teller.transfer("b", BOB, ALICE, 5)
        teller.deposit("c", ALICE)
        teller.transfers[-1] = replace(teller.transfers[-1], sender_version=99)  # others were at it
        assert judge(self.cut(teller), teller.calls) == []

    def test_with_a_deposit_that_nobody_asked_for_are_not(self) -> None:
        teller = Teller()
        teller.deposit("a")
        teller.calls.clear()
        assert {violation.law for violation in judge(self.cut(teller), teller.calls)} == {Law.ASKED}

    def test_with_a_transfer_from_outside_that_is_no_deposit_are_not(self) -> None:
        teller = Teller()
        teller.deposit("a")
        teller.transfers[-1] = replace(teller.transfers[-1], kind="TRANSFER")
        assert Law.RULES in {violation.law for violation in judge(self.cut(teller), teller.calls)}

    def test_with_a_receipt_that_tells_less_are_judged_by_what_it_tells(self) -> None:
        teller = Teller()
        teller.transfer()
        teller.lie_of_receipt(version=None, balance_after=None)
        assert judge(teller.ledger, teller.calls) == []
        teller.lie_of_receipt(balance_after=Decimal(1))
        assert {violation.law for violation in judge(teller.ledger, teller.calls)} == {Law.RECEIPT}
