"""Statistics from ClickHouse, compared with a model in Python and with the ledger."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.auth.principal import Role
from kit.rpc import request_context
from kit.rpc.status import error_from_rpc
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.domain.model import Direction, OperationType, Row
from subgraphs.analytics.service.domain.rows import rows_from_event
from subgraphs.analytics.service.domain.statistics import Granularity, Statistics, StatisticsRange, Turnover
from tests.integration.analytics.environment import AnalyticsEnvironment, run_analytics
from tests.integration.analytics.fake_bank import CLEARING, START
from wallet.errors import AccountNotFound, InvalidInput, Unavailable
from wallet.money import Money

EDGES = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2023, 12, 31, 23, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=UTC),  # the start of a week, a month and a year
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2025, 3, 1, tzinfo=UTC),
    datetime(2025, 12, 29, tzinfo=UTC),
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # daylight saving time starts in Europe
    datetime(2199, 12, 30, tzinfo=UTC),
]
SCALES = {"RUB": 2, "JPY": 0, "BHD": 3, "CLF": 4}
STEP = timedelta(microseconds=1)

near_an_edge = st.builds(
    lambda edge, minutes, micros: max(EDGES[0], edge + timedelta(minutes=minutes, microseconds=micros)),
    st.sampled_from(EDGES),
    st.sampled_from([-1440, -61, -60, 0, 0, 0, 1, 60, 1440, 10_080]),
    st.sampled_from([-1, 0, 0, 1]),
)


@dataclass(frozen=True)
class Case:
    """Rows of one account in version order, rows that are inserted again, and the range of the statistics."""

    rows: list[Row]
    again: list[Row]
    frame: StatisticsRange


LATEST = datetime(2200, 1, 1, tzinfo=UTC)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    account, currency = uuid4(), draw(st.sampled_from(sorted(SCALES)))
    unit = Decimal(1).scaleb(-SCALES[currency])
    balance = draw(st.integers(0, 10**6)) * unit
    rows = []
    for version, time in enumerate(sorted(draw(st.lists(near_an_edge, min_size=1, max_size=25))), start=1):
        amount = draw(st.one_of(st.integers(1, 500), st.just(10**12))) * unit
        direction = draw(st.sampled_from(Direction))
        balance += amount if direction is Direction.IN else -amount
        kind = draw(st.sampled_from(OperationType))
        rows.append(
            Row(account, version, UUID(int=version), kind, direction, amount, currency, balance, UUID(int=0), time)
        )
    granularity = draw(st.sampled_from(Granularity))
    since = min(LATEST - STEP, draw(st.one_of(near_an_edge, st.sampled_from([row.occurred_at for row in rows]))))
    longest = {
        Granularity.HOUR: timedelta(hours=900),
        Granularity.DAY: timedelta(days=900),
        Granularity.WEEK: timedelta(weeks=900),
        Granularity.MONTH: timedelta(days=27_000),
    }[granularity]
    ends = [time for time in (*EDGES, *(row.occurred_at + STEP for row in rows)) if since < time <= since + longest]
    end = draw(st.sampled_from([since + STEP, since + longest / 7, *ends]))
    again = draw(st.lists(st.sampled_from(rows), max_size=10))
    return Case(rows, again, StatisticsRange(since, min(end, LATEST), granularity))


def label(time: datetime, granularity: Granularity) -> Any:
    """Return a key that is equal for all times of a bucket."""
    return {
        Granularity.HOUR: time.strftime("%Y-%m-%d %H"),
        Granularity.DAY: time.date(),
        Granularity.WEEK: time.isocalendar()[:2],
        Granularity.MONTH: (time.year, time.month),
    }[granularity]


def check(statistics: Statistics, rows: list[Row], frame: StatisticsRange) -> None:
    """Assert that the statistics are those of the rows."""
    first = rows[0]
    signed = {row.account_version: row.amount if row.direction is Direction.IN else -row.amount for row in rows}
    balance = first.balance_after - signed[first.account_version]
    for row in rows:
        if row.occurred_at < frame.since:
            balance = row.balance_after
    assert statistics.buckets[0].start == frame.since
    assert statistics.buckets[-1].end == frame.until
    for bucket, following in zip(statistics.buckets, [*statistics.buckets[1:], None], strict=True):
        assert following is None or following.start == bucket.end
        last = bucket.end - STEP
        assert label(bucket.start, frame.granularity) == label(last, frame.granularity)
        assert following is None or label(following.start, frame.granularity) != label(last, frame.granularity)
        rows_in_bucket = [row for row in rows if bucket.start <= row.occurred_at < bucket.end]
        assert bucket.opening == balance
        balance += sum(signed[row.account_version] for row in rows_in_bucket)
        assert bucket.closing == balance
        for direction in Direction:
            for kind in OperationType:
                amounts = [row.amount for row in rows_in_bucket if (row.type, row.direction) == (kind, direction)]
                turnover = bucket.turnover(direction, [kind])
                assert (turnover.count, turnover.amount) == (len(amounts), sum(amounts))


class TestHistoryStatistics:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(case=cases())
    async def test_statistics_equal_the_rows_without_repeats(self, history: History, case: Case) -> None:
        await history.insert(case.rows)
        for half in (case.again[::2], case.again[1::2]):  # so that some rows are stored three times
            if half:
                await history.insert(half)
        statistics = await history.get_statistics(case.rows[0].account_id, case.frame, len(case.rows))
        assert statistics is not None
        check(statistics, case.rows, case.frame)
        assert (statistics.as_of_version, statistics.is_complete) == (len(case.rows), True)
        assert statistics.currency == case.rows[0].currency

    async def test_statistics_without_rows_are_none(self, history: History) -> None:
        await history.insert([row(1)])
        assert await history.get_statistics(uuid4(), DAYS, 0) is None

    async def test_sums_above_the_maximum_balance_are_exact(self, history: History) -> None:
        """The sum has more digits than a float or the type of amounts (22 digits) can hold."""
        largest_amount = Decimal("999999999999999999.9999")
        rows = [
            replace(row(version), amount=largest_amount, balance_after=-largest_amount) for version in range(1, 1001)
        ]
        await history.insert(rows)
        statistics = await history.get_statistics(ACCOUNT, DAYS, 0)
        assert statistics is not None
        turnovers = [each for bucket in statistics.buckets for each in bucket.turnovers.values()]
        assert sum(each.amount for each in turnovers) == Decimal("999999999999999999999.9000")

    @pytest.mark.parametrize(
        ("stored", "complete"),
        [
            ([1, 2, 3, 4, 5, 6], True),
            ([3, 4, 5, 6], False),  # version 2, which is missing, may be in the range
            ([1, 3, 4, 5], False),
            ([1, 2, 4, 5], False),
            ([1, 2, 3, 5], False),
            ([1, 2, 3], True),  # the statistics are complete as of version 3
            ([2, 3, 4, 5], False),
            ([1], True),
            ([1, 5], False),
            ([5], False),
        ],
    )
    async def test_missing_operation_makes_statistics_incomplete(
        self, history: History, stored: list[int], *, complete: bool
    ) -> None:
        """The range is the second day, with versions 2, 3 and 4."""
        at = {1: 0, 2: 24, 3: 30, 4: 47, 5: 48, 6: 49}
        await history.insert([replace(row(each), occurred_at=MIDNIGHT + timedelta(hours=at[each])) for each in stored])
        second = StatisticsRange(MIDNIGHT + timedelta(days=1), MIDNIGHT + timedelta(days=2), Granularity.DAY)
        statistics = await history.get_statistics(ACCOUNT, second, max(stored))
        assert statistics is not None
        assert (statistics.is_complete, statistics.as_of_version) == (complete, max(stored))

    @pytest.mark.parametrize(("version", "complete"), [(3, True), (4, False), (None, False)])
    async def test_statistics_below_the_version_of_the_ledger_are_incomplete(
        self, history: History, version: int | None, *, complete: bool
    ) -> None:
        await history.insert([replace(row(each), occurred_at=MIDNIGHT) for each in (1, 2, 3)])
        statistics = await history.get_statistics(ACCOUNT, DAYS, version)
        assert statistics is not None
        assert statistics.is_complete is complete

    async def test_statistics_of_a_past_range_are_complete_without_the_newest_operations(
        self, history: History
    ) -> None:
        await history.insert([replace(row(each), occurred_at=MIDNIGHT + timedelta(days=each)) for each in (1, 2, 3)])
        past = StatisticsRange(MIDNIGHT, MIDNIGHT + timedelta(days=2), Granularity.DAY)
        statistics = await history.get_statistics(ACCOUNT, past, 9)
        assert statistics is not None
        assert statistics.is_complete

    async def test_gap_outside_of_the_range_is_ignored(self, history: History) -> None:
        await history.insert([row(each) for each in (7, 9, 20, 21, 30, 33, 34)])  # one per hour
        frame = StatisticsRange(MIDNIGHT + timedelta(hours=21), MIDNIGHT + timedelta(hours=22), Granularity.HOUR)
        statistics = await history.get_statistics(ACCOUNT, frame, 34)
        assert statistics is not None
        assert statistics.buckets[0].turnover(Direction.IN) == Turnover(1, Decimal(21))
        assert [statistics.buckets[0].opening, statistics.buckets[0].closing] == [Decimal(210), Decimal(231)]
        assert not statistics.is_complete  # the missing version 22 may be before 22:00
        await history.insert([row(22)])
        statistics = await history.get_statistics(ACCOUNT, frame, 34)
        assert statistics is not None
        assert statistics.is_complete


ACCOUNT = uuid4()
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = StatisticsRange(MIDNIGHT, MIDNIGHT + timedelta(days=50), Granularity.DAY)


def row(version: int) -> Row:
    """Return an incoming row. Each version is one hour later and one rouble more than the previous one."""
    return Row(
        ACCOUNT,
        version,
        UUID(int=version),
        OperationType.TRANSFER,
        Direction.IN,
        Decimal(version),
        "RUB",
        Decimal(version * (version + 1) // 2),
        UUID(int=0),
        MIDNIGHT + timedelta(hours=version),
    )


@pytest.fixture
async def service(env: AnalyticsEnvironment) -> AsyncIterator[AnalyticsEnvironment]:
    """Environment with a running analytics service."""
    async with run_analytics(env.settings):
        yield env


@pytest.fixture
async def client(service: AnalyticsEnvironment) -> AsyncIterator[AnalyticsClient]:
    async with AnalyticsClient.connect(service.settings.analytics_grpc_listen) as client:
        yield client


RANGE: dict[str, Any] = {"from_": START, "to": START + timedelta(hours=3), "granularity": "HOUR"}


class TestAccountStatistics:
    async def test_statistics_equal_the_ledger(self, service: AnalyticsEnvironment, client: AnalyticsClient) -> None:
        alice, bob = service.bank.open("alice"), service.bank.open("bob")
        events = [
            service.bank.transfer(CLEARING, alice, "500.00"),
            service.bank.transfer(alice, bob, "20.00"),
            service.bank.transfer(alice, bob, "30.50"),
            service.bank.transfer(bob, alice, "1.25"),
        ]
        await service.history.insert([each for event in events for each in rows_from_event(event)])
        with service.as_user("alice"):
            statistics = await client.get_statistics(alice, **RANGE)
        assert (statistics.as_of_version, statistics.is_complete) == (4, True)
        first, *others = statistics.buckets
        assert (first.start, first.end) == (START, datetime(2026, 1, 2, 4, tzinfo=UTC))
        assert first.count == 4
        assert (first.incoming.count, str(first.incoming.amount)) == (2, "501.25")
        assert (first.outgoing.count, str(first.outgoing.amount)) == (2, "50.50")
        assert [str(each) for each in (first.net, first.opening, first.closing)] == ["450.75", "0.00", "450.75"]
        assert [(each.type, str(each.incoming.amount), str(each.outgoing.amount)) for each in first.by_type] == [
            ("TRANSFER", "1.25", "50.50"),
            ("TOP_UP", "500.00", "0.00"),
        ]
        assert [(str(each.opening), str(each.closing), each.count) for each in others] == [("450.75", "450.75", 0)] * 3
        assert others[-1].end == START + timedelta(hours=3)

    async def test_account_without_operations_has_its_balance(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice = service.bank.open("alice")
        with service.as_user("alice"):
            statistics = await client.get_statistics(alice, **RANGE)
        assert [(str(each.opening), str(each.closing)) for each in statistics.buckets] == [("0.00", "0.00")] * 4
        assert (statistics.as_of_version, statistics.is_complete) == (0, True)

    async def test_statistics_are_incomplete_while_nothing_is_stored(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice = service.bank.open("alice")
        service.bank.transfer(CLEARING, alice, "500.00")
        with service.as_user("alice"):
            statistics = await client.get_statistics(alice, **RANGE)
        assert (statistics.as_of_version, statistics.is_complete) == (0, False)

    async def test_statistics_are_incomplete_while_the_bank_is_unavailable(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice = service.bank.open("alice")
        await service.history.insert(rows_from_event(service.bank.transfer(CLEARING, alice, "500.00")))
        with service.as_user("alice"):
            assert (await client.get_statistics(alice, **RANGE)).is_complete
            service.bank.is_down = True
            assert not (await client.get_statistics(alice, **RANGE)).is_complete

    @pytest.mark.parametrize("way", ["in", "out"])
    async def test_account_without_stored_operations_has_its_opening_balance(
        self, env: AnalyticsEnvironment, way: str
    ) -> None:
        """The ledger's current balance includes operations that the history lacks, so it is not the opening balance."""
        alice, bob = env.bank.open("alice"), env.bank.open("bob")
        env.bank.transfer(*((bob, alice) if way == "in" else (alice, bob)), "10.00")
        env.bank.transfer(alice, bob, "5.00")
        assert await env.ledger.get_opening_balance(alice) == Money.parse("0.00")

    async def test_statistics_of_another_user_are_not_found(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        bobs_account = service.bank.open("bob")
        with service.as_user("alice"), pytest.raises(AccountNotFound):
            await client.get_statistics(bobs_account, **RANGE)
        with request_context.as_service(lambda: service.keys.user("operator", Role.OPERATOR)):
            assert (await client.get_statistics(bobs_account, **RANGE)).as_of_version == 0
            with pytest.raises(AccountNotFound):
                await client.get_statistics(uuid4(), **RANGE)

    async def test_unavailable_bank_is_reported(self, service: AnalyticsEnvironment, client: AnalyticsClient) -> None:
        alice = service.bank.open("alice")
        service.bank.is_down = True
        with service.as_user("alice"), pytest.raises(Unavailable):
            await client.get_statistics(alice, **RANGE)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"account_id": "x"}, "accountId"),
            ({"from": None}, "from"),
            ({"to": None}, "to"),
            ({"from": {"seconds": 2**60}}, "from"),
            ({"to": {"seconds": 2**33}}, "to"),
            ({"to": {"seconds": 0}}, "from"),
            ({"granularity": 0}, "granularity"),
            ({"granularity": 7}, "granularity"),
            ({"to": {"seconds": 3600 * 1000 + 1}}, "granularity"),
        ],
    )
    async def test_invalid_range_names_its_field(
        self, service: AnalyticsEnvironment, wrong: dict[str, Any], field: str
    ) -> None:
        good: dict[str, Any] = {
            "account_id": str(uuid4()),
            "from": {"seconds": 0},
            "to": {"seconds": 3600},
            "granularity": analytics_pb2.GRANULARITY_HOUR,
        }
        request = analytics_pb2.GetStatisticsRequest(**good | wrong)
        metadata = (("authorization", f"Bearer {service.keys.user('alice')}"),)
        async with grpc.aio.insecure_channel(service.settings.analytics_grpc_listen) as channel:
            stub: analytics_pb2_grpc.AnalyticsServiceAsyncStub = analytics_pb2_grpc.AnalyticsServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetStatistics(request, metadata=metadata)
        error = error_from_rpc(caught.value, "analytics")
        assert isinstance(error, InvalidInput)
        assert [violation.field for violation in error.violations] == [field]
