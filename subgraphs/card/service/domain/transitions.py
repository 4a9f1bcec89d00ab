"""State machine of a top-up. Pure functions of values: no clock, no randomness, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from subgraphs.card.service.domain.deposit import AccountRefused, Deposit, DepositConflict, Deposited
from subgraphs.card.service.domain.payment import NoPayment, Payment, PaymentStatus, Refusal
from subgraphs.card.service.domain.top_up import STATUS_BY_STEP, Status, Step, TopUp
from wallet.errors import AccountNotFound

AUTHORIZATION_UNKNOWN: Final = "AUTHORIZATION_UNKNOWN"
"""Failure after an authorization with an unknown outcome, which was then cancelled."""

CAPTURE_FAILED: Final = "CAPTURE_FAILED"
"""Failure after captures that were refused or had an unknown outcome."""

DEPOSIT_LOST: Final = "DEPOSIT_LOST"
"""Failure of a top-up that was completed, lost its deposit in a restore of the ledger, and was refunded."""

MAX_DELAY_SECONDS: Final = 60.0
"""Bound of the time until a top-up's next attempt, at least twice the longest lease or retry delay.

If the stored time is further ahead, the clock of the database was ahead when the time was stored. The top-up is due at
once then.
"""

_ALL_STATUSES: Final = frozenset(PaymentStatus)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The outcome of a step is unknown. Calling the step again with the same key is safe."""


Result = Payment | NoPayment | Refusal | Deposited | AccountRefused | DepositConflict | Unknown
"""Result of a step."""

_STATUSES_AFTER: Final[Mapping[Step, frozenset[PaymentStatus]]] = {
    Step.AUTHORIZE: _ALL_STATUSES,
    Step.RESOLVE: _ALL_STATUSES,
    Step.CANCEL: _ALL_STATUSES - {PaymentStatus.AUTHORIZED},
    Step.CAPTURE: frozenset({PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.REFUNDED}),
    Step.VOID: frozenset({PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.REFUNDED}),
    Step.REFUND: frozenset({PaymentStatus.REFUNDED}),
}
"""Possible statuses of the payment after a step. A second driver (a task that makes the top-up's calls) may have called
later steps already, so statuses after these steps are possible too. Any other status is a contradiction."""


def apply_result(top_up: TopUp, result: Result, *, max_captures: int) -> TopUp:  # noqa: PLR0911  one line for each case
    """Return the top-up after the result of its step. All results of all steps are handled.

    Args:
        top_up: top-up in progress.
        result: result of its step.
        max_captures: number of captures with an unknown outcome after which the amount is released.
    """
    step = top_up.step
    assert step is not None  # noqa: S101  a top-up in progress has a step
    match result:
        case Unknown():
            return _after_unknown(top_up, step, max_captures)
        case Payment():
            return _after_payment(top_up, step, result)
        case NoPayment() if step is Step.RESOLVE:
            return _at_step(top_up, Step.CANCEL)
        case NoPayment() if step is Step.CANCEL:
            return _ended(top_up, Status.VOIDED, AUTHORIZATION_UNKNOWN)
        case Refusal():
            return _after_refusal(top_up, step, result)
        case AccountRefused(reason) if step is Step.CAPTURE:
            return _at_step(top_up, Step.VOID, failure=reason)
        case AccountRefused(reason) if step is Step.DEPOSIT:
            return _at_step(top_up, Step.REFUND, failure=reason)
        case Deposited(transfer_id) if step is Step.DEPOSIT:
            return replace(_ended(top_up, Status.COMPLETED, None), transfer_id=transfer_id)
        case DepositConflict() if step is Step.DEPOSIT:
            return _for_review(top_up, "the bank rejects the deposit as invalid, or has another request with its key")
    return _for_review(top_up, f"unexpected result {type(result).__name__} of step {step}")


def may_save_later(before: TopUp, after: TopUp) -> bool:
    """Return whether the call of the next step may be made before the result of this step is saved.

    Only a capture may directly follow its authorization. If the process dies meanwhile, the row is still at AUTHORIZE,
    and the repeated authorization returns the payment in its current state. A deposit never may: the saved step DEPOSIT
    ensures that no other driver refunds the payment (ADR 49).

    Args:
        before: top-up before the step.
        after: top-up after the step.
    """
    return before.step is Step.AUTHORIZE and after.step is Step.CAPTURE and after.status is Status.AUTHORIZED


def _after_unknown(top_up: TopUp, step: Step, max_captures: int) -> TopUp:
    if step is Step.AUTHORIZE:
        return _at_step(top_up, Step.RESOLVE)
    if step is Step.CAPTURE and top_up.attempts + 1 >= max_captures:
        return _at_step(top_up, Step.VOID, failure=CAPTURE_FAILED)
    return replace(top_up, attempts=top_up.attempts + 1)


def _after_payment(top_up: TopUp, step: Step, payment: Payment) -> TopUp:  # noqa: PLR0911  one line for each case
    contradiction = _find_contradiction(top_up, payment)
    if contradiction or payment.status not in _STATUSES_AFTER.get(step, ()):
        return _for_review(top_up, contradiction or f"the acquirer's payment is {payment.status} at step {step}")
    updated = replace(top_up, payment_id=payment.id)
    failure = top_up.failure or (CAPTURE_FAILED if step is Step.CAPTURE else AUTHORIZATION_UNKNOWN)
    match payment.status:
        case PaymentStatus.AUTHORIZED:
            return _at_step(updated, Step.CAPTURE)
        case PaymentStatus.DECLINED:
            return _ended(updated, Status.DECLINED, payment.decline_code or PaymentStatus.DECLINED)
        case PaymentStatus.CAPTURED if step in {Step.CANCEL, Step.VOID}:
            return _at_step(updated, Step.REFUND, failure=failure)
        case PaymentStatus.CAPTURED:
            return _at_step(updated, Step.DEPOSIT)
        case PaymentStatus.VOIDED:
            return _ended(updated, Status.VOIDED, failure)
        case PaymentStatus.REFUNDED:
            return _ended(updated, Status.REFUNDED, failure)


def _after_refusal(top_up: TopUp, step: Step, refusal: Refusal) -> TopUp:
    payment = refusal.payment
    if payment is not None and payment.status in _STATUSES_AFTER.get(step, ()):
        return _after_payment(top_up, step, payment)  # another driver has already called this step
    match step, refusal.code:
        case Step.AUTHORIZE, "KEY_CANCELLED":
            return _at_step(top_up, Step.CANCEL)
        case Step.AUTHORIZE, code if code != "KEY_REUSED":
            return _ended(top_up, Status.DECLINED, code)
        case Step.CAPTURE, code if code != "KEY_REUSED":
            return _at_step(top_up, Step.VOID, failure=CAPTURE_FAILED)
        case _, code:
            return _for_review(top_up, f"the acquirer refuses to {step.lower()}: {code}")


def _find_contradiction(top_up: TopUp, payment: Payment) -> str | None:
    """Return a description of the payment if its amounts contradict its status or the top-up."""
    zero = top_up.amount - top_up.amount
    captured = top_up.amount if payment.status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED} else zero
    refunded = top_up.amount if payment.status is PaymentStatus.REFUNDED else zero
    if (payment.amount, payment.captured, payment.refunded) == (top_up.amount, captured, refunded):
        return None
    return (
        f"the acquirer's payment is {payment.status} over {payment.amount} {payment.amount.currency}, "
        f"captured {payment.captured}, refunded {payment.refunded}"
    )


def _at_step(top_up: TopUp, step: Step, failure: str | None = None) -> TopUp:
    """Return the top-up at the start of another step. An earlier failure is kept."""
    return replace(top_up, status=STATUS_BY_STEP[step], step=step, attempts=0, failure=top_up.failure or failure)


def _ended(top_up: TopUp, status: Status, failure: str | None) -> TopUp:
    return replace(top_up, status=status, step=None, attempts=0, failure=failure)


def _for_review(top_up: TopUp, reason: str) -> TopUp:
    return replace(top_up, status=Status.NEEDS_REVIEW, attempts=0, review=reason)


def retry_reviewed(top_up: TopUp) -> TopUp:
    """Return the top-up for a retry after a manual review.

    The top-up is again at the step at which it stopped. Its calls to the acquirer have new keys, because the acquirer
    repeats its refusal for an old key; the key of the authorization never changes. A final top-up is returned
    unchanged: the caller compares it with the acquirer's payment again.
    """
    if top_up.step is None:
        return top_up
    return replace(top_up, status=STATUS_BY_STEP[top_up.step], attempts=0, retries=top_up.retries + 1, review=None)


def review_missing_deposit(top_up: TopUp) -> TopUp:
    """Return a completed top-up, marked for review because the ledger lacks its deposit."""
    return replace(top_up, review=f"{top_up.status}, but the ledger has no deposit {top_up.transfer_id}")


def after_second_deposit(top_up: TopUp, result: Deposited | AccountRefused | DepositConflict) -> TopUp:
    """Return a completed top-up after another attempt at its deposit. It stays under review if the bank refused."""
    match result:
        case Deposited():
            return replace(top_up, transfer_id=result.transfer_id, review=None)
        case AccountRefused(AccountNotFound.reason):
            reason = (
                f"the bank refuses another deposit: {result.reason}; "
                "retry after the account is opened again, or refund the payment at the acquirer"
            )
        case AccountRefused():
            reason = f"the bank refuses another deposit: {result.reason}; refund the payment at the acquirer"
        case _:
            reason = "the ledger has another deposit with its key"
    return replace(top_up, review=f"{top_up.status}, but {reason}")


def refund_without_deposit(top_up: TopUp, payment: Payment | NoPayment) -> TopUp:
    """Return a completed top-up without a deposit as refunded, or unchanged if its payment is not refunded in full."""
    if (
        isinstance(payment, NoPayment)
        or payment.status is not PaymentStatus.REFUNDED
        or _find_contradiction(top_up, payment)
    ):
        return top_up
    return replace(_ended(top_up, Status.REFUNDED, DEPOSIT_LOST), transfer_id=None, review=None)


_FINAL_PAYMENT_STATUSES: Final[Mapping[Status, frozenset[PaymentStatus]]] = {
    Status.COMPLETED: frozenset({PaymentStatus.CAPTURED}),
    Status.DECLINED: frozenset({PaymentStatus.DECLINED}),
    Status.VOIDED: frozenset({PaymentStatus.VOIDED}),
    Status.REFUNDED: frozenset({PaymentStatus.REFUNDED}),
}
"""Status of the payment that agrees with a final top-up."""

_EARLIER_PAYMENT_STATUSES: Final[Mapping[Status, frozenset[PaymentStatus]]] = {
    Status.COMPLETED: frozenset({PaymentStatus.AUTHORIZED}),
    Status.DECLINED: frozenset(),
    Status.VOIDED: frozenset(),
    Status.REFUNDED: frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED}),
}
"""Statuses that the payment of a final top-up must have had before the top-up became final. A webhook that reports one
of them is only late. AUTHORIZED is missing for VOIDED: if the response to the authorization was lost, the top-up may
have been voided without a payment."""


def verify(top_up: TopUp, payment: Payment | NoPayment) -> TopUp:
    """Return a final top-up, marked for review only if the acquirer's payment contradicts it."""
    if isinstance(payment, NoPayment):
        agrees = top_up.status in {Status.DECLINED, Status.VOIDED}
        return replace(top_up, review=None if agrees else f"{top_up.status}, but the acquirer has no payment")
    contradiction = _find_contradiction(top_up, payment)
    if contradiction is None and payment.status not in _FINAL_PAYMENT_STATUSES[top_up.status]:
        contradiction = f"the acquirer's payment is {payment.status}"
    return replace(top_up, review=contradiction and f"{top_up.status}, but {contradiction}")


_STATUSES_AT: Final[Mapping[Step, frozenset[PaymentStatus | None]]] = {
    Step.AUTHORIZE: frozenset({None, PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.CAPTURED}),
    Step.RESOLVE: frozenset({None, PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.CAPTURED}),
    Step.CANCEL: frozenset({None, PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.VOIDED}),
    Step.CAPTURE: frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED}),
    Step.VOID: frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED, PaymentStatus.VOIDED}),
    Step.DEPOSIT: frozenset({PaymentStatus.CAPTURED}),
    Step.REFUND: frozenset({PaymentStatus.CAPTURED, PaymentStatus.REFUNDED}),
}
"""Possible statuses of the payment while its top-up is at a step, before or after the step's call. None: no payment.

CAPTURED is possible at AUTHORIZE, because a capture may follow before the authorization is saved (`may_save_later`). It
is possible at RESOLVE if the process died meanwhile.
"""


def find_mismatch(top_up: TopUp, payment: Payment | NoPayment) -> str | None:
    """Return a description of the acquirer's payment if it contradicts the current state of the top-up."""
    if top_up.step is None:
        return verify(top_up, payment).review
    if isinstance(payment, NoPayment):
        return None if None in _STATUSES_AT[top_up.step] else "the acquirer has no payment"
    if payment.status not in _STATUSES_AT[top_up.step]:
        return f"the acquirer's payment is {payment.status}"
    return _find_contradiction(top_up, payment)


def matches_deposit(top_up: TopUp, deposit: Deposit) -> bool:
    """Return whether the deposit has completed the top-up, or may be about to complete it."""
    if (top_up.account_id, top_up.amount) != (deposit.account_id, deposit.amount):
        return False
    return top_up.transfer_id == deposit.transfer_id or top_up.step is Step.DEPOSIT


def needs_acquirer_call(top_up: TopUp, reported: PaymentStatus) -> bool:
    """Return whether a webhook is a reason to call the acquirer. Webhooks may be late and out of order.

    If the top-up is in progress, a call is needed only after an attempt at its step with an unknown outcome. Before
    such an attempt, a driver (a task that makes the top-up's calls) is working on the top-up.

    Args:
        top_up: current state.
        reported: status of the payment according to the webhook.
    """
    if top_up.is_final:
        return reported not in _FINAL_PAYMENT_STATUSES[top_up.status] | _EARLIER_PAYMENT_STATUSES[top_up.status]
    return top_up.is_in_progress and top_up.attempts > 0


def may_authorize(top_up: TopUp, now: datetime, window_seconds: float) -> bool:
    """Return whether the top-up is recent enough to authorize its card.

    If `created_at` is in the future, the time in the id counts, because the clock of the database may be wrong. If that
    time is in the future too, it must be within the window as well.
    """
    created_at = top_up.created_at if top_up.created_at <= now else top_up.requested_at
    return abs(now - created_at).total_seconds() <= window_seconds


def retry_delay(attempts: int, jitter: float, *, first_seconds: float, longest_seconds: float) -> float:
    """Return the seconds until the next attempt: exponential with equal jitter, like `kit.runtime.backoff.Backoff`.

    `Backoff` keeps its bound in memory. This function computes the bound from the stored number of attempts, because
    another process may make the next attempt.

    Args:
        attempts: attempts with an unknown outcome, 1 or more.
        jitter: random number from 0 to 1.
        first_seconds: bound of the first delay; it doubles with each attempt.
        longest_seconds: maximum of the bound.
    """
    bound = min(longest_seconds, first_seconds * 2.0 ** min(attempts - 1, 32))
    return bound * (0.5 + jitter / 2)
