"""What the history is made of: values only."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Final
from uuid import UUID

from wallet.money import Money

AMOUNT_DIGITS: Final = 18
AMOUNT_DECIMALS: Final = 4
"""What an amount or a balance may have before and after its decimal point: the event contract's own bounds."""

MAX_VERSION: Final = 2**63 - 1


class OperationType(Enum):
    """What kind of operation it was."""

    TRANSFER = "TRANSFER"
    TOP_UP = "TOP_UP"


class Direction(Enum):
    """Which way the money went, as the account sees it."""

    IN = "IN"
    OUT = "OUT"


@dataclass(frozen=True, slots=True)
class Posting:
    """What an operation did to one account: the version and the balance that it left."""

    account_id: UUID
    version: int
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Event:
    """One operation, whole. `amount` is positive, `occurred_at` in UTC, both balances are of the amount's currency."""

    id: UUID
    type: OperationType
    amount: Money
    sender: Posting
    recipient: Posting
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """One operation from one account's side: `amount` is positive, `direction` says which way it went."""

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


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The account's version at which a stream of new operations starts."""

    version: int


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Conditions that must all hold; amounts are inclusive, `since` is inclusive, `until` exclusive, both aware."""

    types: frozenset[OperationType] = frozenset()
    direction: Direction | None = None
    counterparty_id: UUID | None = None
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first, and whether there are more on either side."""

    rows: tuple[Row, ...]
    has_older: bool
    has_newer: bool


def parse_amount(text: str) -> Decimal:
    """An amount to compare with, from plain decimal notation: no sign, no exponent, no spaces.

    Raises:
        ValueError: the text is not such a number; the message is for people.
    """
    whole, _, decimals = text.partition(".")
    if not (text.isascii() and text.replace(".", "", 1).isdigit() and whole):
        raise ValueError("must be a decimal number such as 10.00")
    if len(whole) > AMOUNT_DIGITS or len(decimals) > AMOUNT_DECIMALS:
        raise ValueError(f"must have at most {AMOUNT_DIGITS} digits and {AMOUNT_DECIMALS} decimals")
    return Decimal(text)
