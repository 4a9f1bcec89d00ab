"""Requests to the ledger with their times and their responses, as clients observed them."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, Literal, Self, TypeAlias
from uuid import UUID

from subgraphs.bank import client
from wallet.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    CurrencyMismatch,
    DeadlineExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    InternalError,
    ReferenceUsed,
    Unavailable,
    WalletError,
)

Operation: TypeAlias = Literal["transfer", "deposit", "top-up"]
"""Kind of operation that a request asks for; part of the scope of its idempotency key. The card service turns a top-up
into a deposit (`deposits_of_top_ups`)."""

DEPOSIT_PRINCIPAL: Final = "card"
"""Principal of the idempotency key of every deposit."""

CONFLICT: Final = IdempotencyConflict.reason

DEFECT: Final = InternalError.reason

COMPLETED: Final = "COMPLETED"

WITHOUT_EFFECT: Final = frozenset({"DECLINED", "VOIDED", "REFUNDED"})
"""Final states of a top-up that leave no deposit in the ledger."""

_REFUSALS: Final = (
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    CurrencyMismatch,
    IdempotencyConflict,
    InsufficientFunds,
    ReferenceUsed,
)
"""Decisions of the ledger. Any other error means that nothing was done, or that the outcome is unknown."""

_UNKNOWN_OUTCOMES: Final = (DeadlineExceeded, InternalError, Unavailable)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Idempotency key with its scope: the principal and the operation."""

    principal: str
    operation: Operation
    key: str


@dataclass(frozen=True, slots=True)
class RequestBody:
    """Arguments of a request. Requests with the same key are retries of each other if their bodies are equal."""

    sender_id: UUID
    recipient_id: UUID
    amount: Decimal
    currency: str = "RUB"
    description: str = ""
    reference: str = ""
    is_reference_unique: bool = False


@dataclass(frozen=True, slots=True)
class LedgerRequest:
    """Request for a transfer, a deposit or a top-up.

    The bank refuses a sender's account that does not belong to `owner_id`; None: it does not check the owner.
    """

    key: IdempotencyKey
    body: RequestBody
    owner_id: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Receipt of a committed transfer: its effect on the account of the caller.

    `version` is the number of the account's operations, including this transfer; `balance_after` is the balance after
    the transfer.

    None marks values that an API does not return: REST returns neither version nor balance, GraphQL returns no version.
    `is_replay` is whether the response was marked as a replay; it is None if the API does not mark replays.
    """

    transfer_id: UUID
    account_id: UUID
    version: int | None
    balance_after: Decimal | None
    amount: Decimal
    is_replay: bool | None = field(default=None, compare=False)

    def includes(self, other: Self) -> bool:
        """Return whether this receipt equals the other one in all values that the other one has."""
        return self == replace(
            other,
            version=self.version if other.version is None else other.version,
            balance_after=self.balance_after if other.balance_after is None else other.balance_after,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusal of a request by the ledger: reason and data of the error. A retry with the same key gets the same
    refusal.

    `is_replay` is as in `Receipt`.
    """

    reason: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_replay: bool | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class UnknownOutcome:
    """The request may have been executed, or may be executed later."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoEffect:
    """This call did nothing. Another call with the same key may have an effect."""

    reason: str


@dataclass(frozen=True, slots=True)
class TopUpState:
    """State of a top-up. `id` is also the idempotency key of its deposit. A completed top-up has a transfer.

    `is_replay` is as in `Receipt`.
    """

    id: UUID
    status: str
    transfer_id: UUID | None = None
    is_replay: bool | None = field(default=None, compare=False)


Answer = Receipt | Refusal | TopUpState | UnknownOutcome | NoEffect


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One attempt of a request with its response.

    Times are on the monotonic clock, which the processes of a machine share. `number` identifies the call.
    """

    number: int
    request: LedgerRequest
    began: float
    ended: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class FrozenPeriod:
    """Period in which an account was frozen, as the client that froze it observed it.

    Attributes:
        account_id: the account.
        directions: transfers that are refused: OUTGOING, INCOMING or ALL.
        began: start of the first call that froze the account.
        certain_from: time of the response to it.
        certain_until: start of the first call that thawed the account.
        ended: time of the response to it; infinite if a call had no response, because it may have an effect later.
    """

    account_id: UUID
    directions: str
    began: float
    certain_from: float
    certain_until: float
    ended: float

    def refuses(self, account_id: UUID, direction: str) -> bool:
        """Return whether the account refuses transfers in this direction."""
        return account_id == self.account_id and self.directions in {direction, "ALL"}


@dataclass(frozen=True, slots=True)
class FloorChange:
    """Floor that an account got, as the client that set it observed it.

    Attributes:
        account_id: the account.
        floor: lower limit of the balance; None for no limit.
        began: start of the first call; minus infinity for the floor before the first call.
        ended: time of the response; infinite if a call had no response, because it may have an effect later.
    """

    account_id: UUID
    floor: Decimal | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class BalanceSnapshot:
    """Sum of all balances minus the sum of all opening balances (`change`), read in one statement."""

    number: int
    change: Decimal


class History:
    """All recorded calls, in the order in which they ended, and all balance snapshots."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[RecordedCall] = []
        self.snapshots: list[BalanceSnapshot] = []
        self.frozen: list[FrozenPeriod] = []
        self.floors: list[FloorChange] = []
        self._clock = clock
        self._numbers = itertools.count(1)

    async def record(
        self, requests: Sequence[LedgerRequest], sending: Awaitable[Sequence[client.Receipt | WalletError]]
    ) -> list[Answer]:
        """Await a call and record the response to each of its requests.

        Args:
            requests: requests of one call.
            sending: the call; returns the outcomes in the order of the requests. An error that it raises is recorded
                for all requests.

        Raises:
            CancelledError: the task was cancelled; the call is recorded with an unknown outcome.
        """
        began = self._clock()
        answers: list[Answer] = [UnknownOutcome("CANCELLED")] * len(requests)
        try:
            answers = [answer_from_outcome(outcome) for outcome in await sending]
        except WalletError as error:
            answers = [answer_from_outcome(error)] * len(requests)
        finally:
            ended = self._clock()
            for request, answer in zip(requests, answers, strict=True):
                self.calls.append(RecordedCall(next(self._numbers), request, began, ended, answer))
        return answers

    def record_snapshot(self, change: Decimal) -> None:
        """Record a result of `rows.sum_balance_changes`."""
        self.snapshots.append(BalanceSnapshot(next(self._numbers), change))

    def unresolved(self) -> list[LedgerRequest]:
        """Return the requests with an unknown outcome, in the order of their last attempts."""
        return unresolved_requests(self.calls)


def unresolved_requests(calls: Iterable[RecordedCall]) -> list[LedgerRequest]:
    """Return the requests with an unknown outcome and no final response to a later attempt."""
    unresolved: dict[LedgerRequest, None] = {}
    for call in sorted(calls, key=lambda call: call.began):
        if isinstance(call.answer, UnknownOutcome | TopUpState) and not is_final(call.answer):
            unresolved[call.request] = None
        elif is_final(call.answer):
            unresolved.pop(call.request, None)
    return list(unresolved)


def deposits_of_top_ups(calls: Sequence[RecordedCall]) -> list[RecordedCall]:
    """Replace all calls of each top-up by one call for its deposit. Return the other calls unchanged.

    The key of the deposit is the id of the top-up. The deposit lasts from the first attempt of the top-up to the first
    response that reports its completion. A top-up that was rejected before it got an id has no deposit.
    """
    top_ups: dict[IdempotencyKey, list[RecordedCall]] = {}
    others = []
    for call in calls:
        if call.request.key.operation == "top-up":
            top_ups.setdefault(call.request.key, []).append(call)
        else:
            others.append(call)
    numbers = itertools.count(max((call.number for call in calls), default=0) + 1)
    return others + [_deposit_of(next(numbers), attempts) for attempts in top_ups.values() if _may_exist(attempts)]


def _may_exist(attempts: Sequence[RecordedCall]) -> bool:
    """Return whether the top-up of these attempts can have a deposit."""
    return any(isinstance(call.answer, TopUpState | UnknownOutcome) for call in attempts)


def _deposit_of(number: int, attempts: Sequence[RecordedCall]) -> RecordedCall:
    ordered = sorted(attempts, key=lambda call: call.ended)
    with_state = [call for call in ordered if isinstance(call.answer, TopUpState)]
    last = with_state[-1].answer if with_state else None
    completed = next(
        (call for call in with_state if isinstance(call.answer, TopUpState) and call.answer.status == COMPLETED), None
    )
    request = attempts[0].request
    id_ = last.id if isinstance(last, TopUpState) else request.key.key
    answer: Answer = UnknownOutcome("UNAVAILABLE")
    if completed and isinstance(completed.answer, TopUpState) and completed.answer.transfer_id:
        answer = Receipt(completed.answer.transfer_id, request.body.recipient_id, None, None, request.body.amount)
    elif isinstance(last, TopUpState) and last.status in WITHOUT_EFFECT:
        answer = NoEffect(last.status)
    deposit = LedgerRequest(IdempotencyKey(DEPOSIT_PRINCIPAL, "deposit", str(id_)), request.body, None)
    began = min(call.began for call in attempts)
    return RecordedCall(number, deposit, began, (completed or ordered[-1]).ended, answer)


def answer_from_outcome(outcome: client.Receipt | WalletError) -> Answer:
    """Convert an outcome of the bank's gRPC client."""
    if isinstance(outcome, client.Receipt):
        return Receipt(
            outcome.transfer.id,
            outcome.posting.account_id,
            outcome.posting.version,
            outcome.posting.balance_after.amount,
            outcome.transfer.amount.amount,
            outcome.is_replay,
        )
    if isinstance(outcome, _REFUSALS):
        return Refusal(outcome.reason, outcome.metadata(), outcome.is_replay)
    if isinstance(outcome, _UNKNOWN_OUTCOMES):
        return UnknownOutcome(outcome.reason)
    return NoEffect(outcome.reason)


def is_final(answer: Answer) -> bool:
    """Return whether the response settles the outcome of its request."""
    if isinstance(answer, TopUpState):
        return answer.status == COMPLETED or answer.status in WITHOUT_EFFECT
    return isinstance(answer, Receipt | Refusal)
