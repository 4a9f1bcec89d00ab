import itertools
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from subgraphs.analytics.service.domain.model import Direction, OperationType
from subgraphs.analytics.service.domain.statistics import (
    Bucket,
    Granularity,
    Group,
    StatisticsRange,
    Turnover,
    make_buckets,
)

PAID = (OperationType.TRANSFER, Direction.OUT)
TOPPED_UP = (OperationType.TOP_UP, Direction.IN)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make_range(since: str, until: str, granularity: Granularity = Granularity.DAY) -> StatisticsRange:
    return StatisticsRange(at(since), at(until), granularity)


class TestBounds:
    @pytest.mark.parametrize(
        ("since", "until", "granularity", "edges"),
        [
            ("2026-01-01T22:00", "2026-01-02T01:00", Granularity.HOUR, ["2026-01-01T23:00", "2026-01-02T00:00"]),
            ("2024-02-28", "2024-03-02", Granularity.DAY, ["2024-02-29", "2024-03-01"]),
            ("2026-02-28", "2026-03-02", Granularity.DAY, ["2026-03-01"]),
            ("2025-12-29", "2026-01-12", Granularity.WEEK, ["2026-01-05"]),
            ("2025-11-01", "2026-03-01", Granularity.MONTH, ["2025-12-01", "2026-01-01", "2026-02-01"]),
            ("2199-11-01", "2200-01-01", Granularity.MONTH, ["2199-12-01"]),
        ],
    )
    def test_bucket_bounds_follow_the_calendar(
        self, since: str, until: str, granularity: Granularity, edges: list[str]
    ) -> None:
        all_edges = [since, *edges, until]
        bounds = make_range(since, until, granularity).bounds()
        assert bounds == [(at(start), at(end)) for start, end in itertools.pairwise(all_edges)]

    def test_week_starts_on_monday(self) -> None:
        sunday_to_monday = make_range("2026-01-04T23:59:59", "2026-01-05T00:00:01", Granularity.WEEK)
        assert [end for _, end in sunday_to_monday.bounds()] == [at("2026-01-05"), at("2026-01-05T00:00:01")]

    def test_first_and_last_bucket_are_cut_to_the_range(self) -> None:
        bounds = make_range("2026-01-15T12:00", "2026-03-10", Granularity.MONTH).bounds()
        assert (bounds[0][0], bounds[-1][1]) == (at("2026-01-15T12:00"), at("2026-03-10"))
        assert len(bounds) == 3

    @pytest.mark.parametrize("granularity", Granularity)
    def test_range_of_a_microsecond_is_one_bucket(self, granularity: Granularity) -> None:
        since = at("1970-01-01")
        assert StatisticsRange(since, since + timedelta(microseconds=1), granularity).count == 1

    def test_bounds_are_utc_for_any_offset(self) -> None:
        east = timezone(timedelta(hours=3))
        moscow = StatisticsRange(
            datetime(2026, 1, 1, tzinfo=east),
            datetime(2026, 1, 2, tzinfo=east),
            Granularity.DAY,
        )
        assert moscow.bounds() == [
            (at("2025-12-31T21:00"), at("2026-01-01")),
            (at("2026-01-01"), at("2026-01-01T21:00")),
        ]

    @pytest.mark.parametrize("granularity", Granularity)
    def test_count_equals_the_number_of_bounds(self, granularity: Granularity) -> None:
        for days in (1, 6, 7, 8, 28, 30, 31, 41):
            each = StatisticsRange(at("2023-12-17T05:06:07"), at("2023-12-17") + timedelta(days=days), granularity)
            assert len(each.bounds()) == each.count


class TestViolations:
    def test_valid_range_has_no_violations(self) -> None:
        assert make_range("1970-01-01", "2053-01-01", Granularity.MONTH).violations() == []

    @pytest.mark.parametrize(
        ("invalid", "field"),
        [
            (make_range("2026-01-01", "2026-01-01"), "from"),
            (make_range("2026-01-02", "2026-01-01"), "from"),
            (make_range("1969-12-31", "2026-01-01"), "from"),
            (make_range("2026-01-01", "2200-01-01T00:00:01"), "to"),
            (make_range("0001-01-01", "2026-01-01", Granularity.MONTH), "from"),
            (make_range("2026-01-01", "2028-09-27T00:00:01", Granularity.DAY), "granularity"),
            (make_range("1970-01-01", "2200-01-01", Granularity.HOUR), "granularity"),
        ],
    )
    def test_violation_names_the_field(self, invalid: StatisticsRange, field: str) -> None:
        assert [violation.field for violation in invalid.violations()] == [field]

    def test_thousand_buckets_are_allowed(self) -> None:
        assert make_range("2026-01-01", "2028-09-27").count == 1000
        assert make_range("2026-01-01", "2028-09-27").violations() == []


class TestBuckets:
    def test_empty_buckets_have_the_opening_balance(self) -> None:
        buckets = make_buckets(make_range("2026-01-01", "2026-01-04"), Decimal(5), ())
        assert [(int(bucket.opening), int(bucket.closing)) for bucket in buckets] == [(5, 5)] * 3
        assert not any(bucket.turnovers for bucket in buckets)

    def test_bucket_opens_with_the_closing_balance_of_the_previous_one(self) -> None:
        groups = [
            Group(2, PAID, Turnover(1, Decimal(3)), 9, Decimal(12)),
            Group(0, PAID, Turnover(1, Decimal(5)), 6, Decimal(10)),
            Group(0, TOPPED_UP, Turnover(2, Decimal(10)), 8, Decimal(15)),
        ]
        buckets = make_buckets(make_range("2026-01-01", "2026-01-04"), Decimal(10), groups)
        assert [(int(bucket.opening), int(bucket.closing)) for bucket in buckets] == [(10, 15), (15, 15), (15, 12)]
        assert buckets[0].turnovers == {PAID: Turnover(1, Decimal(5)), TOPPED_UP: Turnover(2, Decimal(10))}

    def test_turnover_is_summed_by_direction_and_type(self) -> None:
        received = (OperationType.TRANSFER, Direction.IN)
        turnovers = {TOPPED_UP: Turnover(2, Decimal(10)), received: Turnover(1, Decimal("0.5"))}
        bucket = Bucket(at("2026-01-01"), at("2026-01-02"), Decimal(0), Decimal("10.5"), turnovers)
        assert bucket.turnover(Direction.IN) == Turnover(3, Decimal("10.5"))
        assert bucket.turnover(Direction.IN, [OperationType.TOP_UP]) == Turnover(2, Decimal(10))
        assert bucket.turnover(Direction.OUT) == Turnover()
        assert bucket.types == [OperationType.TRANSFER, OperationType.TOP_UP]
