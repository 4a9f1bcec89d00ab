"""What went in and out of an account over time: the calendar, and how stored sums become buckets. Pure."""

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
"""The first time and, exclusive, the last one that an operation may be of."""

_MONTHS: Final = 12


class Granularity(Enum):
    """The length of a bucket, by the calendar in UTC; a week begins on Monday."""

    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


@dataclass(frozen=True, slots=True)
class Frame:
    """A range of time, `since` inclusive, `until` exclusive, both aware, and the buckets that it falls into."""

    since: datetime
    until: datetime
    granularity: Granularity

    @property
    def origin(self) -> datetime:
        """Where the first bucket would begin, were it whole."""
        return _floor(self.since.astimezone(UTC), self.granularity)

    @property
    def count(self) -> int:
        """How many buckets there are."""
        last = _floor(self.until.astimezone(UTC) - timedelta(microseconds=1), self.granularity)
        if self.granularity is Granularity.MONTH:
            return (last.year - self.origin.year) * _MONTHS + last.month - self.origin.month + 1
        return (last - self.origin) // _LENGTHS[self.granularity] + 1

    def bounds(self) -> list[tuple[datetime, datetime]]:
        """Each bucket's start and end, in order. The first and the last are cut to the range."""
        inner = [_step(self.origin, self.granularity, number) for number in range(1, self.count)]
        edges = [self.since.astimezone(UTC), *inner, self.until.astimezone(UTC)]
        return list(itertools.pairwise(edges))

    def violations(self) -> list[FieldViolation]:
        """What is wrong with it, by the contract's names."""
        outside = [
            FieldViolation(name, "must be of the years 1970 to 2199")
            for name, time in (("from", self.since), ("to", self.until))
            if not EARLIEST <= time <= LATEST
        ]
        if outside:
            return outside
        if self.since >= self.until:
            return [FieldViolation("from", "must be before to")]
        if self.count > MAX_BUCKETS:
            problem = f"makes {self.count:,} buckets of the range, and at most {MAX_BUCKETS:,} are answered"
            return [FieldViolation("granularity", f"{problem}: choose a longer one, or a shorter range")]
        return []


@dataclass(frozen=True, slots=True)
class Turnover:
    """How many operations, and the sum of their amounts."""

    count: int = 0
    amount: Decimal = Decimal(0)

    def __add__(self, other: "Turnover") -> "Turnover":
        return Turnover(self.count + other.count, self.amount + other.amount)


Kind = tuple[OperationType, Direction]


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of one kind in one bucket, these counted from 0: their turnover, the greatest version among them,
    and the balance that this one left.
    """

    bucket: int
    kind: Kind
    turnover: Turnover
    version: int
    balance_after: Decimal


@dataclass(frozen=True, slots=True)
class Bucket:
    """What went in and out from `start` (inclusive) to `end` (exclusive), and the balances before and after."""

    start: datetime
    end: datetime
    opening: Decimal
    closing: Decimal
    turnovers: Mapping[Kind, Turnover] = field(default_factory=dict)

    def turnover(self, direction: Direction, types: Iterable[OperationType] = OperationType) -> Turnover:
        """What went one way, by operations of these types."""
        each = (self.turnovers.get((kind, direction), Turnover()) for kind in types)
        return sum(each, Turnover())

    @property
    def types(self) -> list[OperationType]:
        """Those that occur."""
        return [kind for kind in OperationType if any((kind, each) in self.turnovers for each in Direction)]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The buckets of a frame, in amounts of `currency`. What the ledger did after version `as_of_version` is not in
    them; `is_complete` says that all before it is.
    """

    currency: str
    buckets: tuple[Bucket, ...]
    as_of_version: int
    is_complete: bool


def buckets(frame: Frame, opening: Decimal, groups: Iterable[Group]) -> tuple[Bucket, ...]:
    """All buckets of a frame: each opens with what the one before closed with, the first with `opening`."""
    found: dict[int, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.bucket].append(group)
    made: list[Bucket] = []
    balance = opening
    for number, (start, end) in enumerate(frame.bounds()):
        here = found[number]
        closing = max(here, key=lambda group: group.version).balance_after if here else balance
        made.append(Bucket(start, end, balance, closing, {group.kind: group.turnover for group in here}))
        balance = closing
    return tuple(made)


_LENGTHS: Final = {
    Granularity.HOUR: timedelta(hours=1),
    Granularity.DAY: timedelta(days=1),
    Granularity.WEEK: timedelta(weeks=1),
}


def _floor(time: datetime, granularity: Granularity) -> datetime:
    """The start of the whole bucket that a time in UTC is in."""
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
    """The start of the bucket `number` places after the one that starts at `origin`."""
    if granularity is not Granularity.MONTH:
        return origin + number * _LENGTHS[granularity]
    years, month = divmod(origin.month - 1 + number, _MONTHS)
    return origin.replace(year=origin.year + years, month=month + 1)
