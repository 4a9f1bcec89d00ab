"""Accounts of the benchmarks in a test's ledger."""

import asyncpg

from benchmarks.accounts import account_id, owner_id


async def open_accounts(sql: asyncpg.Connection, count: int) -> None:
    """Open the first `count` accounts of the benchmarks, each with a high balance."""
    rows = [(account_id(number), owner_id(number)) for number in range(count)]
    await sql.executemany("INSERT INTO accounts (id, owner_id, balance) VALUES ($1::text::uuid, $2, 1000000)", rows)
