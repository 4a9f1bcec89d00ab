"""The money rules: pure functions of frozen values."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from wallet.money import MAX_AMOUNT, Money

_MAX_KEY_LENGTH: Final = 255
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
    """

    transfer_id: UUID
    kind: Kind
    sender_id: UUID
    recipient_id: UUID
    amount: Money
    key: Key
    owner_id: str | None
    descriptor: Mapping[str, str]

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests with one key the same request."""
        values = [
            self.kind,
            str(self.sender_id),
            str(self.recipient_id),
            str(self.amount),
            self.amount.currency,
            sorted(self.descriptor.items()),
        ]
        return hashlib.sha256(json.dumps(values).encode()).digest()


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that is made, with the versions of both accounts that it led to."""

    id: UUID
    kind: Kind
    sender_id: UUID
    recipient_id: UUID
    amount: Money
    created_at: datetime
    idempotency_key: str
    sender_version: int
    recipient_version: int
    descriptor: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of a transfer: what it did to one account. The two of a transfer net to zero."""

    account_id: UUID
    version: int
    transfer_id: UUID
    amount: Money
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Operation:
    """A transfer with both of its entries."""

    transfer: Transfer
    sender: Entry
    recipient: Entry


Outcome = Operation | WalletError
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
        operations: those that are new and must be written, in order.
        accounts: the accounts that changed, as they are afterwards.
        remember: what the keys that were used for the first time must answer from now on.
    """

    outcomes: Sequence[Outcome]
    operations: Sequence[Operation]
    accounts: Sequence[Account]
    remember: Mapping[Key, Remembered]


def clearing_account_id(currency: str) -> UUID:
    """The account of a currency that deposits come from; its balance is minus all that ever came in from outside."""
    return uuid5(NAMESPACE_URL, f"wallet:clearing:{currency}")


def opened_account_id(key: Key) -> UUID:
    """The id of the account that a key opens: the same key can only ever open the same account."""
    return uuid5(NAMESPACE_URL, f"wallet:account:{key.principal}:{key.key}")


def check_key(key: str) -> list[FieldViolation]:
    """What is wrong with an idempotency key."""
    if 1 <= len(key) <= _MAX_KEY_LENGTH and key.isascii() and key.isprintable() and key == key.strip():
        return []
    return [FieldViolation("idempotencyKey", f"must be 1 to {_MAX_KEY_LENGTH} printable ASCII characters")]


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
    violations.extend(check_key(command.key.key))
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
    known = dict(remembered)
    outcomes: list[Outcome] = []
    operations: list[Operation] = []
    for command in commands:
        earlier = known.get(command.key)
        if earlier is not None:
            outcomes.append(earlier.replay(command))
            continue
        outcome = _apply(after, command, now)
        if isinstance(outcome, Operation):
            operations.append(outcome)
        known[command.key] = Remembered(command.fingerprint, outcome)
        outcomes.append(outcome)
    return Decision(
        outcomes,
        operations,
        accounts=[account for id_, account in after.items() if account is not accounts[id_]],
        remember={key: value for key, value in known.items() if key not in remembered},
    )


def _apply(accounts: dict[UUID, Account], command: Command, now: datetime) -> Outcome:
    """One command on the accounts, which it changes when it is not refused."""
    sender, recipient = accounts.get(command.sender_id), accounts.get(command.recipient_id)
    if sender is None or command.owner_id not in {None, sender.owner_id}:
        return AccountNotFound(str(command.sender_id))
    if recipient is None or (command.kind is Kind.TRANSFER and recipient.min_balance is None):
        return AccountNotFound(str(command.recipient_id))
    for account in (sender, recipient):
        if account.status is Status.CLOSED:
            return AccountClosed(str(account.id))
        if account.balance.currency != command.amount.currency:
            return CurrencyMismatch(str(account.id), command.amount.currency)
    if sender.min_balance is not None and sender.balance.amount - command.amount.amount < sender.min_balance:
        available = Money(sender.balance.amount - sender.min_balance, command.amount.currency)
        return InsufficientFunds(str(sender.id), str(command.amount), str(available), command.amount.currency)

    at = max(now, sender.updated_at, recipient.updated_at)
    debited = replace(sender, balance=sender.balance - command.amount, version=sender.version + 1, updated_at=at)
    credited = replace(
        recipient,
        balance=recipient.balance + command.amount,
        version=recipient.version + 1,
        updated_at=at,
    )
    accounts[debited.id], accounts[credited.id] = debited, credited
    transfer = Transfer(
        command.transfer_id,
        command.kind,
        debited.id,
        credited.id,
        command.amount,
        at,
        command.key.key,
        debited.version,
        credited.version,
        command.descriptor,
    )
    return Operation(
        transfer,
        sender=Entry(debited.id, debited.version, transfer.id, -command.amount, debited.balance),
        recipient=Entry(credited.id, credited.version, transfer.id, command.amount, credited.balance),
    )
