"""Paging through a history that grows at the same time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.domain.model import Direction, OperationFilter, OperationType, Row

START = datetime(2026, 1, 1, tzinfo=UTC)
OTHERS = [UUID(int=number) for number in (1, 2, 3)]


@dataclass(frozen=True)
class PagingCase:
    """Rows of an account and the pages to read.

    Attributes:
        rows: rows in version order.
        initial_count: number of rows that are stored before the first page is read.
        repeated: rows that are inserted a second time.
        limit: maximum size of a page.
        conditions: filter of the pages.
    """

    rows: list[Row]
    initial_count: int
    repeated: list[Row]
    limit: int
    conditions: OperationFilter

    @property
    def matching(self) -> list[int]:
        """Versions of the initial rows that match the conditions."""
        return [row.account_version for row in self.rows[: self.initial_count] if matches(row, self.conditions)]


def matches(row: Row, conditions: OperationFilter) -> bool:
    return (
        (conditions.types is None or row.type in conditions.types)
        and conditions.direction in {None, row.direction}
        and conditions.counterparty_id in {None, row.counterparty_id}
        and (conditions.min_amount is None or row.amount >= conditions.min_amount)
        and (conditions.max_amount is None or row.amount <= conditions.max_amount)
        and (conditions.since is None or row.occurred_at >= conditions.since)
        and (conditions.until is None or row.occurred_at < conditions.until)
    )


@st.composite
def paging_cases(draw: st.DrawFn) -> PagingCase:
    account, amounts = uuid4(), st.integers(1, 9).map(Decimal)
    count = draw(st.integers(2, 30))
    rows = [
        Row(
            account,
            version,
            UUID(int=version),
            draw(st.sampled_from(OperationType)),
            draw(st.sampled_from(Direction)),
            draw(amounts),
            "RUB",
            Decimal(0),
            draw(st.sampled_from(OTHERS)),
            START + timedelta(hours=version // 2),
        )
        for version in range(1, count + 1)
    ]
    initial_count = draw(st.integers(1, count))
    hours = st.integers(0, 16).map(lambda hours: START + timedelta(hours=hours))
    conditions = OperationFilter(
        draw(st.none() | st.frozensets(st.sampled_from(OperationType), max_size=2)),
        draw(st.none() | st.sampled_from(Direction)),
        draw(st.none() | st.sampled_from(OTHERS)),
        draw(st.none() | amounts),
        draw(st.none() | amounts),
        draw(st.none() | hours),
        draw(st.none() | hours),
    )
    repeated = draw(st.lists(st.sampled_from(rows[:initial_count]), max_size=5))
    return PagingCase(rows, initial_count, repeated, draw(st.integers(1, 8)), conditions)


class TestPaging:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(case=paging_cases())
    async def test_paging_back_and_forth_returns_each_row_once(self, history: History, case: PagingCase) -> None:
        account_id, expected = case.rows[0].account_id, case.matching
        await history.insert(case.rows[: case.initial_count])
        page = await history.get_page(account_id, limit=case.limit, conditions=case.conditions)
        assert not page.has_newer
        versions_down = [row.account_version for row in page.rows]
        await history.insert([*case.rows[case.initial_count :], *case.repeated])  # new rows and repeated ones arrive
        while page.has_older:
            page = await history.get_page(
                account_id, limit=case.limit, older_than=versions_down[-1], conditions=case.conditions
            )
            versions_down += [row.account_version for row in page.rows]
        assert versions_down == expected[::-1]
        all_versions = [row.account_version for row in case.rows if matches(row, case.conditions)]
        versions_up: list[int] = []
        edge, more = 0, True
        while more:
            page = await history.get_page(account_id, limit=case.limit, newer_than=edge, conditions=case.conditions)
            assert page.has_older == bool(versions_up)
            versions_up += [row.account_version for row in reversed(page.rows)]
            edge, more = (versions_up[-1] if versions_up else 0), page.has_newer
        assert versions_up == all_versions
