import asyncpg
import pytest

from benchmarks.figure import BenchError
from benchmarks.latency_comparison import transfer_by_sql
from benchmarks.ledger import Ledger
from tests.integration.benchmarks.accounts import open_accounts


async def test_check_counts_the_transfers_since_the_previous_check(ledger_url: str, sql: asyncpg.Connection) -> None:
    await open_accounts(sql, 2)
    await transfer_by_sql(sql, 0, 1)
    async with Ledger.open(ledger_url) as ledger:
        await ledger.verify(0)
        await transfer_by_sql(sql, 0, 1)
        await transfer_by_sql(sql, 1, 0)
        await ledger.verify(2)
        await transfer_by_sql(sql, 1, 0)
        await ledger.ignore_earlier_transfers()
        await transfer_by_sql(sql, 1, 0)
        await ledger.verify(1)


@pytest.mark.parametrize("acknowledged", [1, 3], ids=["executed twice", "replay counted"])
async def test_other_number_of_transfers_than_acknowledged_is_an_error(
    ledger_url: str, sql: asyncpg.Connection, acknowledged: int
) -> None:
    await open_accounts(sql, 2)
    async with Ledger.open(ledger_url) as ledger:
        await transfer_by_sql(sql, 0, 1)
        await transfer_by_sql(sql, 0, 1)
        with pytest.raises(BenchError, match="the ledger is not consistent"):
            await ledger.verify(acknowledged)


async def test_balance_without_a_transfer_is_an_error(ledger_url: str, sql: asyncpg.Connection) -> None:
    await open_accounts(sql, 2)
    async with Ledger.open(ledger_url) as ledger:
        await sql.execute("UPDATE accounts SET balance = balance + 1 WHERE owner_id IS NOT NULL")
        with pytest.raises(BenchError, match="the ledger is not consistent"):
            await ledger.verify(0)
