from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgraphs.card.service.domain import transitions
from subgraphs.card.service.domain.top_up import (
    STATUS_AT,
    AccountRefused,
    DepositConflict,
    Deposited,
    NoPayment,
    Payment,
    PaymentStatus,
    Refusal,
    Result,
    Status,
    Step,
    TopUp,
    Unknown,
)
from tests.unit.card.top_ups import AMOUNT, NOTHING, NOW, payment, top_up
from wallet.money import Money

CAPTURES = 3
CODES = ("KEY_REUSED", "KEY_CANCELLED", "WRONG_STATUS", "REFUSED", "NOT_FOUND", "UNKNOWN_TOKEN")
PAYMENTS = [
    *map(payment, PaymentStatus),
    payment(PaymentStatus.CAPTURED, Money.parse("9.99", "RUB")),
    replace(payment(PaymentStatus.CAPTURED), captured=NOTHING),
]
RESULTS: list[Result] = [
    *PAYMENTS,
    NoPayment(),
    *(Refusal(code, seen) for code, seen in product(CODES, [None, *PAYMENTS])),
    Deposited(UUID(int=7)),
    AccountRefused("ACCOUNT_CLOSED"),
    DepositConflict(),
    Unknown(),
]


def at(step: Step, **given: object) -> TopUp:
    """At the beginning of a step, with what must be known by then."""
    known = {} if step in {Step.AUTHORIZE, Step.RESOLVE, Step.CANCEL} else {"payment_id": "pay_1"}
    known |= {"failure": "ACCOUNT_CLOSED"} if step in {Step.VOID, Step.REFUND} else {}
    return top_up(**({"step": step, "status": STATUS_AT[step]} | known | given))


def after(before: TopUp, result: Result) -> TopUp:
    return transitions.after(before, result, captures=CAPTURES)


class TestAfter:
    @pytest.mark.parametrize(
        ("step", "result", "status", "then", "failure"),
        [
            (Step.AUTHORIZE, payment(PaymentStatus.AUTHORIZED), "AUTHORIZED", Step.CAPTURE, None),
            (Step.AUTHORIZE, payment(PaymentStatus.DECLINED), "DECLINED", None, "DO_NOT_HONOR"),
            (Step.AUTHORIZE, Unknown(), "CREATED", Step.RESOLVE, None),
            (Step.AUTHORIZE, Refusal("KEY_CANCELLED"), "CREATED", Step.CANCEL, None),
            (Step.AUTHORIZE, Refusal("UNKNOWN_TOKEN"), "DECLINED", None, "UNKNOWN_TOKEN"),
            (Step.RESOLVE, payment(PaymentStatus.AUTHORIZED), "AUTHORIZED", Step.CAPTURE, None),
            (Step.RESOLVE, payment(PaymentStatus.DECLINED), "DECLINED", None, "DO_NOT_HONOR"),
            (Step.RESOLVE, NoPayment(), "CREATED", Step.CANCEL, None),
            (Step.CANCEL, NoPayment(), "VOIDED", None, "AUTHORIZATION_UNKNOWN"),
            (Step.CANCEL, payment(PaymentStatus.VOIDED), "VOIDED", None, "AUTHORIZATION_UNKNOWN"),
            (Step.CANCEL, payment(PaymentStatus.DECLINED), "DECLINED", None, "DO_NOT_HONOR"),
            (
                Step.CANCEL,
                Refusal("WRONG_STATUS", payment(PaymentStatus.CAPTURED)),
                "CAPTURED",
                Step.REFUND,
                "AUTHORIZATION_UNKNOWN",
            ),
            (Step.CANCEL, payment(PaymentStatus.AUTHORIZED), "NEEDS_REVIEW", Step.CANCEL, None),
            (Step.CAPTURE, payment(PaymentStatus.CAPTURED), "CAPTURED", Step.DEPOSIT, None),
            (Step.CAPTURE, AccountRefused("ACCOUNT_CLOSED"), "AUTHORIZED", Step.VOID, "ACCOUNT_CLOSED"),
            (Step.CAPTURE, Refusal("REFUSED"), "AUTHORIZED", Step.VOID, "CAPTURE_FAILED"),
            (
                Step.CAPTURE,
                Refusal("WRONG_STATUS", payment(PaymentStatus.VOIDED)),
                "VOIDED",
                None,
                "CAPTURE_FAILED",
            ),
            (Step.DEPOSIT, Deposited(UUID(int=7)), "COMPLETED", None, None),
            (Step.DEPOSIT, AccountRefused("ACCOUNT_CLOSED"), "CAPTURED", Step.REFUND, "ACCOUNT_CLOSED"),
            (Step.DEPOSIT, DepositConflict(), "NEEDS_REVIEW", Step.DEPOSIT, None),
            (Step.VOID, payment(PaymentStatus.VOIDED), "VOIDED", None, "ACCOUNT_CLOSED"),
            (
                Step.VOID,
                Refusal("WRONG_STATUS", payment(PaymentStatus.CAPTURED)),
                "CAPTURED",
                Step.REFUND,
                "ACCOUNT_CLOSED",
            ),
            (
                Step.VOID,
                Refusal("REFUSED", payment(PaymentStatus.AUTHORIZED)),
                "NEEDS_REVIEW",
                Step.VOID,
                "ACCOUNT_CLOSED",
            ),
            (Step.REFUND, payment(PaymentStatus.REFUNDED), "REFUNDED", None, "ACCOUNT_CLOSED"),
            (Step.REFUND, Refusal("REFUSED"), "NEEDS_REVIEW", Step.REFUND, "ACCOUNT_CLOSED"),
        ],
    )
    def test_leads_where_the_result_says(
        self, step: Step, result: Result, status: str, then: Step | None, failure: str | None
    ) -> None:
        now = after(at(step), result)
        assert (now.status, now.step, now.failure, now.attempts) == (status, then, failure, 0)
        assert (now.review is not None) == (status == "NEEDS_REVIEW")

    @pytest.mark.parametrize("step", [Step.RESOLVE, Step.CANCEL, Step.DEPOSIT, Step.VOID, Step.REFUND])
    def test_what_must_become_known_is_tried_for_ever(self, step: Step) -> None:
        now = at(step)
        for attempt in range(1, 200):
            now = after(now, Unknown())
            assert (now.step, now.status, now.attempts) == (step, STATUS_AT[step], attempt)

    def test_a_capture_is_given_up_after_some_attempts(self) -> None:
        now = at(Step.CAPTURE)
        for _ in range(CAPTURES - 1):
            now = after(now, Unknown())
            assert now.step is Step.CAPTURE
        now = after(now, Unknown())
        assert (now.step, now.failure, now.attempts) == (Step.VOID, "CAPTURE_FAILED", 0)

    @pytest.mark.parametrize("step", [step for step in Step if step is not Step.DEPOSIT])
    @pytest.mark.parametrize("wrong", PAYMENTS[-2:])
    def test_sums_that_cannot_be_so_need_a_person(self, step: Step, wrong: Payment) -> None:
        for result in (wrong, Refusal("WRONG_STATUS", wrong)):
            assert after(at(step), result).status is Status.NEEDS_REVIEW

    @given(st.sampled_from(Step), st.lists(st.sampled_from(RESULTS), max_size=30))
    def test_whatever_happens_it_ends_or_can_go_on(self, step: Step, results: list[Result]) -> None:
        now = at(step)
        for result in results:
            if not now.is_under_way:
                break
            now = after(now, result)
            if now.is_final:
                assert now.step is None
                assert (now.failure is None) == (now.status is Status.COMPLETED)
                assert (now.transfer_id is not None) == (now.status is Status.COMPLETED)
            else:
                assert now.step is not None
                assert now.status in {STATUS_AT[now.step], Status.NEEDS_REVIEW}
                assert (now.review is not None) == (now.status is Status.NEEDS_REVIEW)
                assert now.payment_id is not None or now.step in {Step.AUTHORIZE, Step.RESOLVE, Step.CANCEL}
            assert (now.id, now.key, now.amount, now.card) == (top_up().id, top_up().key, AMOUNT, top_up().card)


class World:
    """An acquirer and a bank as the contract has them, of one payment and one account. Chance says what fails."""

    def __init__(self, choose: Callable[[str], bool]) -> None:
        self._choose = choose
        self.status: PaymentStatus | None = None
        self.is_barred = False
        self.is_closed = False
        self.credited = NOTHING
        self.refused: str | None = None

    @property
    def kept(self) -> Money:
        """Captured and not refunded."""
        return AMOUNT if self.status is PaymentStatus.CAPTURED else NOTHING

    def take(self, step: Step) -> Result:
        """One step, whose request or answer may be lost."""
        self.is_closed |= self._choose("the account is closed")
        if self._choose("the request is lost"):
            return Unknown()
        result = self._do(step)
        return Unknown() if self._choose("the answer is lost") else result

    def _do(self, step: Step) -> Result:  # noqa: C901, PLR0911  a line a step
        match step:
            case Step.AUTHORIZE if self.is_barred:
                return Refusal("KEY_CANCELLED")
            case Step.AUTHORIZE:
                declined = self.status is None and self._choose("the card is declined")
                self.status = self.status or (PaymentStatus.DECLINED if declined else PaymentStatus.AUTHORIZED)
                return payment(self.status)
            case Step.RESOLVE:
                return NoPayment() if self.status is None else payment(self.status)
            case Step.CANCEL:
                self.is_barred = True
                if self.status is PaymentStatus.AUTHORIZED:
                    self.status = PaymentStatus.VOIDED
                return NoPayment() if self.status is None else payment(self.status)
            case Step.CAPTURE if self.is_closed:
                return AccountRefused("ACCOUNT_CLOSED")
            case Step.DEPOSIT:
                return self._deposit()
            case Step.CAPTURE:
                return self._change(PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED)
            case Step.VOID:
                return self._change(PaymentStatus.AUTHORIZED, PaymentStatus.VOIDED)
            case Step.REFUND:
                return self._change(PaymentStatus.CAPTURED, PaymentStatus.REFUNDED)

    def _change(self, from_: PaymentStatus, to: PaymentStatus) -> Result:
        assert self.status is not None
        if self.status is to:
            return payment(to)
        if self.status is not from_:
            return Refusal("WRONG_STATUS", payment(self.status))
        if self._choose(f"refuses {to}"):
            return Refusal("REFUSED", payment(self.status))
        self.status = to
        return payment(to)

    def _deposit(self) -> Result:
        if self.credited == NOTHING and self.is_closed:
            self.refused = "ACCOUNT_CLOSED"  # pinned to the key
        if self.refused:
            return AccountRefused(self.refused)
        self.credited = AMOUNT
        return Deposited(UUID(int=7))


class TestMoney:
    @given(st.data())
    def test_what_was_captured_and_not_refunded_is_credited_or_in_progress(self, data: st.DataObject) -> None:
        may_fail = 12  # then all goes well, so that every run ends
        choices = 0

        def choose(what: str) -> bool:
            nonlocal choices
            choices += 1
            return choices < 4 * may_fail and data.draw(st.booleans(), label=what)

        world, now = World(choose), top_up()
        for _ in range(100):
            if not now.is_under_way:
                break
            assert now.step is not None
            now = after(now, world.take(now.step))
            in_progress = world.kept - world.credited
            assert in_progress in {AMOUNT, NOTHING}
            if now.is_final:
                assert in_progress == NOTHING
                assert (world.credited == AMOUNT) == (now.status is Status.COMPLETED)
                assert world.status not in {PaymentStatus.AUTHORIZED, None} or now.status in {
                    Status.VOIDED,
                    Status.DECLINED,
                }
                assert world.status is not PaymentStatus.AUTHORIZED  # nothing is held for nothing
        assert not now.is_under_way
        if now.status is Status.NEEDS_REVIEW:
            assert now.step in {Step.VOID, Step.REFUND}  # refused for good


class TestRetried:
    @pytest.mark.parametrize("step", Step)
    def test_is_back_at_the_step_that_it_stopped_in(self, step: Step) -> None:
        stopped = at(step, status=Status.NEEDS_REVIEW, review="why")
        now = transitions.retried(stopped)
        assert (now.status, now.step, now.review, now.is_under_way) == (STATUS_AT[step], step, None, True)
        assert now.failure == stopped.failure


ENDED: dict[Status, set[PaymentStatus | None]] = {
    Status.COMPLETED: {PaymentStatus.CAPTURED},
    Status.DECLINED: {PaymentStatus.DECLINED, None},
    Status.VOIDED: {PaymentStatus.VOIDED, None},
    Status.REFUNDED: {PaymentStatus.REFUNDED},
}


class TestVerified:
    @pytest.mark.parametrize(("status", "seen"), list(product(ENDED, [*PaymentStatus, None])))
    def test_marks_what_contradicts_and_nothing_else(self, status: Status, seen: PaymentStatus | None) -> None:
        ended = top_up(status=status, step=None, review="as it was")
        now = transitions.verified(ended, NoPayment() if seen is None else payment(seen))
        assert (now.review is None) == (seen in ENDED[status])
        assert replace(now, review=ended.review) == ended

    def test_marks_another_sum(self) -> None:
        other = replace(payment(PaymentStatus.CAPTURED), captured=NOTHING)
        assert transitions.verified(top_up(status=Status.COMPLETED, step=None), other).review

    @pytest.mark.parametrize(
        ("status", "news"),
        [
            (Status.COMPLETED, {PaymentStatus.DECLINED, PaymentStatus.VOIDED, PaymentStatus.REFUNDED}),
            (Status.DECLINED, set(PaymentStatus) - {PaymentStatus.DECLINED}),
            (Status.VOIDED, set(PaymentStatus) - {PaymentStatus.VOIDED}),
            (Status.REFUNDED, {PaymentStatus.DECLINED, PaymentStatus.VOIDED}),
        ],
    )
    def test_is_asked_for_by_what_was_not_on_the_way(self, status: Status, news: set[PaymentStatus]) -> None:
        ended = top_up(status=status, step=None)
        assert {told for told in PaymentStatus if transitions.is_news(ended, told)} == news

    def test_is_news_to_one_that_waits_and_not_to_one_that_is_being_driven(self) -> None:
        assert transitions.is_news(at(Step.CAPTURE, attempts=1), PaymentStatus.CAPTURED)
        assert not transitions.is_news(at(Step.CAPTURE), PaymentStatus.CAPTURED)
        stopped = at(Step.REFUND, status=Status.NEEDS_REVIEW, review="why", attempts=1)
        assert not transitions.is_news(stopped, PaymentStatus.REFUNDED)


class TestBackoff:
    @given(st.integers(1, 10_000), st.floats(0, 1))
    def test_doubles_to_a_cap_and_is_never_less_than_half(self, attempts: int, chance: float) -> None:
        whole = transitions.backoff(attempts, 1.0, first_seconds=0.5, longest_seconds=30)
        assert whole == min(30, 0.5 * 2 ** (min(attempts, 20) - 1))
        assert whole / 2 <= transitions.backoff(attempts, chance, first_seconds=0.5, longest_seconds=30) <= whole


class TestWindow:
    @pytest.mark.parametrize(("seconds", "may"), [(0, True), (60, True), (61, False), (-1, True)])
    def test_a_card_is_charged_while_its_owner_may_be_waiting(self, seconds: int, may: bool) -> None:
        assert transitions.may_authorize(top_up(), NOW + timedelta(seconds=seconds), 60) is may
