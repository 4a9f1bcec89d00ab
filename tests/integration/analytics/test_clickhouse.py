from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from provisioning.certificates import CertificateFiles, ensure_certificates
from stack.engines.children import ClickHouse
from stack.ports import free_ports
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import Coverage, History
from subgraphs.analytics.service.domain.model import Direction, OperationFilter, OperationType, Row
from subgraphs.analytics.service.migrations.schema import upgrade
from tests.tls_proxy import tls_proxy
from wallet.errors import Unavailable

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FRIEND = uuid4()


@pytest.fixture
def account() -> UUID:
    return uuid4()


@pytest.fixture
def row(account: UUID) -> Callable[[int], Row]:
    """Return a function that makes the row of a version.

    Odd versions are incoming, every third one is a top-up, every fourth one has the counterparty FRIEND.
    """

    def make(version: int) -> Row:
        return Row(
            account_id=account,
            account_version=version,
            operation_id=UUID(int=version),
            type=OperationType.TOP_UP if version % 3 == 0 else OperationType.TRANSFER,
            direction=Direction.IN if version % 2 else Direction.OUT,
            amount=Decimal(version) + Decimal("0.25"),
            currency="RUB",
            balance_after=Decimal("123456789012345678.25") * (-1) ** version,
            counterparty_id=FRIEND if version % 4 == 0 else UUID(int=0),
            occurred_at=START + timedelta(microseconds=version),
        )

    return make


def versions(rows: Iterable[Row]) -> list[int]:
    return [row.account_version for row in rows]


class TestInsert:
    async def test_rows_are_read_as_they_were_inserted(
        self, history: History, row: Callable[[int], Row], account: UUID
    ) -> None:
        rows = [row(version) for version in (1, 2, 3)]
        await history.insert(rows)
        assert await history.list_after(account, 0, 10) == rows

    async def test_row_that_is_inserted_twice_counts_once(
        self, history: History, row: Callable[[int], Row], account: UUID
    ) -> None:
        for _ in range(3):
            await history.insert([row(1), row(2), row(2)])
        page = await history.get_page(account, limit=10)
        assert versions(page.rows) == [2, 1]
        assert await history.get_coverage([account]) == {account: Coverage(2, 2, page.rows[0].operation_id)}
        assert await history.get_complete_version(account) == 2

    async def test_history_has_only_rows_of_its_account(
        self, history: History, row: Callable[[int], Row], account: UUID
    ) -> None:
        await history.insert([row(1), replace(row(2), account_id=uuid4())])
        assert versions(await history.list_after(account, 0, 10)) == [1]


class TestPage:
    @pytest.fixture
    async def filled(self, history: History, row: Callable[[int], Row]) -> History:
        await history.insert([row(version) for version in range(1, 21)])
        return history

    async def test_page_is_newest_first(self, filled: History, account: UUID) -> None:
        page = await filled.get_page(account, limit=3)
        assert (versions(page.rows), page.has_older, page.has_newer) == ([20, 19, 18], True, False)

    async def test_older_pages_end_at_the_first_operation(self, filled: History, account: UUID) -> None:
        read_versions, edge, pages = [], 21, 0
        while True:
            page = await filled.get_page(account, limit=6, older_than=edge)
            read_versions += versions(page.rows)
            pages += 1
            assert page.has_newer == (edge < 21)
            if not page.has_older:
                break
            edge = read_versions[-1]
        assert (read_versions, pages) == (list(range(20, 0, -1)), 4)

    async def test_newer_pages_are_newest_first(self, filled: History, account: UUID) -> None:
        first = await filled.get_page(account, limit=15, newer_than=0)
        assert (versions(first.rows), first.has_older, first.has_newer) == (list(range(15, 0, -1)), False, True)
        second = await filled.get_page(account, limit=15, newer_than=15)
        assert (versions(second.rows), second.has_older, second.has_newer) == ([20, 19, 18, 17, 16], True, False)

    async def test_page_does_not_shift_when_rows_arrive(
        self, filled: History, row: Callable[[int], Row], account: UUID
    ) -> None:
        first = await filled.get_page(account, limit=5)
        await filled.insert([row(21), row(22)])
        assert versions(first.rows) == [20, 19, 18, 17, 16]
        assert versions((await filled.get_page(account, limit=5, older_than=16)).rows) == [15, 14, 13, 12, 11]

    async def test_page_of_an_unknown_account_is_empty(self, history: History) -> None:
        page = await history.get_page(uuid4(), limit=5, older_than=3)
        assert (page.rows, page.has_older, page.has_newer) == ((), False, False)

    @pytest.mark.parametrize("direction", ["neither", "older", "newer"])
    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            (OperationFilter(), lambda row: True),
            (OperationFilter(types=frozenset({OperationType.TOP_UP})), lambda row: row.type is OperationType.TOP_UP),
            (OperationFilter(types=frozenset(OperationType)), lambda row: True),
            (OperationFilter(types=frozenset()), lambda row: False),
            (OperationFilter(direction=Direction.IN), lambda row: row.direction is Direction.IN),
            (OperationFilter(counterparty_id=FRIEND), lambda row: row.counterparty_id == FRIEND),
            (OperationFilter(min_amount=Decimal("7.25")), lambda row: row.amount >= Decimal("7.25")),
            (OperationFilter(max_amount=Decimal("7.2499")), lambda row: row.amount < Decimal("7.25")),
            (
                OperationFilter(since=START + timedelta(microseconds=9)),
                lambda row: row.occurred_at >= START + timedelta(microseconds=9),
            ),
            (
                OperationFilter(until=START + timedelta(microseconds=9)),
                lambda row: row.occurred_at < START + timedelta(microseconds=9),
            ),
            (
                OperationFilter(since=datetime(1, 1, 1, tzinfo=UTC), until=datetime(9999, 12, 31, tzinfo=UTC)),
                lambda row: True,
            ),
            (
                OperationFilter(
                    frozenset({OperationType.TRANSFER}),
                    Direction.OUT,
                    FRIEND,
                    Decimal(5),
                    Decimal(18),
                    START,
                    START + timedelta(microseconds=15),
                ),
                lambda row: row.account_version == 8,
            ),
        ],
    )
    async def test_filter_applies_to_pages_in_both_directions(
        self,
        filled: History,
        row: Callable[[int], Row],
        account: UUID,
        conditions: OperationFilter,
        expected: Callable[[Row], bool],
        direction: str,
    ) -> None:
        edges: dict[str, dict[str, int]] = {"neither": {}, "older": {"older_than": 16}, "newer": {"newer_than": 4}}
        within = {"neither": range(1, 21), "older": range(1, 16), "newer": range(5, 21)}[direction]
        page = await filled.get_page(account, limit=1000, conditions=conditions, **edges[direction])
        assert page.rows == tuple(row(version) for version in reversed(within) if expected(row(version)))


class TestGaps:
    @pytest.mark.parametrize(
        ("stored", "after", "expected"),
        [([], 0, 0), ([1], 0, 1), ([2, 3], 0, 0), ([1, 2, 4, 5], 0, 2), ([1, 2, 4, 5], 3, 5), ([1, 2, 5], 3, 3)],
    )
    async def test_complete_version_ends_before_the_first_gap(
        self,
        history: History,
        row: Callable[[int], Row],
        account: UUID,
        stored: list[int],
        after: int,
        expected: int,
    ) -> None:
        await history.insert([row(version) for version in reversed(stored)])
        assert await history.get_complete_version(account, after) == expected

    async def test_coverage_of_many_accounts_is_returned(self, history: History, row: Callable[[int], Row]) -> None:
        ids = [uuid4() for _ in range(1000)]
        await history.insert([replace(row(1), account_id=id_) for id_ in ids[:-1]])
        coverage = await history.get_coverage(ids)
        counted = [(coverage[id_].count, coverage[id_].highest) for id_ in ids]
        assert counted == [(1, 1)] * 999 + [(0, 0)]

    def test_history_with_a_gap_is_incomplete(self) -> None:
        assert Coverage(3, 3).is_complete_up_to(3)
        assert not Coverage(3, 3).is_complete_up_to(4)
        assert not Coverage(2, 3).is_complete_up_to(1)


class TestTLS:
    @pytest.fixture
    async def files(self, tmp_path: Path) -> list[CertificateFiles]:
        """The authority's certificate, and a pair that it has signed."""
        return ensure_certificates(tmp_path, ["clickhouse"], datetime.now(UTC))

    async def test_https_uses_tls_on_any_port(self, clickhouse: ClickHouse, files: list[CertificateFiles]) -> None:
        authority, pair = files
        async with tls_proxy(int(clickhouse.url.rpartition(":")[2]), pair) as port:
            dsn = f"https://user:password@localhost:{port}/tls_{port}?ca_cert={authority.certificate}"
            await upgrade(dsn)
            async with Database.connect(dsn) as database:
                await database.ping()

    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_connection_without_tls_or_to_an_unknown_authority_is_refused(
        self, clickhouse: ClickHouse, files: list[CertificateFiles], scheme: str
    ) -> None:
        async with (
            tls_proxy(int(clickhouse.url.rpartition(":")[2]), files[1]) as port,
            Database.connect(f"{scheme}://localhost:{port}/wallet") as database,
        ):
            with pytest.raises(Unavailable, match="the operation history"):
                await database.ping()


@pytest.mark.slow
class TestOutage:
    async def test_requests_fail_during_an_outage_and_succeed_after_it(
        self, tmp_path: Path, row: Callable[[int], Row], account: UUID
    ) -> None:
        server = ClickHouse(tmp_path, *free_ports(1))
        async with Database.connect(server.dsn("wallet")) as database:
            history = History(database)
            with pytest.raises(Unavailable, match="the operation history"):
                await database.ping()
            async with server:
                await upgrade(server.dsn("wallet"))
                await history.insert([row(1)])
                server.kill()
                await server.wait()
                with pytest.raises(Unavailable, match="the operation history"):
                    await history.get_page(account, limit=1)
                await server.start()
                assert versions(await history.list_after(account, 0, 10)) == [1]
