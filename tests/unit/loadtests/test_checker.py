"""The judge believes every true history, and names the law that a lie breaks."""

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadtests.history.calls import DEFECT, History, Nothing, Operation, Receipt, Refusal, Snapshot, Unknown, answer_of
from loadtests.history.judge import judge
from loadtests.history.model import Law
from subgraphs.bank import client
from tests.unit.loadtests.teller import ALICE, BOB, CAROL, CLEARING, CLOSED, NOBODY, OPENING, START, Teller
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

WISHES: list[tuple[Operation, str, UUID, UUID, int]] = [
    ("transfer", "a", ALICE, BOB, 60),
    ("transfer", "b", ALICE, BOB, 60),
    ("transfer", "c", ALICE, CAROL, 1),
    ("transfer", "c", ALICE, BOB, 2),
    ("transfer", "d", ALICE, CLOSED, 1),
    ("transfer", "e", BOB, ALICE, 1),
    ("transfer", "f", ALICE, NOBODY, 1),
    ("transfer", "g", ALICE, CLEARING, 1),
    ("deposit", "a", CLEARING, ALICE, 30),
    ("deposit", "b", CLEARING, ALICE, 5),
]


@pytest.fixture
def teller() -> Teller:
    return Teller()


@st.composite
def stories(draw: st.DrawFn) -> Teller:
    """Calls that overlap, are asked again with the same body or another one, get lost on the way there or back."""
    teller = Teller()
    reach, chance = st.floats(0, 4), st.sampled_from([True, True, True, False])
    for _ in range(draw(st.integers(0, 25))):
        if draw(st.integers(0, 5)) == 0:
            teller.look()
        teller.ask(
            *draw(st.sampled_from(WISHES)),
            before=draw(reach),
            after=draw(reach),
            arrives=draw(chance),
            is_told=draw(chance),
        )
    teller.resolve()
    return teller


class TestTrueHistories:
    @given(stories())
    def test_are_believed(self, teller: Teller) -> None:
        assert judge(teller.ledger, teller.calls, teller.snapshots) == []

    @given(stories(), st.data())
    def test_with_any_row_taken_away_are_not(self, teller: Teller, data: st.DataObject) -> None:
        tables = [table for table in (teller.transfers, teller.entries, teller.keys) if table]
        assume(tables)
        table = data.draw(st.sampled_from(tables))
        del table[data.draw(st.integers(0, len(table) - 1))]
        assert teller.broken()

    @given(stories(), st.data())
    def test_with_any_entry_off_by_a_kopeck_are_not(self, teller: Teller, data: st.DataObject) -> None:
        assume(teller.entries)
        place = data.draw(st.integers(0, len(teller.entries) - 1))
        column = data.draw(st.sampled_from(["amount", "balance_after", "version"]))
        entry = teller.entries[place]
        teller.entries[place] = replace(entry, **{column: getattr(entry, column) + Decimal("0.01")})
        assert Law.ENTRIES in teller.broken()

    @given(stories(), st.data())
    def test_with_the_answers_of_two_keys_exchanged_are_not(self, teller: Teller, data: st.DataObject) -> None:
        calls = teller.calls
        told = [n for n, call in enumerate(calls) if not isinstance(call.answer, Unknown)]
        pairs = [
            (a, b)
            for a, b in itertools.combinations(told, 2)
            if calls[a].wish.key != calls[b].wish.key and calls[a].answer != calls[b].answer
        ]
        assume(pairs)
        a, b = data.draw(st.sampled_from(pairs))
        calls[a], calls[b] = replace(calls[a], answer=calls[b].answer), replace(calls[b], answer=calls[a].answer)
        assert teller.broken()


class TestTheLedger:
    def test_with_a_doubled_effect_of_one_key(self, teller: Teller) -> None:
        teller.transfer("k")
        del teller.keys[:]
        teller.transfer("k")
        assert Law.ONE_KEY in teller.broken()

    def test_with_a_key_whose_transfer_is_missing(self, teller: Teller) -> None:
        teller.transfer()
        teller.transfers.clear()
        assert Law.ONE_KEY in teller.broken()

    def test_with_money_that_nobody_asked_to_move(self, teller: Teller) -> None:
        teller.transfer()
        teller.calls.clear()
        assert teller.broken() == {Law.ASKED}

    def test_with_a_refusal_that_nobody_asked_for(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        teller.calls.clear()
        assert teller.broken() == {Law.ASKED}

    def test_with_another_amount_than_was_asked_for(self, teller: Teller) -> None:
        teller.transfer(amount=11, is_told=False)
        call = teller.calls[0]
        teller.lie_of_call(wish=replace(call.wish, body=replace(call.wish.body, amount=Decimal(10))))
        assert Law.ASKED in teller.broken()

    def test_with_a_wrong_balance(self, teller: Teller) -> None:
        teller.transfer()
        teller.lie_of_account(ALICE, balance=OPENING)
        assert teller.broken() == {Law.ACCOUNTS}

    def test_with_a_wrong_version(self, teller: Teller) -> None:
        teller.transfer()
        teller.lie_of_account(BOB, version=2)
        assert teller.broken() == {Law.ACCOUNTS}

    def test_with_a_closed_account_that_holds_money(self, teller: Teller) -> None:
        teller.transfer()
        teller.lie_of_account(BOB, status="CLOSED")
        assert teller.broken() == {Law.ACCOUNTS}

    def test_with_an_entry_of_no_transfer(self, teller: Teller) -> None:
        teller.transfer()
        teller.entries.append(replace(teller.entries[0], version=2))
        assert teller.broken() == {Law.ENTRIES}

    def test_with_a_gap_in_the_versions(self, teller: Teller) -> None:
        teller.transfer()
        teller.transfers[0] = replace(teller.transfers[0], sender_version=2)
        teller.entries[0] = replace(teller.entries[0], version=2)
        assert Law.ORDER in teller.broken()

    def test_with_versions_that_contradict_each_other(self, teller: Teller) -> None:
        teller.transfer("a")
        teller.transfer("b")
        first, second = teller.transfers
        teller.transfers[:] = [replace(first, recipient_version=2), replace(second, recipient_version=1)]
        assert Law.ORDER in teller.broken()

    def test_with_time_that_runs_backwards(self, teller: Teller) -> None:
        teller.transfer("a")
        teller.transfer("b")
        teller.transfers[1] = replace(teller.transfers[1], created_at=START - timedelta(seconds=1))
        assert teller.broken() == {Law.TIME}

    def test_with_an_account_below_its_floor(self, teller: Teller) -> None:
        teller.transfer(amount=70)
        teller.lie_of_account(ALICE, min_balance=Decimal(50))
        assert teller.broken() == {Law.RULES}

    def test_with_a_transfer_of_another_currency(self, teller: Teller) -> None:
        teller.transfer()
        teller.lie_of_account(BOB, currency="USD")
        assert teller.broken() == {Law.RULES}

    def test_with_a_deposit_out_of_somebodys_pocket(self, teller: Teller) -> None:
        teller.deposit()
        teller.lie_of_account(CLEARING, min_balance=Decimal(-1000))
        assert teller.broken() == {Law.RULES}

    def test_with_a_transfer_to_an_account_that_is_not_there(self, teller: Teller) -> None:
        teller.transfer()
        del teller.accounts[BOB]
        assert Law.RULES in teller.broken()

    def test_with_a_sum_that_does_not_add_up(self, teller: Teller) -> None:
        teller.transfer()
        teller.look()
        teller.snapshots.append(Snapshot(2, 2 * OPENING - 10))
        assert teller.broken() == {Law.SNAPSHOT}


class TestAnswers:
    def test_that_acknowledge_what_is_not_there(self, teller: Teller) -> None:
        teller.transfer()
        lost = Teller(calls=teller.calls)
        assert lost.broken() == {Law.ACKNOWLEDGED}

    def test_that_acknowledge_what_was_refused(self, teller: Teller) -> None:
        receipt = teller.transfer("made")
        teller.transfer("refused", amount=1000)
        teller.lie_of_call(answer=receipt)
        assert Law.ACKNOWLEDGED in teller.broken()

    @pytest.mark.parametrize(
        "lie", [{"version": 2}, {"balance_after": Decimal(89)}, {"amount": Decimal(11)}, {"account_id": BOB}]
    )
    def test_that_say_something_else_than_the_ledger(self, teller: Teller, lie: dict[str, Any]) -> None:
        teller.transfer()
        teller.lie_of_receipt(**lie)
        assert teller.broken() == {Law.RECEIPT}

    def test_that_refuse_what_was_made(self, teller: Teller) -> None:
        teller.transfer()
        refusal = {"account_id": str(ALICE), "needed": "10", "available": "5", "currency": "RUB"}
        teller.lie_of_call(answer=Refusal("INSUFFICIENT_FUNDS", refusal))
        assert teller.broken() == {Law.REFUSED}

    def test_that_refuse_and_are_forgotten(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        teller.keys.clear()
        assert teller.broken() == {Law.REFUSED}

    def test_that_differ_between_two_calls_of_one_request(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        teller.transfer(amount=1000)
        said = teller.calls[0].answer
        assert isinstance(said, Refusal)
        teller.lie_of_call(answer=replace(said, metadata={**said.metadata, "available": "99"}))
        assert teller.broken() == {Law.SAME}

    def test_that_name_another_transfer_the_second_time(self, teller: Teller) -> None:
        teller.transfer()
        teller.transfer()
        teller.lie_of_receipt(transfer_id=UUID(int=1))
        assert teller.broken() == {Law.SAME}

    def test_that_acknowledge_two_requests_with_one_key(self, teller: Teller) -> None:
        receipt = teller.transfer(amount=10)
        teller.transfer(amount=11)
        teller.lie_of_call(answer=receipt)
        assert teller.broken() == {Law.CONFLICT}

    def test_that_refuse_two_requests_with_one_key(self, teller: Teller) -> None:
        refusal = teller.transfer(amount=1000)
        teller.transfer(amount=1001)
        teller.lie_of_call(answer=refusal)
        assert teller.broken() == {Law.CONFLICT}

    def test_that_call_the_first_request_a_conflict(self, teller: Teller) -> None:
        teller.transfer()
        teller.lie_of_call(answer=Refusal("IDEMPOTENCY_CONFLICT", {"idempotency_key": "k"}))
        assert teller.broken() == {Law.CONFLICT}

    def test_that_call_every_request_a_conflict(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        teller.transfer(amount=1001)
        teller.lie_of_call(0, answer=teller.calls[1].answer)
        assert teller.broken() == {Law.CONFLICT}

    def test_that_say_nothing_was_done_when_something_was(self, teller: Teller) -> None:
        teller.transfer()
        teller.lie_of_call(answer=Nothing("RESOURCE_EXHAUSTED"))
        assert teller.broken() == {Law.NOTHING}

    def test_that_say_nothing_was_done_are_believed_when_nothing_was(self, teller: Teller) -> None:
        teller.transfer(arrives=False)
        teller.lie_of_call(answer=Nothing("RESOURCE_EXHAUSTED"))
        assert teller.broken() == set()

    def test_that_stay_unknown(self, teller: Teller) -> None:
        teller.transfer(is_told=False)
        assert teller.broken() == {Law.KNOWN}

    def test_that_are_a_defect(self, teller: Teller) -> None:
        teller.transfer(is_told=False)
        teller.lie_of_call(answer=Unknown(DEFECT))
        teller.transfer()
        assert teller.broken() == {Law.DEFECT}


class TestRefusals:
    def test_of_an_amount_that_was_there(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        row, call = teller.keys[0], teller.calls[0]
        assert row.refusal is not None
        false = replace(row.refusal, metadata={**row.refusal.metadata, "available": "7"})
        teller.keys[0] = replace(row, refusal=false)
        teller.calls[0] = replace(call, answer=false)
        assert teller.broken() == {Law.JUSTIFIED}

    def test_of_a_balance_that_had_long_passed(self, teller: Teller) -> None:
        teller.transfer("poor", amount=1000)
        teller.transfer("moves", ALICE, BOB, 30)
        teller.lie_of_call(0, began=3.0, ended=4.0)
        assert teller.broken() == {Law.JUSTIFIED}

    def test_of_a_balance_that_was_yet_to_come(self, teller: Teller) -> None:
        teller.transfer("moves", ALICE, BOB, 30)
        teller.transfer("poor", amount=1000)
        teller.lie_of_call(1, began=0.1, ended=0.2)
        assert teller.broken() == {Law.JUSTIFIED}

    def test_of_a_balance_within_the_call_are_believed(self, teller: Teller) -> None:
        teller.transfer("moves", ALICE, BOB, 30)
        teller.transfer("poor", amount=1000, before=5, after=5)
        teller.transfer("moves on", ALICE, BOB, 30)
        assert teller.broken() == set()

    def test_of_enough(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        call = teller.calls[0]
        teller.lie_of_call(wish=replace(call.wish, body=replace(call.wish.body, amount=Decimal(100))))
        assert teller.broken() == {Law.JUSTIFIED}

    def test_of_an_account_that_is_there(self, teller: Teller) -> None:
        teller.transfer(recipient=NOBODY)
        teller.accounts[NOBODY] = replace(teller.accounts[CAROL], id=NOBODY)
        assert teller.broken() == {Law.JUSTIFIED}

    def test_of_a_closed_account_that_is_open(self, teller: Teller) -> None:
        teller.transfer(recipient=CLOSED)
        teller.lie_of_account(CLOSED, status="OPEN")
        assert teller.broken() == {Law.JUSTIFIED}

    def test_of_a_closed_account_that_is_used_later(self, teller: Teller) -> None:
        teller.transfer("in", ALICE, CAROL, 10)
        teller.transfer("refused", recipient=CLOSED)
        teller.lie_of_call(0, began=5.0, ended=6.0)
        teller.accounts[CLOSED] = replace(teller.accounts.pop(CAROL), id=CLOSED, status="CLOSED")
        made = teller.transfers[0]
        teller.transfers[0] = replace(made, recipient_id=CLOSED)
        teller.entries[1] = replace(teller.entries[1], account_id=CLOSED)
        call = teller.calls[0]
        teller.lie_of_call(0, wish=replace(call.wish, body=replace(call.wish.body, recipient_id=CLOSED)))
        assert Law.JUSTIFIED in teller.broken()

    def test_of_a_currency_that_the_account_has(self, teller: Teller) -> None:
        teller.transfer(amount=1000)
        refusal = Refusal("CURRENCY_MISMATCH", {"account_id": str(BOB), "currency": "RUB"})
        teller.keys[0] = replace(teller.keys[0], refusal=refusal)
        teller.lie_of_call(answer=refusal)
        assert teller.broken() == {Law.JUSTIFIED}


class TestRealTime:
    def test_must_not_be_swapped_by_versions(self, teller: Teller) -> None:
        teller.transfer("first")
        teller.transfer("second")
        teller.lie_of_call(0, began=5.0, ended=6.0)
        violations = judge(teller.ledger, teller.calls)
        assert [violation.law for violation in violations] == [Law.REAL_TIME] * 2  # on Alice's account and on Bob's
        for violation in violations:
            assert list(violation.rows) == teller.transfers
            assert list(violation.calls) == teller.calls

    def test_of_calls_at_once_leaves_the_order_open(self, teller: Teller) -> None:
        teller.transfer("first")
        teller.transfer("second", before=2)
        teller.lie_of_call(0, began=0.5, ended=6.0)
        assert teller.broken() == set()

    def test_of_a_call_whose_answer_was_lost_ends_with_the_answer_to_its_repetition(self, teller: Teller) -> None:
        teller.transfer("first", is_told=False)
        teller.transfer("second")
        teller.transfer("first")
        teller.calls[0], teller.calls[1] = (replace(call, began=call.began + 0.5) for call in teller.calls[:2])
        assert teller.broken() == set()
        teller.lie_of_call(0, began=2.9)
        assert Law.REAL_TIME in teller.broken()

    def test_orders_the_two_accounts_of_a_chain(self, teller: Teller) -> None:
        teller.transfer("first", ALICE, BOB, 50)
        teller.transfer("second", ALICE, CAROL, 50)
        teller.lie_of_call(0, began=8.0, ended=9.0)
        assert teller.broken() == {Law.REAL_TIME}


class TestViolation:
    def test_names_the_law_the_rows_and_the_calls(self, teller: Teller) -> None:
        teller.transfer("the key")
        teller.lie_of_receipt(version=7)
        (violation,) = judge(teller.ledger, teller.calls)
        said = str(violation)
        for part in (Law.RECEIPT, str(teller.transfers[0].id), "the key", "version=7", "number=1"):
            assert part in said


def outcome() -> client.Receipt:
    amount = Money.parse("10")
    transfer = client.Transfer(UUID(int=9), "TRANSFER", ALICE, BOB, amount, START)
    return client.Receipt(transfer, client.Posting(ALICE, 1, Money.parse("90")))


class TestRecord:
    async def test_writes_down_when_each_wish_was_asked_and_how_it_fared(self, teller: Teller) -> None:
        teller.transfer()
        wish, history = teller.calls[0].wish, History(itertools.count(1.0).__next__)

        async def asked() -> list[client.Receipt | WalletError]:
            return [outcome(), Unavailable()]

        assert await history.record([wish, wish], asked()) == [call.answer for call in history.calls]
        assert [(call.number, call.began, call.ended) for call in history.calls] == [(1, 1.0, 2.0), (2, 1.0, 2.0)]
        first, second = (call.answer for call in history.calls)
        assert first == Receipt(UUID(int=9), ALICE, 1, Decimal(90), Decimal(10))
        assert second == Unknown("UNAVAILABLE")
        assert history.unknown() == [wish]

    async def test_of_a_call_that_fails_is_of_all_its_wishes(self, teller: Teller) -> None:
        teller.transfer()
        wish, history = teller.calls[0].wish, History()

        async def shed() -> list[client.Receipt | WalletError]:
            raise ResourceExhausted

        assert await history.record([wish] * 2, shed()) == [Nothing("RESOURCE_EXHAUSTED")] * 2
        assert history.unknown() == []

    async def test_of_a_caller_who_gives_up_is_unknown(self, teller: Teller) -> None:
        teller.transfer()
        wish, history, begun = teller.calls[0].wish, History(), asyncio.Event()

        async def endless() -> list[client.Receipt | WalletError]:
            begun.set()
            await asyncio.Event().wait()
            return []

        recording = asyncio.create_task(history.record([wish], endless()))
        await begun.wait()
        recording.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recording
        assert [call.answer for call in history.calls] == [Unknown("CANCELLED")]

    @pytest.mark.parametrize(
        ("error", "answer"),
        [
            (AccountClosed("a"), Refusal("ACCOUNT_CLOSED", {"account_id": "a"})),
            (Unavailable(), Unknown("UNAVAILABLE")),
            (DeadlineExceeded(), Unknown("DEADLINE_EXCEEDED")),
            (InternalError(), Unknown(DEFECT)),
            (ResourceExhausted(), Nothing("RESOURCE_EXHAUSTED")),
            (PermissionDenied(), Nothing("PERMISSION_DENIED")),
        ],
    )
    def test_tells_what_an_error_says_of_the_ledger(self, error: WalletError, answer: object) -> None:
        assert answer_of(error) == answer
