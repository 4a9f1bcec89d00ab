"""Values that the bank's client takes and returns.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from wallet.money import Money


@dataclass(frozen=True, slots=True)
class Account:
    """Current state of an account.

    Attributes:
        owner_id: user id of the owner; empty for an account without an owner.
        version: number of operations on the account; each operation increments it by one.
        frozen: transfers that are refused; None if the account is not frozen.
        purpose: use of the account: a user's, or the system's own for deposits.
        floor: lower limit of the balance; None if it is zero, and for an account without a limit.
        available: amount that the account can pay; None if it is the balance.
    """

    id: UUID
    owner_id: str
    balance: Money
    version: int
    created_at: datetime
    updated_at: datetime
    status: Literal["OPEN", "CLOSED"]
    frozen: Literal["OUTGOING", "INCOMING", "ALL"] | None = None
    purpose: Literal["CUSTOMER", "CLEARING"] = "CUSTOMER"
    floor: Money | None = None
    available: Money | None = None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """Recorded change of an account that is not an operation. See `AccountChange` in `bank.proto`."""

    revision: int
    action: str
    changed_by: str
    changed_at: datetime
    reason: str
    before: Mapping[str, str] = field(hash=False)
    after: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class OpenedAccount:
    """Account in its current state.

    `is_replay` is true if an earlier request with the same idempotency key opened the account.
    """

    account: Account
    is_replay: bool


@dataclass(frozen=True, slots=True)
class AccountPage:
    """Accounts in id order. `has_more` is true if another page follows in the direction of the request."""

    accounts: tuple[Account, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Words:
    """Words on a transfer; an empty text means that there is none. See `TransferMoneyRequest` in `bank.proto`."""

    description: str = ""
    reference: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_reference_unique: bool = False


NO_WORDS: Final = Words()


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """Requested transfer. The bank executes it once per caller and idempotency key.

    `raw_idempotency_key` is the key exactly as the client sent it, with quotation marks or spaces around it. Earlier
    releases stored the key in this form. It is empty if the client sent `idempotency_key` itself.
    """

    sender_id: UUID
    recipient_id: UUID
    amount: Money
    idempotency_key: str
    raw_idempotency_key: str = ""
    words: Words = NO_WORDS


@dataclass(frozen=True, slots=True)
class Transfer:
    """Completed transfer. A deposit is a transfer from a clearing account.

    `description`, `reference` and `metadata` are empty if there are none, or if the caller may not read them.
    """

    id: UUID
    kind: Literal["TRANSFER", "DEPOSIT"]
    sender_id: UUID
    recipient_id: UUID
    amount: Money
    created_at: datetime
    description: str = ""
    reference: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class TransferPage:
    """Transfers in id order. `has_more` is true if another page follows."""

    transfers: tuple[Transfer, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Posting:
    """One account's side of a transfer: its version and balance after the transfer."""

    account_id: UUID
    version: int
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Receipt:
    """Transfer with one posting: the sender's, or for a deposit the recipient's.

    `is_replay` is true if an earlier request with the same key made the transfer. A replayed receipt equals the first
    receipt.
    """

    transfer: Transfer
    posting: Posting
    is_replay: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Balance:
    """Balance of an account at a version; `epoch` is the id of the ledger's epoch, empty for the first epoch."""

    amount: Money
    version: int
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class BalanceRequest:
    """Account, and a point in its history: either a version or a time. See `BatchGetBalancesAt` in `bank.proto`."""

    account_id: UUID
    version: int | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """Balance of an account after the operation with this version.

    Version 0 is the opening balance; it has no time.
    """

    balance: Money
    version: int
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """Transfer with both postings and its descriptor: the same data as the event on the operations topic.

    `epoch` is the id of the ledger's epoch when the event was read, empty for the first epoch. `created_by` is the
    principal of the caller who made the transfer, if the transfer has words.
    """

    transfer: Transfer
    sender: Posting
    recipient: Posting
    descriptor: Mapping[str, str]
    epoch: str = ""
    created_by: str = ""


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
        epoch: id of the ledger's epoch; empty for the first epoch.
        incarnation: PostgreSQL's system identifier and timeline of the database server.
        past_epochs: ids of the ledger's past epochs, oldest first.
    """

    epoch: str
    incarnation: str
    past_epochs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccountVersion:
    """Current version of an account."""

    account_id: UUID
    version: int
