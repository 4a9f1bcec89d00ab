"""What was asked of the ledger, when, and what came of it, as the clients saw it."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, TypeAlias
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

Operation: TypeAlias = Literal["transfer", "deposit"]

DEPOSITOR: Final = "card"
"""The principal of every deposit's key."""

CONFLICT: Final = IdempotencyConflict.reason

DEFECT: Final = InternalError.reason

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
    """It is done: the side of the account that the caller asked for."""

    transfer_id: UUID
    account_id: UUID
    version: int
    balance_after: Decimal
    amount: Decimal


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


Answer = Receipt | Refusal | Unknown | Nothing


@dataclass(frozen=True, slots=True)
class Call:
    """One wish, asked once. Times are on the monotonic clock of the one process that asks; `number` is its name."""

    number: int
    wish: Wish
    began: float
    ended: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The sum of all balances, read in one statement."""

    number: int
    total: Decimal


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

    def saw(self, total: Decimal) -> None:
        """Writes down the sum of all balances that somebody has just read."""
        self.snapshots.append(Snapshot(next(self._numbers), total))

    def unknown(self) -> list[Wish]:
        """Every wish whose outcome nobody knows, in the order in which they were last asked for."""
        return unknown(self.calls)


def unknown(calls: Iterable[Call]) -> list[Wish]:
    """Every wish that was left unknown and had no certain answer to a later call."""
    left: dict[Wish, None] = {}
    for call in sorted(calls, key=lambda call: call.began):
        if isinstance(call.answer, Unknown):
            left[call.wish] = None
        elif is_certain(call.answer):
            left.pop(call.wish, None)
    return list(left)


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
    return isinstance(answer, Receipt | Refusal)
