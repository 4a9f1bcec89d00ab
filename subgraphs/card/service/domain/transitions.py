"""What becomes of a top-up: pure functions of values. No clock, no chance, no I/O."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from subgraphs.card.service.domain.top_up import (
    STATUS_AT,
    AccountRefused,
    Deposit,
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

AUTHORIZATION_UNKNOWN: Final = "AUTHORIZATION_UNKNOWN"
"""The failure of a top-up whose authorization could not be learned, and was cancelled."""

CAPTURE_FAILED: Final = "CAPTURE_FAILED"
"""The failure of a top-up whose sum could not be taken from the card."""

_SEEN_AT: Final[Mapping[Step, frozenset[PaymentStatus]]] = {
    Step.AUTHORIZE: frozenset(PaymentStatus),
    Step.RESOLVE: frozenset(PaymentStatus),
    Step.CANCEL: frozenset(PaymentStatus) - {PaymentStatus.AUTHORIZED},
    Step.CAPTURE: frozenset({PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.REFUNDED}),
    Step.VOID: frozenset({PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.REFUNDED}),
    Step.REFUND: frozenset({PaymentStatus.REFUNDED}),
}
"""What a payment can be after a step was taken, whoever else took it before. Anything else is a contradiction."""


def after(top_up: TopUp, result: Result, *, captures: int) -> TopUp:  # noqa: PLR0911  a table: a line a case
    """The top-up after its step had this result. It is total: every result of every step leads somewhere.

    Args:
        top_up: one that is under way.
        result: of its step.
        captures: how many captures may end unknown before the sum is let go of.
    """
    step = top_up.step
    assert step is not None  # noqa: S101  the contract
    match result:
        case Unknown():
            return _after_unknown(top_up, step, captures)
        case Payment():
            return _after_payment(top_up, step, result)
        case NoPayment() if step is Step.RESOLVE:
            return _to(top_up, Step.CANCEL)
        case NoPayment() if step is Step.CANCEL:
            return _ended(top_up, Status.VOIDED, AUTHORIZATION_UNKNOWN)
        case Refusal():
            return _after_refusal(top_up, step, result)
        case AccountRefused(reason) if step is Step.CAPTURE:
            return _to(top_up, Step.VOID, failure=reason)
        case AccountRefused(reason) if step is Step.DEPOSIT:
            return _to(top_up, Step.REFUND, failure=reason)
        case Deposited(transfer_id) if step is Step.DEPOSIT:
            return replace(_ended(top_up, Status.COMPLETED, None), transfer_id=transfer_id)
        case DepositConflict() if step is Step.DEPOSIT:
            return _for_review(
                top_up, "the bank takes this deposit for another one of its key, or for none that can be made"
            )
    return _for_review(top_up, f"{type(result).__name__} is no answer to {step}")


def _after_unknown(top_up: TopUp, step: Step, captures: int) -> TopUp:
    if step is Step.AUTHORIZE:
        return _to(top_up, Step.RESOLVE)
    if step is Step.CAPTURE and top_up.attempts + 1 >= captures:
        return _to(top_up, Step.VOID, failure=CAPTURE_FAILED)
    return replace(top_up, attempts=top_up.attempts + 1)


def _after_payment(top_up: TopUp, step: Step, payment: Payment) -> TopUp:  # noqa: PLR0911  a table, too
    contradiction = _contradiction(top_up, payment)
    if contradiction or payment.status not in _SEEN_AT.get(step, ()):
        return _for_review(top_up, contradiction or f"the acquirer's payment is {payment.status} at {step}")
    known = replace(top_up, payment_id=payment.id)
    given_up = top_up.failure or (CAPTURE_FAILED if step is Step.CAPTURE else AUTHORIZATION_UNKNOWN)
    match payment.status:
        case PaymentStatus.AUTHORIZED:
            return _to(known, Step.CAPTURE)
        case PaymentStatus.DECLINED:
            return _ended(known, Status.DECLINED, payment.decline_code or PaymentStatus.DECLINED)
        case PaymentStatus.CAPTURED if step in {Step.CANCEL, Step.VOID}:
            return _to(known, Step.REFUND, failure=given_up)
        case PaymentStatus.CAPTURED:
            return _to(known, Step.DEPOSIT)
        case PaymentStatus.VOIDED:
            return _ended(known, Status.VOIDED, given_up)
        case PaymentStatus.REFUNDED:
            return _ended(known, Status.REFUNDED, given_up)


def _after_refusal(top_up: TopUp, step: Step, refusal: Refusal) -> TopUp:
    payment = refusal.payment
    if payment is not None and payment.status in _SEEN_AT.get(step, ()):
        return _after_payment(top_up, step, payment)  # it is past this step, by whomever
    match step, refusal.code:
        case Step.AUTHORIZE, "KEY_CANCELLED":
            return _to(top_up, Step.CANCEL)
        case Step.AUTHORIZE, code if code != "KEY_REUSED":
            return _ended(top_up, Status.DECLINED, code)
        case Step.CAPTURE, code if code != "KEY_REUSED":
            return _to(top_up, Step.VOID, failure=CAPTURE_FAILED)
        case _, code:
            return _for_review(top_up, f"the acquirer refuses to {step.lower()}: {code}")


def _contradiction(top_up: TopUp, payment: Payment) -> str | None:
    """What of the payment's sums cannot be so."""
    nothing = top_up.amount - top_up.amount
    taken = top_up.amount if payment.status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED} else nothing
    given_back = top_up.amount if payment.status is PaymentStatus.REFUNDED else nothing
    if (payment.amount, payment.captured, payment.refunded) == (top_up.amount, taken, given_back):
        return None
    return (
        f"the acquirer's payment is {payment.status} over {payment.amount} {payment.amount.currency}, "
        f"captured {payment.captured}, refunded {payment.refunded}"
    )


def _to(top_up: TopUp, step: Step, failure: str | None = None) -> TopUp:
    """At the beginning of another step. A failure that is known stays."""
    return replace(top_up, status=STATUS_AT[step], step=step, attempts=0, failure=top_up.failure or failure)


def _ended(top_up: TopUp, status: Status, failure: str | None) -> TopUp:
    return replace(top_up, status=status, step=None, attempts=0, failure=failure)


def _for_review(top_up: TopUp, why: str) -> TopUp:
    return replace(top_up, status=Status.NEEDS_REVIEW, attempts=0, review=why)


def retried(top_up: TopUp) -> TopUp:
    """A top-up that a person has looked at: back at the step that it stopped in, with fresh keys for the acquirer, who
    remembers a refusal with the key that it refused. A final one stays final; whether the acquirer contradicts it is to
    be asked again.
    """
    if top_up.step is None:
        return top_up
    return replace(top_up, status=STATUS_AT[top_up.step], attempts=0, retries=top_up.retries + 1, review=None)


_AGREES_WITH: Final[Mapping[Status, frozenset[PaymentStatus]]] = {
    Status.COMPLETED: frozenset({PaymentStatus.CAPTURED}),
    Status.DECLINED: frozenset({PaymentStatus.DECLINED}),
    Status.VOIDED: frozenset({PaymentStatus.VOIDED}),
    Status.REFUNDED: frozenset({PaymentStatus.REFUNDED}),
}
_ON_THE_WAY_TO: Final[Mapping[Status, frozenset[PaymentStatus]]] = {
    Status.COMPLETED: frozenset({PaymentStatus.AUTHORIZED}),
    Status.DECLINED: frozenset(),
    Status.VOIDED: frozenset(),
    Status.REFUNDED: frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED}),
}
"""What a payment was before, for certain: a void may be one of an authorization that nobody was told of."""


def verified(top_up: TopUp, payment: Payment | NoPayment) -> TopUp:
    """A final top-up, marked for review if the acquirer's payment contradicts it, and not if it does not."""
    if isinstance(payment, NoPayment):
        is_so = top_up.status in {Status.DECLINED, Status.VOIDED}
        return replace(top_up, review=None if is_so else f"{top_up.status}, and the acquirer has no payment")
    contradiction = _contradiction(top_up, payment)
    if contradiction is None and payment.status not in _AGREES_WITH[top_up.status]:
        contradiction = f"the acquirer's payment is {payment.status}"
    return replace(top_up, review=contradiction and f"{top_up.status}, and {contradiction}")


_POSSIBLE_AT: Final[Mapping[Step, frozenset[PaymentStatus | None]]] = {
    Step.AUTHORIZE: frozenset({None, PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED}),
    Step.RESOLVE: frozenset({None, PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED}),
    Step.CANCEL: frozenset({None, PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.VOIDED}),
    Step.CAPTURE: frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED}),
    Step.VOID: frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED, PaymentStatus.VOIDED}),
    Step.DEPOSIT: frozenset({PaymentStatus.CAPTURED}),
    Step.REFUND: frozenset({PaymentStatus.CAPTURED, PaymentStatus.REFUNDED}),
}
"""What a payment may be while its top-up is at a step, whether the step's call was made or not; None: not there."""


def mismatch(top_up: TopUp, payment: Payment | NoPayment) -> str | None:
    """What the acquirer has, if it is not what it may have while the top-up is as it is."""
    if top_up.step is None:
        return verified(top_up, payment).review
    if isinstance(payment, NoPayment):
        return None if None in _POSSIBLE_AT[top_up.step] else "the acquirer has no payment"
    if payment.status not in _POSSIBLE_AT[top_up.step]:
        return f"the acquirer's payment is {payment.status}"
    return _contradiction(top_up, payment)


def is_credited_by(top_up: TopUp, deposit: Deposit) -> bool:
    """Whether a deposit is the top-up's: the one that completed it, or may be about to."""
    if (top_up.account_id, top_up.amount) != (deposit.account_id, deposit.amount):
        return False
    return top_up.transfer_id == deposit.transfer_id or top_up.step is Step.DEPOSIT


def is_news(top_up: TopUp, told: PaymentStatus) -> bool:
    """Whether it is worth asking the acquirer when it tells, maybe late, that the payment is this.

    Not before the first try of a step has failed: until then somebody is at it.
    """
    if top_up.is_final:
        return told not in _AGREES_WITH[top_up.status] | _ON_THE_WAY_TO[top_up.status]
    return top_up.is_under_way and top_up.attempts > 0


def may_authorize(top_up: TopUp, now: datetime, window_seconds: float) -> bool:
    """Whether the caller may still be waiting, so that the card may be charged now."""
    return (now - top_up.created_at).total_seconds() <= window_seconds


def backoff(attempts: int, chance: float, *, first_seconds: float, longest_seconds: float) -> float:
    """How long to wait after so many failed attempts: doubled by each, capped, and of that between half and all.

    Args:
        attempts: 1 or more.
        chance: 0 to 1.
        first_seconds: after the first one, at most.
        longest_seconds: after any.
    """
    longest = min(longest_seconds, first_seconds * 2.0 ** min(attempts - 1, 32))
    return longest * (0.5 + chance / 2)
