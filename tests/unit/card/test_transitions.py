from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subgraphs.card.service.domain import transitions
from subgraphs.card.service.domain.deposit import AccountRefused, DepositConflict, Deposited
from subgraphs.card.service.domain.payment import NoPayment, Payment, PaymentStatus, Refusal
from subgraphs.card.service.domain.top_up import STATUS_BY_STEP, Status, Step, TopUp
from subgraphs.card.service.domain.transitions import Result, Unknown
from tests.unit.card.top_ups import AMOUNT, NOW, ZERO, payment, top_up
from wallet.money import Money

CAPTURES = 3
CODES = ("KEY_REUSED", "KEY_CANCELLED", "WRONG_STATUS", "REFUSED", "NOT_FOUND", "UNKNOWN_TOKEN")
PAYMENTS = [
    *map(payment, PaymentStatus),
    payment(PaymentStatus.CAPTURED, Money.parse("9.99", "RUB")),
    replace(payment(PaymentStatus.CAPTURED), captured=ZERO),
]
RESULTS: list[Result] = [
    *PAYMENTS,
    NoPayment(),
    *(Refusal(code, found) for code, found in product(CODES, [None, *PAYMENTS])),
    Deposited(UUID(int=7)),
    AccountRefused("ACCOUNT_CLOSED"),
    DepositConflict(),
    Unknown(),
]


def top_up_at(step: Step, **overrides: object) -> TopUp:
    """Return a top-up at the start of a step, with the attributes that earlier steps have set."""
    known = {} if step in {Step.AUTHORIZE, Step.RESOLVE, Step.CANCEL} else {"payment_id": "pay_1"}
    known |= {"failure": "ACCOUNT_CLOSED"} if step in {Step.VOID, Step.REFUND} else {}
    return top_up(**({"step": step, "status": STATUS_BY_STEP[step]} | known | overrides))


def apply(before: TopUp, result: Result) -> TopUp:
    return transitions.apply_result(before, result, max_captures=CAPTURES)


class TestApplyResult:
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
    def test_result_of_a_step_leads_to_status_step_and_failure(
        self, step: Step, result: Result, status: str, then: Step | None, failure: str | None
    ) -> None:
        current = apply(top_up_at(step), result)
        assert (current.status, current.step, current.failure, current.attempts) == (status, then, failure, 0)
        assert (current.review is not None) == (status == "NEEDS_REVIEW")

    @pytest.mark.parametrize("step", [Step.RESOLVE, Step.CANCEL, Step.DEPOSIT, Step.VOID, Step.REFUND])
    def test_step_with_unknown_outcome_is_retried_without_limit(self, step: Step) -> None:
        current = top_up_at(step)
        for attempt in range(1, 200):
            current = apply(current, Unknown())
            assert (current.step, current.status, current.attempts) == (step, STATUS_BY_STEP[step], attempt)

    def test_amount_is_released_after_the_maximum_number_of_captures(self) -> None:
        current = top_up_at(Step.CAPTURE)
        for _ in range(CAPTURES - 1):
            current = apply(current, Unknown())
            assert current.step is Step.CAPTURE
        current = apply(current, Unknown())
        assert (current.step, current.failure, current.attempts) == (Step.VOID, "CAPTURE_FAILED", 0)

    @pytest.mark.parametrize("step", [step for step in Step if step is not Step.DEPOSIT])
    @pytest.mark.parametrize("wrong", PAYMENTS[-2:])
    def test_contradictory_amounts_need_a_review(self, step: Step, wrong: Payment) -> None:
        for result in (wrong, Refusal("WRONG_STATUS", wrong)):
            assert apply(top_up_at(step), result).status is Status.NEEDS_REVIEW

    @given(st.sampled_from(Step), st.lists(st.sampled_from(RESULTS), max_size=30))
    def test_any_results_leave_a_consistent_top_up(self, step: Step, results: list[Result]) -> None:
        current = top_up_at(step)
        for result in results:
            if not current.is_in_progress:
                break
            current = apply(current, result)
            if current.is_final:
                assert current.step is None
                assert (current.failure is None) == (current.status is Status.COMPLETED)
                assert (current.transfer_id is not None) == (current.status is Status.COMPLETED)
            else:
                assert current.step is not None
                assert current.status in {STATUS_BY_STEP[current.step], Status.NEEDS_REVIEW}
                assert (current.review is not None) == (current.status is Status.NEEDS_REVIEW)
                assert current.payment_id is not None or current.step in {Step.AUTHORIZE, Step.RESOLVE, Step.CANCEL}
            assert (current.id, current.key, current.amount, current.card) == (
                top_up().id,
                top_up().key,
                AMOUNT,
                top_up().card,
            )


class AcquirerAndBank:
    """Fake acquirer and bank that follow the contract, for one payment. `choose` decides which calls fail."""

    def __init__(self, choose: Callable[[str], bool]) -> None:
        self._choose = choose
        self.status: PaymentStatus | None = None
        self.is_key_cancelled = False
        self.is_frozen = False
        self.credited = ZERO
        self.refused: str | None = None

    @property
    def payment(self) -> Payment | NoPayment:
        """Payment at the acquirer."""
        return NoPayment() if self.status is None else payment(self.status)

    @property
    def kept(self) -> Money:
        """Amount that was captured and not refunded."""
        return AMOUNT if self.status is PaymentStatus.CAPTURED else ZERO

    def call(self, step: Step) -> Result:
        """Call one step. The request or the response may be lost."""
        self.is_frozen ^= self._choose("the account is frozen or thawed")
        if self._choose("the request is lost"):
            return Unknown()
        result = self._do(step)
        return Unknown() if self._choose("the response is lost") else result

    def _do(self, step: Step) -> Result:  # noqa: C901, PLR0911  one line for each step
        match step:
            case Step.AUTHORIZE if self.is_key_cancelled:
                return Refusal("KEY_CANCELLED")
            case Step.AUTHORIZE:
                declined = self.status is None and self._choose("the card is declined")
                self.status = self.status or (PaymentStatus.DECLINED if declined else PaymentStatus.AUTHORIZED)
                return payment(self.status)
            case Step.RESOLVE:
                return NoPayment() if self.status is None else payment(self.status)
            case Step.CANCEL if self.status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED}:
                return Refusal("WRONG_STATUS", payment(self.status))
            case Step.CANCEL:
                self.is_key_cancelled = True
                if self.status is PaymentStatus.AUTHORIZED:
                    self.status = PaymentStatus.VOIDED
                return NoPayment() if self.status is None else payment(self.status)
            case Step.CAPTURE if self.is_frozen:
                return AccountRefused("ACCOUNT_FROZEN")
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
        if self.credited == ZERO and self.is_frozen:
            self.refused = "ACCOUNT_FROZEN"  # the bank stores the refusal with the key
        if self.refused:
            return AccountRefused(self.refused)
        self.credited = AMOUNT
        return Deposited(UUID(int=7))


class TestMoney:
    @given(st.data())
    def test_captured_amount_is_credited_refunded_or_in_progress(self, data: st.DataObject) -> None:
        max_choices = 48  # all later calls succeed, so that every run ends
        choices = 0

        def choose(what: str) -> bool:
            nonlocal choices
            choices += 1
            return choices < max_choices and data.draw(st.booleans(), label=what)

        fakes, current = AcquirerAndBank(choose), top_up()
        for _ in range(100):
            if not current.is_in_progress:
                break
            assert current.step is not None
            current = apply(current, fakes.call(current.step))
            in_progress = fakes.kept - fakes.credited
            assert in_progress in {AMOUNT, ZERO}
            if current.is_final:
                assert in_progress == ZERO
                assert (fakes.credited == AMOUNT) == (current.status is Status.COMPLETED)
                assert fakes.status not in {PaymentStatus.AUTHORIZED, None} or current.status in {
                    Status.VOIDED,
                    Status.DECLINED,
                }
                assert fakes.status is not PaymentStatus.AUTHORIZED  # no amount is still reserved on the card
        assert not current.is_in_progress
        if current.status is Status.NEEDS_REVIEW:
            assert current.step in {Step.VOID, Step.REFUND}  # only these steps need a review if they are refused


@dataclass
class Row:
    """Stored top-up."""

    top_up: TopUp
    version: int = 1


class Driver:
    """Driver of a stored top-up. It has no lease, so any number of drivers make calls at the same time."""

    def __init__(self, row: Row, fakes: AcquirerAndBank) -> None:
        self._row = row
        self._fakes = fakes
        self._version = row.version
        self._top_up = row.top_up

    def advance(self, *, saves_later: bool) -> bool:
        """Make the call of one step, and save its result. Return whether the driver continues.

        Args:
            saves_later: make the next call before the save, if `may_save_later` allows it.
        """
        before = self._top_up
        assert before.step is not None
        self._top_up = apply(before, self._fakes.call(before.step))
        if saves_later and transitions.may_save_later(before, self._top_up):
            return True
        if self._row.version != self._version:
            return False
        self._version += 1
        self._row.top_up, self._row.version = self._top_up, self._version
        return self._top_up.is_in_progress


class TestDrivers:
    @settings(max_examples=500)
    @given(st.data())
    def test_drivers_that_die_and_overlap_leave_the_captured_amount_credited_or_refunded(
        self, data: st.DataObject
    ) -> None:
        max_choices = 80  # all later calls succeed, so that every run ends
        choices = 0

        def choose(what: str) -> bool:
            nonlocal choices
            choices += 1
            return choices < max_choices and data.draw(st.booleans(), label=what)

        fakes, row = AcquirerAndBank(choose), Row(top_up())
        drivers: list[Driver] = []
        while row.top_up.is_in_progress or drivers:
            if row.top_up.is_in_progress and (not drivers or (len(drivers) < 3 and choose("another driver starts"))):
                drivers.append(Driver(row, fakes))
            driver = drivers[-1] if len(drivers) == 1 or choose("the newest driver calls") else drivers[0]
            if not driver.advance(saves_later=choose("the driver saves later")) or choose("the driver dies"):
                drivers.remove(driver)
            assert transitions.find_mismatch(row.top_up, fakes.payment) is None or drivers
        assert fakes.status is not PaymentStatus.AUTHORIZED or row.top_up.status is Status.NEEDS_REVIEW
        if row.top_up.status is not Status.NEEDS_REVIEW:
            assert fakes.kept == fakes.credited
            assert (fakes.credited == AMOUNT) == (row.top_up.status is Status.COMPLETED)
            assert transitions.find_mismatch(row.top_up, fakes.payment) is None

    @pytest.mark.parametrize(
        ("step", "result"),
        [
            (Step.AUTHORIZE, Unknown()),
            (Step.AUTHORIZE, payment(PaymentStatus.DECLINED)),
            (Step.AUTHORIZE, payment(PaymentStatus.CAPTURED)),
            (Step.AUTHORIZE, payment(PaymentStatus.AUTHORIZED, Money.parse("9.99", "RUB"))),
            (Step.RESOLVE, payment(PaymentStatus.AUTHORIZED)),
            (Step.CAPTURE, payment(PaymentStatus.CAPTURED)),
            (Step.CAPTURE, AccountRefused("ACCOUNT_CLOSED")),
            (Step.VOID, payment(PaymentStatus.VOIDED)),
            (Step.DEPOSIT, AccountRefused("ACCOUNT_CLOSED")),
        ],
    )
    def test_result_is_saved_before_any_call_but_a_capture(self, step: Step, result: Result) -> None:
        before = top_up_at(step)
        assert not transitions.may_save_later(before, apply(before, result))

    def test_capture_may_follow_its_authorization_before_the_save(self) -> None:
        before = top_up_at(Step.AUTHORIZE)
        assert transitions.may_save_later(before, apply(before, payment(PaymentStatus.AUTHORIZED)))


class TestRetryReviewed:
    @pytest.mark.parametrize("step", Step)
    def test_retried_top_up_is_at_the_step_at_which_it_stopped(self, step: Step) -> None:
        stopped = top_up_at(step, status=Status.NEEDS_REVIEW, review="reason")
        current = transitions.retry_reviewed(stopped)
        assert (current.status, current.step, current.review, current.is_in_progress) == (
            STATUS_BY_STEP[step],
            step,
            None,
            True,
        )
        assert current.failure == stopped.failure


AGREEING_STATUSES: dict[Status, set[PaymentStatus | None]] = {
    Status.COMPLETED: {PaymentStatus.CAPTURED},
    Status.DECLINED: {PaymentStatus.DECLINED, None},
    Status.VOIDED: {PaymentStatus.VOIDED, None},
    Status.REFUNDED: {PaymentStatus.REFUNDED},
}


class TestVerify:
    @pytest.mark.parametrize(("status", "found"), list(product(AGREEING_STATUSES, [*PaymentStatus, None])))
    def test_only_a_contradicting_payment_marks_for_review(self, status: Status, found: PaymentStatus | None) -> None:
        ended = top_up(status=status, step=None, review="earlier reason")
        current = transitions.verify(ended, NoPayment() if found is None else payment(found))
        assert (current.review is None) == (found in AGREEING_STATUSES[status])
        assert replace(current, review=ended.review) == ended

    def test_different_amount_marks_for_review(self) -> None:
        other = replace(payment(PaymentStatus.CAPTURED), captured=ZERO)
        assert transitions.verify(top_up(status=Status.COMPLETED, step=None), other).review


class TestNeedsAcquirerCall:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (Status.COMPLETED, {PaymentStatus.DECLINED, PaymentStatus.VOIDED, PaymentStatus.REFUNDED}),
            (Status.DECLINED, set(PaymentStatus) - {PaymentStatus.DECLINED}),
            (Status.VOIDED, set(PaymentStatus) - {PaymentStatus.VOIDED}),
            (Status.REFUNDED, {PaymentStatus.DECLINED, PaymentStatus.VOIDED}),
        ],
    )
    def test_reported_status_that_a_final_payment_never_had_needs_a_call(
        self, status: Status, expected: set[PaymentStatus]
    ) -> None:
        ended = top_up(status=status, step=None)
        assert {status for status in PaymentStatus if transitions.needs_acquirer_call(ended, status)} == expected

    def test_webhook_needs_a_call_only_for_a_top_up_that_waits_for_a_retry(self) -> None:
        assert transitions.needs_acquirer_call(top_up_at(Step.CAPTURE, attempts=1), PaymentStatus.CAPTURED)
        assert not transitions.needs_acquirer_call(top_up_at(Step.CAPTURE), PaymentStatus.CAPTURED)
        stopped = top_up_at(Step.REFUND, status=Status.NEEDS_REVIEW, review="reason", attempts=1)
        assert not transitions.needs_acquirer_call(stopped, PaymentStatus.REFUNDED)


class TestRetryDelay:
    @given(st.integers(1, 10_000), st.floats(0, 1))
    def test_delay_doubles_up_to_a_maximum_with_equal_jitter(self, attempts: int, jitter: float) -> None:
        bound = transitions.retry_delay(attempts, 1.0, first_seconds=0.5, longest_seconds=30)
        assert bound == min(30, 0.5 * 2 ** (min(attempts, 20) - 1))
        assert bound / 2 <= transitions.retry_delay(attempts, jitter, first_seconds=0.5, longest_seconds=30) <= bound


class TestMayAuthorize:
    @pytest.mark.parametrize(("seconds", "is_allowed"), [(0, True), (60, True), (61, False), (-1, True)])
    def test_card_is_authorized_only_within_the_window(self, seconds: int, is_allowed: bool) -> None:
        assert transitions.may_authorize(top_up(), NOW + timedelta(seconds=seconds), 60) is is_allowed

    @pytest.mark.parametrize(("seconds", "is_allowed"), [(0, True), (60, True), (61, False), (-60, True), (-61, False)])
    def test_date_in_the_future_does_not_extend_the_window(self, seconds: int, is_allowed: bool) -> None:
        future = top_up(created_at=NOW + timedelta(days=365))
        assert transitions.may_authorize(future, NOW + timedelta(seconds=seconds), 60) is is_allowed
