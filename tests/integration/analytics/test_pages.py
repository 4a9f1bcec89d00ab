"""Paging through a history that grows at the same time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.domain.model import (
    NO_WORDS,
    Direction,
    MetadataFilter,
    OperationFilter,
    OperationType,
    Page,
    PageRequest,
    Row,
    Words,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = [
    NO_WORDS,
    Words("Rent for March", "r1", {"order": "1"}, "users|alice"),
    Words("АРЕНДА 50% \\ a_b", "%", {"order": "1", "empty": ""}, "users|admin"),
    Words("it's 'quoted'\u200f \U0001f600", "r1", {}, "users|alice"),
    Words("rent"),
]
TEXTS = ["RENT", "аренда", "50%", "%", "_", "\\", "'", "\U0001f600", "a"]
ENTRIES = [
    MetadataFilter({"order": "1"}, "users|alice"),
    MetadataFilter({"empty": ""}, "users|admin"),
    MetadataFilter({"empty": "", "order": "1"}, "users|admin"),
]
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
        and conditions.reference in {None, row.words.reference}
        and (conditions.text is None or conditions.text.lower() in row.words.description.lower())
        and (
            conditions.metadata is None
            or (
                conditions.metadata.entries.items() <= row.words.metadata.items()
                and row.words.created_by == conditions.metadata.created_by
            )
        )
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
            draw(st.sampled_from(WORDS)),
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
        draw(st.none() | st.none() | st.sampled_from(["r1", "%"])),
        draw(st.none() | st.none() | st.sampled_from(ENTRIES)),
        draw(st.none() | st.none() | st.sampled_from(TEXTS)),
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


@st.composite
def stored_accounts(draw: st.DrawFn) -> tuple[list[Row], list[tuple[PageRequest, int | None]]]:
    """Draw the rows of a few accounts, with gaps, and pages of them with the accounts' versions in the ledger."""
    rows: list[Row] = []
    pages = []
    for _ in range(draw(st.integers(1, 3))):
        account, last = uuid4(), draw(st.integers(0, 40))
        lost = draw(st.sets(st.integers(1, 40), max_size=4))
        rows += [operation_row(account, version) for version in range(1, last + 1) if version not in lost]
        ahead = draw(st.sampled_from((-5, -1, 0, 0, 0, 1, 25)))  # the ledger may be ahead of the history, or behind it
        for _ in range(draw(st.integers(1, 3))):
            edge = draw(st.integers(0, 42))
            bound: dict[str, Any] = draw(st.sampled_from(({}, {}, {"older_than": edge}, {"newer_than": edge})))
            conditions = draw(
                st.sampled_from((OperationFilter(), OperationFilter(), OperationFilter(direction=Direction.IN)))
            )
            request = PageRequest(account, draw(st.integers(1, 12)), **bound, conditions=conditions)
            pages.append((request, draw(st.sampled_from((None, *3 * (max(0, last + ahead),))))))
    return rows, pages


def operation_row(account: UUID, version: int) -> Row:
    direction = Direction.IN if version % 2 else Direction.OUT
    time = START + timedelta(hours=version)
    return Row(
        account,
        version,
        UUID(int=version),
        OperationType.TRANSFER,
        direction,
        Decimal(1),
        "RUB",
        Decimal(0),
        OTHERS[0],
        time,
    )


class TestBatch:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(case=stored_accounts())
    async def test_pages_of_a_batch_are_the_pages_that_are_read_alone(
        self, history: History, case: tuple[list[Row], list[tuple[PageRequest, int | None]]]
    ) -> None:
        rows, pages = case
        await history.insert(rows)
        requests = [request for request, _ in pages]
        expected = [await read_alone(history, request) for request in requests]
        assert await history.get_pages(requests, [version for _, version in pages]) == expected

    async def test_pages_of_a_complete_history_are_one_query(
        self, history: History, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accounts = [uuid4() for _ in range(20)]
        await history.insert([operation_row(account, version) for account in accounts for version in range(1, 31)])
        bounds: list[dict[str, Any]] = [{}, {"older_than": 9}, {"newer_than": 0}, {"newer_than": 28}]
        requests = [PageRequest(account, 5, **bound) for account in accounts for bound in bounds]
        expected = [await read_alone(history, request) for request in requests]
        queries = count_queries(history, monkeypatch)
        assert await history.get_pages(requests, [30] * len(requests)) == expected
        assert len(queries) == 1


async def read_alone(history: History, request: PageRequest) -> Page:
    return await history.get_page(
        request.account_id,
        limit=request.limit,
        older_than=request.older_than,
        newer_than=request.newer_than,
        conditions=request.conditions,
    )


def count_queries(history: History, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each further query is added."""
    queries: list[str] = []
    query = history._database.query

    async def record(statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        queries.append(statement)
        return await query(statement, parameters)

    monkeypatch.setattr(history._database, "query", record)
    return queries
