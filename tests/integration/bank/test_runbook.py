"""The SQL queries of the runbook return the sessions that it describes."""

import re

from kit.db import migrations
from subgraphs.bank.service.adapters.postgres import outbox
from tests.integration.bank.harness import RunningBank
from tests.promql import ROOT

TRANSACTIONS, LEADER = re.findall(
    r"^```sql\n(.*?)^```", (ROOT / "docs" / "how-to" / "runbook.md").read_text(), re.MULTILINE | re.DOTALL
)


async def test_runbook_query_lists_sessions_with_an_open_transaction(own_bank: RunningBank) -> None:
    async with own_bank.sql.acquire() as holding, holding.transaction():
        pid = await holding.fetchval("SELECT pg_backend_pid()")
        assert pid in {row["pid"] for row in await own_bank.sql.fetch(TRANSACTIONS)}
    assert pid not in {row["pid"] for row in await own_bank.sql.fetch(TRANSACTIONS)}


async def test_runbook_query_finds_the_leader_of_the_outbox_and_not_a_migration(own_bank: RunningBank) -> None:
    async with own_bank.sql.acquire() as leader, own_bank.sql.acquire() as migration, migration.transaction():
        await migration.execute("SELECT pg_advisory_xact_lock($1)", migrations._LOCK)
        pid = await migration.fetchval("SELECT pg_backend_pid()")
        assert pid not in {row["pid"] for row in await own_bank.sql.fetch(LEADER)}  # the bank may lead for a moment
        await leader.execute("SELECT pg_advisory_lock($1)", outbox._LEADER_LOCK)
        (shown,) = await own_bank.sql.fetch(LEADER)
        assert shown["pid"] == await leader.fetchval("SELECT pg_backend_pid()")
        await leader.execute("SELECT pg_advisory_unlock($1)", outbox._LEADER_LOCK)
