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
class Walk:
    """Rows in version order, of which `at_first` are stored at the start, and the pages to read."""

    rows: list[Row]
    at_first: int
    again: list[Row]
    limit: int
    conditions: OperationFilter

    @property
    def matching(self) -> list[int]:
        """Versions of the rows that match and are stored at the start."""
        return [row.account_version for row in self.rows[: self.at_first] if matches(row, self.conditions)]


def matches(row: Row, conditions: OperationFilter) -> bool:
    return (
        (not conditions.types or row.type in conditions.types)
        and conditions.direction in {None, row.direction}
        and conditions.counterparty_id in {None, row.counterparty_id}
        and (conditions.min_amount is None or row.amount >= conditions.min_amount)
        and (conditions.max_amount is None or row.amount <= conditions.max_amount)
        and (conditions.since is None or row.occurred_at >= conditions.since)
        and (conditions.until is None or row.occurred_at < conditions.until)
    )


@st.composite
def walks(draw: st.DrawFn) -> Walk:
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
    at_first = draw(st.integers(1, count))
    hours = st.integers(0, 16).map(lambda hours: START + timedelta(hours=hours))
    conditions = OperationFilter(
        draw(st.frozensets(st.sampled_from(OperationType), max_size=2)),
        draw(st.none() | st.sampled_from(Direction)),
        draw(st.none() | st.sampled_from(OTHERS)),
        draw(st.none() | amounts),
        draw(st.none() | amounts),
        draw(st.none() | hours),
        draw(st.none() | hours),
    )
    again = draw(st.lists(st.sampled_from(rows[:at_first]), max_size=5))
    return Walk(rows, at_first, again, draw(st.integers(1, 8)), conditions)


class TestPaging:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(walk=walks())
    async def test_paging_back_and_forth_returns_each_row_once(self, history: History, walk: Walk) -> None:
        account_id, expected = walk.rows[0].account_id, walk.matching
        await history.insert(walk.rows[: walk.at_first])
        page = await history.get_page(account_id, limit=walk.limit, conditions=walk.conditions)
        assert not page.has_newer
        down = [row.account_version for row in page.rows]
        await history.insert([*walk.rows[walk.at_first :], *walk.again])  # new rows and repeated ones arrive
        while page.has_older:
            page = await history.get_page(account_id, limit=walk.limit, older_than=down[-1], conditions=walk.conditions)
            down += [row.account_version for row in page.rows]
        assert down == expected[::-1]
        everything = [row.account_version for row in walk.rows if matches(row, walk.conditions)]
        up: list[int] = []
        edge, more = 0, True
        while more:
            page = await history.get_page(account_id, limit=walk.limit, newer_than=edge, conditions=walk.conditions)
            assert page.has_older == bool(up)
            up += [row.account_version for row in reversed(page.rows)]
            edge, more = (up[-1] if up else 0), page.has_newer
        assert up == everything
