"""Turnover of an account per calendar period, with the balances before and after."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Final

from subgraphs.analytics.service.domain.model import Direction, OperationType
from wallet.errors import FieldViolation

MAX_BUCKETS: Final = 1_000
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""Range of valid times of operations: from `EARLIEST` (inclusive) to `LATEST` (exclusive)."""

_MONTHS: Final = 12


class Granularity(Enum):
    """Length of a bucket, by the calendar in UTC. A week starts on Monday."""

    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


@dataclass(frozen=True, slots=True)
class StatisticsRange:
    """A range of time that is divided into buckets.

    `since` is inclusive, `until` exclusive; both have a time zone.
    """

    since: datetime
    until: datetime
    granularity: Granularity

    @property
    def origin(self) -> datetime:
        """Start of the calendar period that contains `since`."""
        return _floor(self.since.astimezone(UTC), self.granularity)

    @property
    def count(self) -> int:
        """Number of buckets."""
        last = _floor(self.until.astimezone(UTC) - timedelta(microseconds=1), self.granularity)
        if self.granularity is Granularity.MONTH:
            return (last.year - self.origin.year) * _MONTHS + last.month - self.origin.month + 1
        return (last - self.origin) // _LENGTHS[self.granularity] + 1

    def bounds(self) -> list[tuple[datetime, datetime]]:
        """Return the start and end of each bucket, in order. The first and the last are cut to the range."""
        inner = [_step(self.origin, self.granularity, number) for number in range(1, self.count)]
        edges = [self.since.astimezone(UTC), *inner, self.until.astimezone(UTC)]
        return list(itertools.pairwise(edges))

    def violations(self) -> list[FieldViolation]:
        """Return the violations of the API's limits, by field."""
        outside = [
            FieldViolation(name, "must be in the years 1970 to 2199")
            for name, time in (("from", self.since), ("to", self.until))
            if not EARLIEST <= time <= LATEST
        ]
        if outside:
            return outside
        if self.since >= self.until:
            return [FieldViolation("from", "must be before to")]
        if self.count > MAX_BUCKETS:
            problem = f"divides the range into {self.count:,} buckets, and the maximum is {MAX_BUCKETS:,}"
            return [FieldViolation("granularity", f"{problem}: choose a longer granularity or a shorter range")]
        return []


@dataclass(frozen=True, slots=True)
class Turnover:
    """Number of operations and the sum of their amounts."""

    count: int = 0
    amount: Decimal = Decimal(0)

    def __add__(self, other: "Turnover") -> "Turnover":
        return Turnover(self.count + other.count, self.amount + other.amount)


Kind = tuple[OperationType, Direction]


@dataclass(frozen=True, slots=True)
class Group:
    """Operations of one kind in one bucket.

    Attributes:
        bucket: index of the bucket, from 0.
        kind: type and direction.
        turnover: number and sum of the operations.
        version: highest version of the account among these operations.
        balance_after: balance of the account after the operation of this version.
    """

    bucket: int
    kind: Kind
    turnover: Turnover
    version: int
    balance_after: Decimal


@dataclass(frozen=True, slots=True)
class Bucket:
    """Turnover from `start` (inclusive) to `end` (exclusive), with the balances before and after."""

    start: datetime
    end: datetime
    opening: Decimal
    closing: Decimal
    turnovers: Mapping[Kind, Turnover] = field(default_factory=dict)

    def turnover(self, direction: Direction, types: Iterable[OperationType] = OperationType) -> Turnover:
        """Return the turnover in one direction, of operations of these types."""
        each = (self.turnovers.get((kind, direction), Turnover()) for kind in types)
        return sum(each, Turnover())

    @property
    def types(self) -> list[OperationType]:
        """Types of operations that occur in the bucket."""
        return [kind for kind in OperationType if any((kind, each) in self.turnovers for each in Direction)]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Buckets of a range.

    Attributes:
        currency: currency of all amounts.
        buckets: oldest first, without gaps.
        as_of_version: the account's version up to which operations are counted.
        is_complete: whether all operations of the range that the ledger had when the request arrived are counted.
        epoch: id of the ledger's epoch (see `domain.model`) to which the operations of the history belong.
    """

    currency: str
    buckets: tuple[Bucket, ...]
    as_of_version: int
    is_complete: bool
    epoch: str = ""


def make_buckets(range_: StatisticsRange, opening: Decimal, groups: Iterable[Group]) -> tuple[Bucket, ...]:
    """Return all buckets of a range. Each opens with the closing balance of the previous one."""
    groups_by_bucket: dict[int, list[Group]] = defaultdict(list)
    for group in groups:
        groups_by_bucket[group.bucket].append(group)
    result: list[Bucket] = []
    balance = opening
    for number, (start, end) in enumerate(range_.bounds()):
        bucket_groups = groups_by_bucket[number]
        closing = max(bucket_groups, key=lambda group: group.version).balance_after if bucket_groups else balance
        result.append(Bucket(start, end, balance, closing, {group.kind: group.turnover for group in bucket_groups}))
        balance = closing
    return tuple(result)


_LENGTHS: Final = {
    Granularity.HOUR: timedelta(hours=1),
    Granularity.DAY: timedelta(days=1),
    Granularity.WEEK: timedelta(weeks=1),
}


def _floor(time: datetime, granularity: Granularity) -> datetime:
    """Return the start of the calendar period that contains a time in UTC."""
    if granularity is Granularity.HOUR:
        return time.replace(minute=0, second=0, microsecond=0)
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    match granularity:
        case Granularity.WEEK:
            return day - timedelta(days=day.weekday())
        case Granularity.MONTH:
            return day.replace(day=1)
    return day


def _step(origin: datetime, granularity: Granularity, number: int) -> datetime:
    """Return the start of the calendar period that is `number` periods after the one at `origin`."""
    if granularity is not Granularity.MONTH:
        return origin + number * _LENGTHS[granularity]
    years, month = divmod(origin.month - 1 + number, _MONTHS)
    return origin.replace(year=origin.year + years, month=month + 1)
