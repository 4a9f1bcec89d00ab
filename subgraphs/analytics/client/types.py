"""Values of the analytics client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from subgraphs.analytics.client.operation import Operation
from wallet.money import Money


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Operations, newest first.

    Attributes:
        operations: the page.
        has_older: whether operations older than the page are stored.
        has_newer: whether operations newer than the page are stored.
        is_complete: whether the page lacks no operation that the ledger had when the request arrived.
    """

    operations: tuple[Operation, ...]
    has_older: bool
    has_newer: bool
    is_complete: bool


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Conditions that must all hold. The two amounts are decimal strings and inclusive. `from_` is inclusive, `to`
    exclusive.

    `metadata` has entries that the caller gave the operation, `text` a part of its description without regard to case.

    An operation must have one of the `types`; an empty tuple matches no operation, and None matches every type.
    """

    types: tuple[str, ...] | None = None
    direction: str | None = None
    counterparty_id: UUID | None = None
    min_amount: str | None = None
    max_amount: str | None = None
    from_: datetime | None = None
    to: datetime | None = None
    reference: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    text: str | None = None


NO_CONDITIONS: Final = OperationFilter()
"""Filter that every operation satisfies."""


@dataclass(frozen=True, slots=True)
class OperationPageRequest:
    """Requested page of an account's operations, newest first. Without a version, the page has the newest operations.

    Attributes:
        account_id: id of the account.
        limit: maximum number of operations; 0 for the server's default.
        older_than: returns the newest operations below this version of the account (`Operation.account_version`).
        newer_than: returns the oldest operations above this version; 0: the oldest of all. Not together with
            `older_than`.
        epoch: id of the ledger's epoch (`Operation.epoch`) to which the version in `older_than` or `newer_than`
            belongs.
        filter: conditions that each operation satisfies.
    """

    account_id: UUID
    limit: int
    older_than: int | None = None
    newer_than: int | None = None
    epoch: str = ""
    filter: OperationFilter = NO_CONDITIONS


@dataclass(frozen=True, slots=True)
class Turnover:
    """Number of operations and the sum of their amounts."""

    count: int
    amount: Money


@dataclass(frozen=True, slots=True)
class TypeTurnover:
    """Turnover of one type of operation, by direction."""

    type: Literal["TRANSFER", "TOP_UP"]
    incoming: Turnover
    outgoing: Turnover


@dataclass(frozen=True, slots=True)
class StatisticsBucket:
    """Turnover from `start` (inclusive) to `end` (exclusive), with the balances before and after."""

    start: datetime
    end: datetime
    count: int
    incoming: Turnover
    outgoing: Turnover
    net: Money
    opening: Money
    closing: Money
    by_type: tuple[TypeTurnover, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Buckets, oldest first.

    Attributes:
        buckets: buckets that cover the requested range without gaps.
        as_of_version: the account's version up to which operations are counted.
        is_complete: whether all operations of the range that the ledger had when the request arrived are counted.
        epoch: id of the ledger's epoch (`Operation.epoch`) to which `as_of_version` belongs.
    """

    buckets: tuple[StatisticsBucket, ...]
    as_of_version: int
    is_complete: bool
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The account's version at which a stream of new operations starts, and the ledger's epoch at that time."""

    version: int
    epoch: str = ""
