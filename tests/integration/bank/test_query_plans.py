"""Every statement on the hot path finds its rows by index, even when it was planned while the tables were empty."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from subgraphs.bank.service.adapters.postgres import batch, outbox, reader, rows
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.adapters.postgres.invariants import InvariantReader

STATEMENTS = {
    "read": (batch._READ_ONLY, "(uuid[])"),
    "read and lock": (batch._READ_AND_LOCK, "(uuid[])"),
    "write": (batch._WRITE_LOCKED, ""),
    "write if unchanged": (batch._WRITE_IF_UNCHANGED, ""),
    "write with words": (batch._WRITE_LOCKED_WITH_WORDS, ""),
    "write with words if unchanged": (batch._WRITE_IF_UNCHANGED_WITH_WORDS, ""),
    "used references": (batch._USED_REFERENCES, "(uuid[], text[])"),
    "transfers with a reference": (reader._TRANSFERS_WITH_REFERENCE, "(uuid, text, uuid, bigint)"),
    "transfers by id": (rows.TRANSFERS_BY_ID, "(uuid[])"),
    "transfers by id of the replica": (reader._TRANSFERS_BY_ID, "(uuid[])"),
    "transfers of an account": (reader._TRANSFERS_OF_ACCOUNT, "(uuid, bigint, bigint)"),
    "balances at": (reader._BALANCES_AT, "(uuid[], bigint[], timestamptz[])"),
    "versions": (reader._VERSIONS, "(uuid, bigint)"),
    "outbox": (outbox._ROWS, "(bigint)"),
}
LEDGER_TABLES = {"accounts", "transfers", "entries", "idempotency_keys", "transfer_words"}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed while empty", "never analyzed"])
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_statement_finds_rows_by_index(ledger_url: str, statement: str, *, analyzed: bool) -> None:
    query, types = STATEMENTS[statement]
    async with open_pool(ledger_url, max_size=1) as pool, pool.acquire() as connection:
        if analyzed:
            await connection.execute("VACUUM ANALYZE")
        await connection.execute(f"PREPARE tested {types} AS {query}")
        parameters = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", query))))
        explained = await connection.fetchval(f"EXPLAIN (FORMAT json) EXECUTE tested ({parameters})")
    read = [node for node in nodes(json.loads(explained)[0]["Plan"]) if node.get("Relation Name") in LEDGER_TABLES]
    scans = [node for node in read if node["Node Type"].endswith("Scan")]
    assert statement.startswith("write") or scans
    for scan in scans:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
        assert "Index Cond" in scan or "Recheck Cond" in scan


async def test_pooled_session_keeps_its_settings_and_no_lock(ledger_url: str) -> None:
    async with open_pool(ledger_url, max_size=1) as pool:
        before = await pool.fetch("SELECT name, setting FROM pg_settings ORDER BY name")
        async with outbox.Outbox.lead(pool) as led:
            assert led is not None
        async with InvariantReader.begin(pool) as invariants:
            await invariants.check_totals()
        assert await pool.fetch("SELECT name, setting FROM pg_settings ORDER BY name") == before
        own = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        assert not await pool.fetch(f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND {own}")
