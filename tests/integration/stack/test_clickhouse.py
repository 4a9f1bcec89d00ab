import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from stack.engines.children import ClickHouse
from stack.ports import free_ports

COLUMNS = ["account", "version", "amount", "note", "at"]
TABLE = """
    CREATE OR REPLACE TABLE operations
    (account String, version UInt64, amount Decimal(18, 2), note Nullable(String), at DateTime64(6, 'UTC'))
    ENGINE = ReplacingMergeTree ORDER BY (account, version)
"""
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NOTE = "it's a \\ and a\ttab,\nв две строки"


def row(version: int, amount: str = "10.00") -> list[object]:
    return ["alice", version, Decimal(amount), NOTE, AT]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouse]:
    async with ClickHouse(tmp_path_factory.mktemp("clickhouse"), free_ports(1)[0]) as running:
        yield running


def connect(server: ClickHouse, *, compress: bool | str = True) -> Client:
    with closing(clickhouse_connect.get_client(dsn=server.url)) as maker:
        maker.command("CREATE DATABASE IF NOT EXISTS wallet")
    return clickhouse_connect.get_client(dsn=server.dsn("wallet"), compress=compress)


@pytest.fixture
def client(server: ClickHouse) -> Iterator[Client]:
    with closing(connect(server)) as connected:
        connected.command(TABLE)
        yield connected


@pytest.fixture
async def aclient(server: ClickHouse, client: Client) -> AsyncIterator[AsyncClient]:
    connected = await clickhouse_connect.get_async_client(dsn=server.dsn("wallet"))
    yield connected
    await connected.close()


class TestSyncClient:
    def test_inserted_rows_are_read_back_unchanged(self, client: Client) -> None:
        summary = client.insert("operations", [row(1), row(2)], COLUMNS, settings={"async_insert": 0})
        assert summary.written_rows == 2
        found = client.query("SELECT * FROM operations ORDER BY version", column_formats={"at": "native"})
        assert found.column_names == tuple(COLUMNS)
        assert [list(r[:4]) for r in found.result_rows] == [r[:4] for r in (row(1), row(2))]
        assert found.result_rows[0][4].replace(tzinfo=UTC) == AT

    def test_final_counts_a_duplicate_row_once(self, client: Client) -> None:
        client.insert("operations", [row(1)], COLUMNS)
        client.insert("operations", [row(1)], COLUMNS)
        assert client.query("SELECT count() FROM operations FINAL").first_row == (1,)

    def test_parameters_are_passed_as_values(self, client: Client) -> None:
        client.insert("operations", [row(1), row(2, "20.00")], COLUMNS)
        where = "note = {note:String} AND at = {at:DateTime64(6)} AND amount >= {amount:Decimal(18, 2)}"
        values = {"note": NOTE, "at": AT, "amount": Decimal("15.00")}
        assert client.query(f"SELECT version FROM operations WHERE {where}", values).result_rows == [(2,)]
        assert client.query("SELECT {x:String}", {"x": "'); DROP TABLE operations --"}).first_row == (
            "'); DROP TABLE operations --",
        )

    def test_long_parameters_are_sent_as_a_form(self, client: Client) -> None:
        client.insert("operations", [row(n) for n in range(5)], COLUMNS)
        many = {"versions": list(range(3, 20_000))}
        found = client.query("SELECT count() FROM operations WHERE version IN {versions:Array(UInt64)}", many)
        assert found.first_row == (2,)

    @pytest.mark.parametrize("method", ["lz4", "zstd", "gzip", False])
    def test_every_compression_works_for_request_and_response(
        self, server: ClickHouse, client: Client, method: str | bool
    ) -> None:
        with closing(connect(server, compress=method)) as compressed:
            compressed.insert("operations", [row(n) for n in range(5000)], COLUMNS)
            assert len(compressed.query("SELECT * FROM operations").result_rows) == 5000

    def test_insert_accepts_any_format(self, client: Client) -> None:
        client.raw_insert("operations", ["account", "version"], b"alice,1\nbob,2\n", fmt="CSV")
        client.raw_insert("operations", ["account", "version"], '{"account": "carol", "version": 3}', fmt="JSONEachRow")
        client.command("INSERT INTO operations (account, version) VALUES ('dave', 4)")
        client.command("INSERT INTO operations (account, version) SELECT 'erin', 5")
        found = client.query("SELECT account FROM operations ORDER BY version").result_rows
        assert found == [("alice",), ("bob",), ("carol",), ("dave",), ("erin",)]

    def test_empty_result_is_no_error(self, client: Client) -> None:
        assert client.query("SELECT * FROM operations").result_rows == []
        assert client.query("SELECT * FROM operations LIMIT 0").column_names == tuple(COLUMNS)

    def test_settings_apply_to_their_statement_only(self, client: Client) -> None:
        query = "SELECT getSetting('max_threads')"
        assert client.query(query, settings={"max_threads": 1}).first_row == (1,)
        assert client.query(query, settings={"max_threads": 3}).first_row == (3,)

    @pytest.mark.parametrize(
        ("statement", "code", "name"),
        [
            ("SELECT nope", 47, "UNKNOWN_IDENTIFIER"),
            ("SELEC 1", 62, "SYNTAX_ERROR"),
            ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE"),
            ("SELECT throwIf(1)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
            ("INSERT INTO nowhere FORMAT CSV\n1", 60, "UNKNOWN_TABLE"),
        ],
    )
    def test_error_has_its_code_and_name(self, client: Client, statement: str, code: int, name: str) -> None:
        with pytest.raises(DatabaseError) as refused:
            client.command(statement)
        assert (refused.value.code, refused.value.name) == (code, name)

    def test_malformed_rows_insert_nothing(self, client: Client) -> None:
        with pytest.raises(DatabaseError):
            client.raw_insert("operations", ["account", "version"], b"alice,1\nbob,not a number\n", fmt="CSV")
        assert client.query("SELECT count() FROM operations").first_row == (0,)

    def test_unknown_database_is_refused(self, server: ClickHouse) -> None:
        with pytest.raises(DatabaseError) as refused:
            clickhouse_connect.get_client(dsn=server.dsn("nowhere"))
        assert refused.value.code == 81


class TestAsyncClient:
    async def test_async_client_inserts_and_queries(self, aclient: AsyncClient) -> None:
        await aclient.insert("operations", [row(1), row(2)], COLUMNS)
        total = await aclient.query("SELECT sum(amount) FROM operations WHERE version < {v:UInt64}", {"v": 2})
        assert total.first_row == (Decimal("10.00"),)

    async def test_concurrent_queries_get_their_own_results(self, aclient: AsyncClient) -> None:
        results = await asyncio.gather(*(aclient.query("SELECT {n:UInt64}", {"n": n}) for n in range(100)))
        assert [result.first_row for result in results] == [(n,) for n in range(100)]

    async def test_slow_query_does_not_block_others(self, aclient: AsyncClient) -> None:
        endless = "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = 3"
        slow = asyncio.create_task(aclient.query(endless, settings={"max_execution_time": 2}))
        async with asyncio.timeout(2):
            assert await aclient.ping()
            assert (await aclient.query("SELECT 1")).first_row == (1,)
        assert not slow.done()
        with pytest.raises(DatabaseError) as cut:
            await slow
        assert cut.value.code == 159


@pytest.mark.slow
class TestStore:
    @pytest.mark.parametrize("kill", [True, False], ids=["kill -9", "SIGTERM"])
    async def test_inserted_rows_survive_a_restart(self, tmp_path: Path, *, kill: bool) -> None:
        server = ClickHouse(tmp_path / "store", free_ports(1)[0])
        async with server:
            with closing(connect(server)) as client:
                client.command(TABLE)
                client.insert("operations", [row(n) for n in range(1000)], COLUMNS)
            if kill:
                server.kill()
                assert await server.wait() == -9
            else:
                await server.stop()
            await server.start()
            with closing(connect(server)) as client:
                assert client.query("SELECT count(), max(version) FROM operations").first_row == (1000, 999)

    async def test_server_stops_during_a_query(self, tmp_path: Path) -> None:
        server = ClickHouse(tmp_path / "store", free_ports(1)[0])
        async with server:
            client = await clickhouse_connect.get_async_client(dsn=server.url)
            slow = asyncio.create_task(client.query("SELECT count() FROM numbers(1000000000000) WHERE number % 7 = 3"))
            while (await client.query("SELECT count() > 1 FROM system.processes")).first_row == (0,):
                assert not slow.done()
            await server.stop(grace=8)
            assert server.pid is None
            await asyncio.gather(slow, return_exceptions=True)
            await client.close()
