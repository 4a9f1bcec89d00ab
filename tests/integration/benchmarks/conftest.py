"""Fixtures of the benchmarks' tests."""

from collections.abc import AsyncIterator

import asyncpg
import pytest


@pytest.fixture
async def sql(ledger_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connection to the ledger as superuser."""
    connection = await asyncpg.connect(ledger_url)
    yield connection
    await connection.close()
