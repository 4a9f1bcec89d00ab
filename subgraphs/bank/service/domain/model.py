"""The money rules: pure functions of frozen values."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from wallet.errors import (
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    FieldViolation,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    WalletError,
)
from wallet.inputs import idempotency_key_violations
from wallet.money import MAX_AMOUNT, Money

_MAX_DESCRIPTOR_ENTRIES: Final = 16
_MAX_DESCRIPTOR_LENGTH: Final = 128


class Kind(StrEnum):
    """What a transfer is: between two accounts, or from outside by way of a clearing account."""

    TRANSFER = "TRANSFER"
    DEPOSIT = "DEPOSIT"


class Status(StrEnum):
    """Whether an account takes part in transfers."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the ledger holds it. The balance never falls below `min_balance`; None means it may fall freely."""

    id: UUID
    owner_id: str | None
    status: Status
    balance: Money
    min_balance: Decimal | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def is_clearing(self) -> bool:
        """Whether it is the ledger's own, for what comes from outside: the only kind without a floor."""
        return self.min_balance is None

    def with_balance(self, balance: Money, at: datetime) -> "Account":
        """The account after one more operation."""
        return Account(
            self.id, self.owner_id, self.status, balance, self.min_balance, self.version + 1, self.created_at, at
        )


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key in its scope: one caller and one operation."""

    principal: str
    operation: str
    key: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for: this much, from here to there, once for this key."""

    sender_id: UUID
    recipient_id: UUID
    amount: Money
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Command:
    """A wish to move money.

    Attributes:
        transfer_id: the id that the transfer will have if it is made.
        owner_id: who the sender must belong to; None for whoever may move from any account.
        descriptor: opaque words that travel with the event of a deposit.
        traceparent: where in a trace the wish stands, if anybody follows it; no part of what is wished.
    """

    transfer_id: UUID
    kind: Kind
    sender_id: UUID
    recipient_id: UUID
    amount: Money
    key: Key
    owner_id: str | None
    descriptor: Mapping[str, str]
    traceparent: str | None = None

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests with one key the same request."""
        fields = [self.kind, self.sender_id.hex, self.recipient_id.hex, str(self.amount), self.amount.currency]
        if self.descriptor:
            fields.append(json.dumps(self.descriptor, sort_keys=True))
        return hashlib.sha256(" ".join(fields).encode()).digest()


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of a transfer: the version and the balance that it left of one account."""

    account_id: UUID
    version: int
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that is made. The sender's entry is minus the amount, the recipient's the amount: they net to zero."""

    id: UUID
    kind: Kind
    sender: Posting
    recipient: Posting
    amount: Money
    created_at: datetime
    idempotency_key: str
    descriptor: Mapping[str, str]


Outcome = Transfer | WalletError
"""What a command led to, for ever: it is stored with its key and answered again on every replay."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """The outcome of an earlier use of a key, and the fingerprint of the request that had it."""

    fingerprint: bytes
    outcome: Outcome

    def replay(self, command: Command) -> Outcome:
        """The first outcome again, or the conflict of a key that was used with another request."""
        if self.fingerprint != command.fingerprint:
            return IdempotencyConflict(command.key.key)
        return self.outcome


@dataclass(frozen=True, slots=True)
class Decision:
    """What a batch of commands leads to.

    Attributes:
        outcomes: one for each command, in order.
        transfers: those that are new and must be written, in order.
        accounts: the accounts that changed, as they are afterwards.
        remember: what the keys that were used for the first time must answer from now on.
    """

    outcomes: Sequence[Outcome]
    transfers: Sequence[Transfer]
    accounts: Sequence[Account]
    remember: Mapping[Key, Remembered]


def opened_account_id(key: Key) -> UUID:
    """The id of the account that a key opens: the same key can only ever open the same account."""
    return uuid5(NAMESPACE_URL, f"wallet:account:{key.principal}:{key.key}")


def check(command: Command) -> None:
    """Refuses what can never be done, whatever the accounts hold.

    Raises:
        InvalidInput: with every field that is wrong.
    """
    violations = []
    if not command.amount.is_positive:
        violations.append(FieldViolation("amount", "must be positive"))
    elif command.amount.amount > MAX_AMOUNT:
        violations.append(FieldViolation("amount", f"must be at most {MAX_AMOUNT:f}"))
    if command.sender_id == command.recipient_id:
        violations.append(FieldViolation("recipientId", "must be another account than the sender's"))
    violations.extend(idempotency_key_violations(command.key.key))
    if len(command.descriptor) > _MAX_DESCRIPTOR_ENTRIES or any(
        len(text) > _MAX_DESCRIPTOR_LENGTH or "\0" in text for item in command.descriptor.items() for text in item
    ):
        violations.append(
            FieldViolation(
                "descriptor",
                f"must have at most {_MAX_DESCRIPTOR_ENTRIES} entries of at most {_MAX_DESCRIPTOR_LENGTH} characters, "
                "none of them NUL",
            ),
        )
    if violations:
        raise InvalidInput(tuple(violations))


def decide(
    accounts: Mapping[UUID, Account],
    remembered: Mapping[Key, Remembered],
    commands: Sequence[Command],
    now: datetime,
) -> Decision:
    """Decides commands one after the other, each on the balances that the ones before it left.

    Args:
        accounts: every account that the commands name and that exists, as it is now. They must be locked.
        remembered: the keys among those of the commands that were used before.
        commands: checked ones.
        now: the clock. An operation is never dated before an earlier one of either account.
    """
    after = dict(accounts)
    remember: dict[Key, Remembered] = {}
    outcomes: list[Outcome] = []
    transfers: list[Transfer] = []
    for command in commands:
        earlier = remembered.get(command.key) or remember.get(command.key)
        if earlier is not None:
            outcomes.append(earlier.replay(command))
            continue
        outcome = _apply(after, command, now)
        if isinstance(outcome, Transfer):
            transfers.append(outcome)
        remember[command.key] = Remembered(command.fingerprint, outcome)
        outcomes.append(outcome)
    changed = [account for id_, account in after.items() if account is not accounts[id_]]
    return Decision(outcomes, transfers, changed, remember)


def _apply(accounts: dict[UUID, Account], command: Command, now: datetime) -> Outcome:
    """One command on the accounts, which it changes when it is not refused."""
    sender, recipient = accounts.get(command.sender_id), accounts.get(command.recipient_id)
    is_transfer = command.kind is Kind.TRANSFER  # which no clearing account takes part in
    if sender is None or command.owner_id not in {None, sender.owner_id} or (is_transfer and sender.is_clearing):
        return AccountNotFound(str(command.sender_id))
    if recipient is None or (is_transfer and recipient.is_clearing):
        return AccountNotFound(str(command.recipient_id))
    amount = command.amount
    for account in (sender, recipient):
        if account.status is Status.CLOSED:
            return AccountClosed(str(account.id))
        if account.balance.currency != amount.currency:
            return CurrencyMismatch(str(account.id), amount.currency)
    if sender.min_balance is not None and sender.balance.amount - amount.amount < sender.min_balance:
        available = Money(sender.balance.amount - sender.min_balance, amount.currency)
        return InsufficientFunds(str(sender.id), str(amount), str(available), amount.currency)

    at = max(now, sender.updated_at, recipient.updated_at)
    sender = accounts[sender.id] = sender.with_balance(sender.balance - amount, at)
    recipient = accounts[recipient.id] = recipient.with_balance(recipient.balance + amount, at)
    return Transfer(
        command.transfer_id,
        command.kind,
        Posting(sender.id, sender.version, sender.balance),
        Posting(recipient.id, recipient.version, recipient.balance),
        amount,
        at,
        command.key.key,
        command.descriptor,
    )
