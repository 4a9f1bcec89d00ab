"""PostgreSQL refuses writes on a full disk: transfers fail and can be retried, and the bank recovers by itself."""

import asyncio

import httpx
import pytest

from kit.db import postgres as postgres_options
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, rub
from wallet.errors import Unavailable

REFUSE_WRITES = """
    CREATE SEQUENCE refused;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('refused');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON entries EXECUTE FUNCTION refuse();
"""
"""Each insert into `entries` fails as on a full disk; a sequence counts the attempts."""


@pytest.mark.parametrize("transfers", [1, 3], ids=["a lone transfer", "a batch"])
async def test_full_disk_refuses_transfers_and_the_bank_recovers_by_itself(
    own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch, transfers: int
) -> None:
    monkeypatch.setattr(postgres_options._disk, "failed_at", float("-inf"))
    sender, recipient = await own_bank.open("alice", "1000.00"), await own_bank.open("bob", "0.00")
    alice = own_bank.user("alice")

    async def transfer(key: int) -> object:
        return await alice(own_bank.client.transfer(sender, recipient, rub("1.00"), f"key {key}"))

    async def readiness() -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.get(f"{own_bank.admin}/health/ready")
            return response.status_code, response.json()["checks"]["disk"]

    assert await readiness() == (200, "ok")
    await own_bank.sql.execute(REFUSE_WRITES)
    errors = await asyncio.gather(*map(transfer, range(transfers)), return_exceptions=True)
    assert [type(error) for error in errors] == [Unavailable] * transfers
    # The outcome is known, so the bank does not repeat the batch as it does after a lost connection.
    assert await own_bank.sql.fetchval("SELECT last_value FROM refused") <= transfers
    assert await readiness() == (503, "Unavailable")

    await own_bank.sql.execute("DROP TRIGGER refuse ON entries")
    await asyncio.gather(*map(transfer, range(transfers)))
    assert await own_bank.balance(recipient) == transfers
    await assert_ledger_invariants(own_bank.sql)
