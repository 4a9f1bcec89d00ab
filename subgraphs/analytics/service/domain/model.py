"""Values of the operation history.

The version of an account counts the account's operations. An epoch is one uninterrupted sequence of the ledger's
operations; a restore from an older backup begins another epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Final
from uuid import UUID

from wallet.money import Money

AMOUNT_DIGITS: Final = 18
AMOUNT_DECIMALS: Final = 4
"""Maximum digits of an amount or a balance before and after the decimal point, as in the event contract."""

MAX_VERSION: Final = 2**63 - 1


class OperationType(Enum):
    """Kind of an operation."""

    TRANSFER = "TRANSFER"
    TOP_UP = "TOP_UP"


class Direction(Enum):
    """Direction of the money, as the account sees it."""

    IN = "IN"
    OUT = "OUT"


@dataclass(frozen=True, slots=True)
class Posting:
    """Effect of an operation on one account: the account's version and balance after the operation."""

    account_id: UUID
    version: int
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Words:
    """Words on a transfer; an empty text means that there is none.

    Attributes:
        description: text for both sides.
        reference: the sender's own id of the transfer; only on the sender's row.
        metadata: data of the creator; only on the sender's row, and only for the creator.
        created_by: principal of the creator; only on the sender's row.
    """

    description: str = ""
    reference: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    created_by: str = ""


NO_WORDS: Final = Words()


@dataclass(frozen=True, slots=True)
class Event:
    """One operation with both accounts.

    `amount` is positive, `occurred_at` is in UTC, and both balances have the amount's currency. `epoch` is the epoch
    that the ledger had when the event was published or read; it is empty for the first epoch.
    """

    id: UUID
    type: OperationType
    amount: Money
    sender: Posting
    recipient: Posting
    occurred_at: datetime
    epoch: str = ""
    words: Words = NO_WORDS


@dataclass(frozen=True, slots=True)
class Row:
    """One operation as one account sees it. `amount` is positive; `direction` gives the sign."""

    account_id: UUID
    account_version: int
    operation_id: UUID
    type: OperationType
    direction: Direction
    amount: Decimal
    currency: str
    balance_after: Decimal
    counterparty_id: UUID
    occurred_at: datetime
    words: Words = NO_WORDS


@dataclass(frozen=True, slots=True)
class MetadataFilter:
    """Entries in the metadata of operations that a caller made. `created_by` is the principal of the caller."""

    entries: Mapping[str, str] = field(hash=False)
    created_by: str


@dataclass(frozen=True, slots=True)
class HeldPosting:
    """Posting in the history: the operation that is stored for one version of an account."""

    account_id: UUID
    version: int
    operation_id: UUID


@dataclass(frozen=True, slots=True)
class AccountPosition:
    """Version of an account in the ledger, and the ledger's epoch."""

    version: int
    epoch: str


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Version after which a stream of operations starts, and the ledger's epoch. All rows belong to this epoch."""

    version: int
    epoch: str


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Conditions that must all hold.

    An operation must have one of the `types`; an empty set matches no operation, and None matches every type. Amounts
    are inclusive. `since` is inclusive, `until` exclusive; both have a time zone. The description must contain `text`,
    without regard to case.
    """

    types: frozenset[OperationType] | None = None
    direction: Direction | None = None
    counterparty_id: UUID | None = None
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    since: datetime | None = None
    until: datetime | None = None
    reference: str | None = None
    metadata: MetadataFilter | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Requested page of an account's operations, newest first. Without a version, the page has the newest operations.

    Attributes:
        account_id: id of the account.
        limit: maximum number of rows; 0 for the default.
        older_than: returns the newest rows below this version.
        newer_than: returns the oldest rows above this version; 0: the oldest of all. Not together with `older_than`.
        epoch: epoch of the ledger that `older_than` or `newer_than` belongs to.
        conditions: conditions that each row satisfies.
    """

    account_id: UUID
    limit: int
    older_than: int | None = None
    newer_than: int | None = None
    epoch: str = ""
    conditions: OperationFilter = OperationFilter()


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first.

    Attributes:
        rows: the page.
        has_older: whether rows older than the page are stored.
        has_newer: whether rows newer than the page are stored.
        is_complete: whether the page lacks no operation that the ledger had when the request arrived.
        epoch: epoch of the history.
    """

    rows: tuple[Row, ...]
    has_older: bool
    has_newer: bool
    is_complete: bool = False
    epoch: str = ""

    def required_versions(self, version: int, *, older_than: int | None = None, newer_than: int | None = None) -> range:
        """Return the versions that must be stored if the page is complete.

        Args:
            version: version of the account in the ledger.
            older_than: the page has the newest rows below this version.
            newer_than: the page has the oldest rows above this version. Not together with `older_than`.
        """
        if newer_than is not None:
            return range(newer_than + 1, (self.rows[0].account_version if self.has_newer else version) + 1)
        highest = version if older_than is None else min(version, older_than - 1)
        return range(self.rows[-1].account_version if self.has_older else 1, highest + 1)


def parse_amount(text: str) -> Decimal:
    """Parse an amount of a filter: plain decimal notation without sign, exponent or spaces.

    Raises:
        ValueError: the text is not such a number; the message describes the problem.
    """
    integer, _, decimals = text.partition(".")
    if not (text.isascii() and text.replace(".", "", 1).isdigit() and integer):
        raise ValueError("must be a decimal number such as 10.00")
    if len(integer) > AMOUNT_DIGITS or len(decimals) > AMOUNT_DECIMALS:
        raise ValueError(f"must have at most {AMOUNT_DIGITS} digits and {AMOUNT_DECIMALS} decimals")
    return Decimal(text)
