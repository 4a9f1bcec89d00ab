"""What was asked of the ledger, when, and what came of it, as the clients saw it."""

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
    AccountNotFound,
    CurrencyMismatch,
    DeadlineExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    InternalError,
    Unavailable,
    WalletError,
)

Operation: TypeAlias = Literal["transfer", "deposit", "top-up"]
"""What a key is for. A top-up's is the card service's; what it asks of the ledger is a deposit (`deposits`)."""

DEPOSITOR: Final = "card"
"""The principal of every deposit's key."""

CONFLICT: Final = IdempotencyConflict.reason

DEFECT: Final = InternalError.reason

COMPLETED: Final = "COMPLETED"

WITHOUT_EFFECT: Final = frozenset({"DECLINED", "VOIDED", "REFUNDED"})
"""How a top-up ends that the ledger has nothing of."""

_REFUSALS: Final = (AccountClosed, AccountNotFound, CurrencyMismatch, IdempotencyConflict, InsufficientFunds)
"""What the ledger decides. Every other error of the contract says that nothing was done, or nothing at all."""

_UNKNOWNS: Final = (DeadlineExceeded, InternalError, Unavailable)


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key in its scope, by the ledger's own names of both."""

    principal: str
    operation: Operation
    key: str


@dataclass(frozen=True, slots=True)
class Body:
    """What makes two requests with one key the same request. The operation stands in the key."""

    sender_id: UUID
    recipient_id: UUID
    amount: Decimal
    currency: str = "RUB"


@dataclass(frozen=True, slots=True)
class Wish:
    """A transfer or a deposit that is asked for, once for its key. `owner_id` is None where any sender will do."""

    key: Key
    body: Body
    owner_id: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """It is done: the side of the account that the caller asked for. None is what this road to the bank does not tell:
    the REST API neither a version nor a balance, the graph no version.
    """

    transfer_id: UUID
    account_id: UUID
    version: int | None
    balance_after: Decimal | None
    amount: Decimal

    def says(self, told: Self) -> bool:
        """Whether what somebody was told is part of this."""
        return self == replace(
            told,
            version=self.version if told.version is None else told.version,
            balance_after=self.balance_after if told.balance_after is None else told.balance_after,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """It is not done and never will be for this key: the error by its machine name, and its data."""

    reason: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may be done or not, or be done yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """This call did nothing; another one with the key may."""

    reason: str


@dataclass(frozen=True, slots=True)
class TopUp:
    """How a top-up stands: it has an id, which is its deposit's key, and a transfer once it is completed."""

    id: UUID
    status: str
    transfer_id: UUID | None = None


Answer = Receipt | Refusal | TopUp | Unknown | Nothing


@dataclass(frozen=True, slots=True)
class Call:
    """One wish, asked once. Times are on the monotonic clock, which the processes of a machine share; `number` is its
    name.
    """

    number: int
    wish: Wish
    began: float
    ended: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """By how much all balances together differ from what was there at first, read in one statement."""

    number: int
    gained: Decimal


class History:
    """All that was asked and answered, in the order of the answers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[Call] = []
        self.snapshots: list[Snapshot] = []
        self._clock = clock
        self._numbers = itertools.count(1)

    async def record(
        self, wishes: Sequence[Wish], asking: Awaitable[Sequence[client.Receipt | WalletError]]
    ) -> list[Answer]:
        """Awaits what was asked and writes down how each wish fared.

        Args:
            wishes: of one call, in its order.
            asking: the call; its answers in the same order. What it raises is the answer to all of them.

        Raises:
            CancelledError: the caller gave up; the call is in the history as one whose outcome is unknown.
        """
        began = self._clock()
        answers: list[Answer] = [Unknown("CANCELLED")] * len(wishes)
        try:
            answers = [answer_of(outcome) for outcome in await asking]
        except WalletError as error:
            answers = [answer_of(error)] * len(wishes)
        finally:
            ended = self._clock()
            for wish, answer in zip(wishes, answers, strict=True):
                self.calls.append(Call(next(self._numbers), wish, began, ended, answer))
        return answers

    def saw(self, gained: Decimal) -> None:
        """Writes down what somebody has just read (`rows.gained`)."""
        self.snapshots.append(Snapshot(next(self._numbers), gained))

    def unknown(self) -> list[Wish]:
        """Every wish whose outcome nobody knows, in the order in which they were last asked for."""
        return unknown(self.calls)


def unknown(calls: Iterable[Call]) -> list[Wish]:
    """Every wish that was left unknown and had no certain answer to a later call."""
    left: dict[Wish, None] = {}
    for call in sorted(calls, key=lambda call: call.began):
        if isinstance(call.answer, Unknown | TopUp) and not is_certain(call.answer):
            left[call.wish] = None
        elif is_certain(call.answer):
            left.pop(call.wish, None)
    return list(left)


def deposits(calls: Sequence[Call]) -> list[Call]:
    """The same calls, with what each top-up asked of the ledger in its place: a deposit by its id, between the first
    time that it was asked for and the first time that it was told to be complete.
    """
    asked: dict[Key, list[Call]] = {}
    others = []
    for call in calls:
        if call.wish.key.operation == "top-up":
            asked.setdefault(call.wish.key, []).append(call)
        else:
            others.append(call)
    numbers = itertools.count(max((call.number for call in calls), default=0) + 1)
    return others + [_deposit(next(numbers), each) for each in asked.values() if _is_begun(each)]


def _is_begun(asked: Sequence[Call]) -> bool:
    """What was refused outright has no id, and can have no deposit."""
    return any(isinstance(call.answer, TopUp | Unknown) for call in asked)


def _deposit(number: int, asked: Sequence[Call]) -> Call:
    ordered = sorted(asked, key=lambda call: call.ended)
    told = [call for call in ordered if isinstance(call.answer, TopUp)]
    last = told[-1].answer if told else None
    done = next((call for call in told if isinstance(call.answer, TopUp) and call.answer.status == COMPLETED), None)
    id_, wish = last.id if isinstance(last, TopUp) else asked[0].wish.key.key, asked[0].wish
    answer: Answer = Unknown("UNAVAILABLE")
    if done and isinstance(done.answer, TopUp) and done.answer.transfer_id:
        answer = Receipt(done.answer.transfer_id, wish.body.recipient_id, None, None, wish.body.amount)
    elif isinstance(last, TopUp) and last.status in WITHOUT_EFFECT:
        answer = Nothing(last.status)
    wish = Wish(Key(DEPOSITOR, "deposit", str(id_)), wish.body, None)
    return Call(number, wish, min(call.began for call in asked), (done or ordered[-1]).ended, answer)


def answer_of(outcome: client.Receipt | WalletError) -> Answer:
    """A client's outcome as what it says of the ledger."""
    if isinstance(outcome, client.Receipt):
        return Receipt(
            outcome.transfer.id,
            outcome.posting.account_id,
            outcome.posting.version,
            outcome.posting.balance_after.amount,
            outcome.transfer.amount.amount,
        )
    if isinstance(outcome, _REFUSALS):
        return Refusal(outcome.reason, outcome.metadata())
    if isinstance(outcome, _UNKNOWNS):
        return Unknown(outcome.reason)
    return Nothing(outcome.reason)


def is_certain(answer: Answer) -> bool:
    """Whether it settles what became of the wish."""
    if isinstance(answer, TopUp):
        return answer.status == COMPLETED or answer.status in WITHOUT_EFFECT
    return isinstance(answer, Receipt | Refusal)
