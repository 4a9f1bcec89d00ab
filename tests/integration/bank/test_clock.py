"""A bank replica with a wrong clock is not ready. Its operations are dated with the time of the database."""

from pathlib import Path

import httpx
import pytest

from tests.conftest import Keys
from tests.integration.bank.harness import assert_ledger_invariants, bank_process, connect_bank, rub

DAYS = 400
FAR_AHEAD = DAYS * 86_400.0


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [FAR_AHEAD, -FAR_AHEAD], ids=["ahead", "behind"])
async def test_replica_with_a_wrong_clock_dates_operations_with_the_database_time(
    ledger_url: str, keys: Keys, tmp_path: Path, ahead: float
) -> None:
    child, environment = bank_process(keys, tmp_path, ledger_url, clock_ahead_seconds=ahead)
    await child.start()
    try:
        async with connect_bank(keys, ledger_url, environment) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            alice = bank.user("alice")
            began = await bank.sql.fetchval("SELECT clock_timestamp()")
            receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), "k"))
            opened = await alice(bank.client.open_account("RUB", "k"))
            ended = await bank.sql.fetchval("SELECT clock_timestamp()")
            assert began <= receipt.transfer.created_at <= ended
            assert began <= opened.account.created_at <= ended
            await assert_ledger_invariants(bank.sql)
            async with httpx.AsyncClient(trust_env=False) as http:
                ready = await http.get(f"{bank.admin}/health/ready")
            assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "ClockSkew")
    finally:
        await child.stop()
