"""Values of the ledger: accounts, commands, transfers and decisions."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from subgraphs.bank.service.domain.words import Words
from wallet.errors import IdempotencyConflict, WalletError
from wallet.idempotency_key import stored_forms
from wallet.money import Money


class TransferKind(StrEnum):
    """Kind of a transfer: between two accounts, or a deposit from a clearing account."""

    TRANSFER = "TRANSFER"
    DEPOSIT = "DEPOSIT"


class AccountStatus(StrEnum):
    """Status of an account. Only open accounts can send and receive money."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class Freeze(StrEnum):
    """Transfers of a frozen account that are refused."""

    OUTGOING = "OUTGOING"
    INCOMING = "INCOMING"
    ALL = "ALL"


class Purpose(StrEnum):
    """Use of an account. A clearing account is the sender of deposits, and takes part in nothing else."""

    CUSTOMER = "CUSTOMER"
    CLEARING = "CLEARING"


@dataclass(frozen=True, slots=True)
class Account:
    """Account with its current balance.

    Attributes:
        owner_id: user id of the owner; None for an account without an owner.
        min_balance: floor, the lower limit of the balance; None for no limit.
        version: number of operations on the account.
        revision: number of changes of the account that are not operations, such as its closing.
        frozen: transfers that are refused; None if the account is not frozen.
        purpose: use of the account.
    """

    id: UUID
    owner_id: str | None
    status: AccountStatus
    balance: Money
    min_balance: Decimal | None
    version: int
    created_at: datetime
    updated_at: datetime
    revision: int = 0
    frozen: Freeze | None = None
    purpose: Purpose = Purpose.CUSTOMER

    @property
    def is_clearing(self) -> bool:
        """Whether this is a clearing account."""
        return self.purpose is Purpose.CLEARING

    @property
    def available(self) -> Decimal | None:
        """Amount that the account can pay: its balance above the floor; None without a floor."""
        return None if self.min_balance is None else self.balance.amount - self.min_balance

    def with_balance(self, balance: Money, at: datetime) -> "Account":
        """Return the account after one more operation, which is dated `at` and results in this balance."""
        return Account(
            self.id,
            self.owner_id,
            self.status,
            balance,
            self.min_balance,
            self.version + 1,
            self.created_at,
            at,
            self.revision,
            self.frozen,
            self.purpose,
        )


class ChangeAction(StrEnum):
    """Kind of a change of an account that is not an operation."""

    CLOSE = "CLOSE"
    FREEZE = "FREEZE"
    THAW = "THAW"
    SET_FLOOR = "SET_FLOOR"


@dataclass(frozen=True, slots=True)
class AccountChange:
    """Recorded change of an account that is not an operation.

    Attributes:
        revision: revision of the account after the change.
        changed_by: principal of the caller.
        reason: the caller's reason; empty for a closing.
        before: values before the change, by name.
        after: values after the change, by name.
    """

    revision: int
    action: ChangeAction
    changed_by: str
    changed_at: datetime
    reason: str
    before: Mapping[str, str]
    after: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Idempotency key within its scope: one caller and one operation."""

    principal: str
    operation: str
    key: str


@dataclass(frozen=True, slots=True)
class Command:
    """Request to move money, after authentication.

    Attributes:
        transfer_id: id of the transfer if the command succeeds.
        owner_id: required owner of the sender's account; None if the caller may move money from every account.
        descriptor: texts that the deposit's event carries unchanged.
        traceparent: trace context, if sampled; not part of the fingerprint.
        raw_key: the key as the client sent it, in quotation marks or with spaces around it; None if the client sent
            `key` itself.
        words: description, reference and metadata; None without any.
    """

    transfer_id: UUID
    kind: TransferKind
    sender_id: UUID
    recipient_id: UUID
    amount: Money
    key: IdempotencyKey
    owner_id: str | None
    descriptor: Mapping[str, str]
    traceparent: str | None = None
    raw_key: IdempotencyKey | None = None
    words: Words | None = None

    @property
    def stored_keys(self) -> tuple[IdempotencyKey, IdempotencyKey | None]:
        """Key of the command's new record, and the key with which an earlier release stored a record of this request.

        The second one is None if it is equal to the first. See `wallet.idempotency_key.stored_forms`.
        """
        text = self.key.key
        stored, earlier = stored_forms(text, None if self.raw_key is None else self.raw_key.key)
        return (
            self.key if stored == text else replace(self.key, key=stored),
            None if earlier is None else self.raw_key or self.key,
        )

    @property
    def fingerprint(self) -> bytes:
        """Hash of the request. Two requests with one key are the same request if their fingerprints are equal."""
        fields = [self.kind, self.sender_id.hex, self.recipient_id.hex, str(self.amount), self.amount.currency]
        if self.descriptor:
            fields.append(json.dumps(self.descriptor, sort_keys=True))
        if self.words is not None:
            fields.append(self.words.canonical)
        return hashlib.sha256(" ".join(fields).encode()).digest()

    def is_replay(self, transfer: "Transfer") -> bool:
        """Return whether an earlier command with the same key made the transfer."""
        return transfer.id != self.transfer_id


@dataclass(frozen=True, slots=True)
class Posting:
    """One account's side of a transfer: its version and balance after the transfer."""

    account_id: UUID
    version: int
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Transfer:
    """Completed transfer. It debits the sender and credits the recipient with the same amount.

    `words` is None without a description, a reference and metadata.
    """

    id: UUID
    kind: TransferKind
    sender: Posting
    recipient: Posting
    amount: Money
    created_at: datetime
    idempotency_key: str
    descriptor: Mapping[str, str]
    words: Words | None = None


Outcome = Transfer | WalletError
"""Result of a command. A transfer or a refusal is stored with the command's key, and every replay returns it."""


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """Stored outcome of an idempotency key, with the command that used the key first.

    Attributes:
        fingerprint: fingerprint of the command.
        outcome: outcome of the command.
        transfer_id: `Command.transfer_id` of the command; None for a refusal that an earlier release stored.
    """

    fingerprint: bytes
    outcome: Outcome
    transfer_id: UUID | None

    def replay(self, command: Command) -> Outcome:
        """Return the stored outcome, or a conflict if the command differs from the first command.

        A refusal is marked as a replay. The exception is the first command itself, which is decided again if its commit
        was not confirmed: then the refusal is not marked. A transfer is never marked; `Command.is_replay` returns
        whether it is a replay.
        """
        if self.fingerprint != command.fingerprint:
            return IdempotencyConflict(command.key.key)
        if isinstance(self.outcome, WalletError) and self.transfer_id != command.transfer_id:
            return self.outcome.as_replay()
        return self.outcome


@dataclass(frozen=True, slots=True)
class Decision:
    """Result of a batch of commands.

    Attributes:
        outcomes: one for each command, in order.
        transfers: new transfers to write, in order.
        accounts: changed accounts, after the batch.
        new_records: idempotency records to write, for the keys that have no record yet.
    """

    outcomes: Sequence[Outcome]
    transfers: Sequence[Transfer]
    accounts: Sequence[Account]
    new_records: Mapping[IdempotencyKey, IdempotencyRecord]


@dataclass(frozen=True, slots=True)
class BalanceRequest:
    """Account, and a point in its history: either a version or a time.

    Attributes:
        account_id: id of the account.
        version: the balance after the last operation whose version is not above this one.
        time: the balance after the last operation that is not later than this time.
    """

    account_id: UUID
    version: int | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """Balance of an account after one of its operations.

    Attributes:
        balance: the balance.
        version: version of the operation; 0: the opening balance.
        occurred_at: time of the operation; None for the opening balance.
    """

    balance: Money
    version: int
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldPosting:
    """Posting that a reader of the ledger, such as analytics, has stored."""

    account_id: UUID
    version: int
    transfer_id: UUID


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Identity of the ledger and of the server that stores it.

    Attributes:
        epoch: id of the epoch, which is one uninterrupted sequence of operations; empty for the first epoch.
        incarnation: system identifier and timeline of the server. A failover and most restores change the incarnation.
        past_epochs: ids of the past epochs, oldest first.
    """

    epoch: str
    incarnation: str
    past_epochs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Epoch of the ledger: its id (empty for the first epoch), its start, and why it replaced the previous epoch."""

    epoch: str
    began_at: datetime
    reason: str
