"""Responses to retrying clients match the ledger while banks, database sessions and PostgreSQL fail under load."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from subgraphs.bank.client import BankClient, Receipt, TransferRequest
from tests.conftest import Keys
from tests.faults.conftest import SECONDS, KeptPostgres
from tests.integration.bank.fault_trial import run_trial
from tests.integration.bank.harness import Caller, assert_ledger_invariants, rub
from tests.waiting import until
from wallet.errors import DeadlineExceeded, Unavailable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS + 150)]

Report = Callable[[str], None]


class TestOneBank:
    @pytest.mark.parametrize("accounts", [200, 5, 2], ids=["many accounts", "few accounts", "one pair"])
    async def test_history_is_consistent_after_random_kills_of_one_bank(
        self, ledger_url: str, keys: Keys, tmp_path: Path, seed: int, report: Report, accounts: int
    ) -> None:
        async with run_trial(keys, tmp_path, ledger_url, replicas=1, seed=seed) as trial:
            schedule = trial.random_schedule(
                trial.kill_bank, trial.freeze_account, trial.change_floor, trial.terminate_sessions
            )
            report(await trial.run(accounts, schedule, SECONDS))


class TestTwoBanks:
    @pytest.mark.parametrize("accounts", [200, 5, 2], ids=["many accounts", "few accounts", "one pair"])
    async def test_history_is_consistent_after_random_kills_and_freezes_of_two_banks(
        self, ledger_url: str, keys: Keys, tmp_path: Path, seed: int, report: Report, accounts: int
    ) -> None:
        async with run_trial(keys, tmp_path, ledger_url, replicas=2, seed=seed) as trial:
            schedule = trial.random_schedule(trial.kill_bank, trial.freeze_bank, trial.terminate_sessions)
            report(await trial.run(accounts, schedule, SECONDS))


class TestPostgres:
    async def test_history_is_consistent_after_random_kills_of_postgres(
        self, kept_postgres: KeptPostgres, keys: Keys, tmp_path: Path, seed: int, report: Report
    ) -> None:
        async with run_trial(keys, tmp_path, kept_postgres.url, replicas=2, seed=seed) as trial:
            schedule = trial.random_schedule(kept_postgres.kill_postgres, trial.terminate_sessions, trial.kill_bank)
            report(await trial.run(5, schedule, SECONDS))


class TestFrozenBank:
    async def test_frozen_bank_holds_its_locks_for_a_bounded_time(
        self, ledger_url: str, keys: Keys, tmp_path: Path, seed: int, report: Report
    ) -> None:
        async with (
            run_trial(keys, tmp_path, ledger_url, replicas=2, seed=seed) as trial,
            asyncpg.create_pool(ledger_url, min_size=0, max_size=2) as sql,
        ):
            frozen, (frozen_client, other_client) = trial.replicas[0], trial.clients
            sender, recipient = [party.account_id for party in await trial.insert_accounts(2)]
            alice = Caller(keys.user("alice"))
            # A batch that has written to the outbox holds the locks of its accounts and waits for the test's lock 42.
            await sql.execute("""
                CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
                CREATE TRIGGER hold AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION hold();
            """)
            async with sql.acquire() as gate, gate.transaction():
                await gate.execute("SELECT pg_advisory_xact_lock(42)")
                # Two transfers: a single one is one statement, which PostgreSQL commits although the bank is frozen.
                requests = [TransferRequest(sender, recipient, rub("1"), key) for key in ("first", "first too")]
                first = asyncio.create_task(alice(frozen_client.batch_transfer(requests)))
                await until(lambda: _waits_at_the_gate(sql))
                frozen.freeze()
            started = time.monotonic()
            second = await _retry_transfer(alice, other_client, sender, recipient, "second")
            waited = time.monotonic() - started
            report(f"the other bank waited {waited:.1f} s")
            # PostgreSQL has rolled back the frozen bank's transaction, so the second transfer is committed first.
            assert second.posting.version == 1

            with pytest.raises(DeadlineExceeded):
                await first
            frozen.thaw()
            assert (await _retry_transfer(alice, frozen_client, sender, recipient, "first")).posting.version == 2
            assert await _retry_transfer(alice, other_client, sender, recipient, "first") == await _retry_transfer(
                alice, frozen_client, sender, recipient, "first"
            )
            await assert_ledger_invariants(sql)


async def _retry_transfer(caller: Caller, bank: BankClient, sender: UUID, recipient: UUID, key: str) -> Receipt:
    """Retry one transfer until it is acknowledged."""
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable, DeadlineExceeded):
                return await caller(bank.transfer(sender, recipient, rub("1"), key))


async def _waits_at_the_gate(sql: asyncpg.Pool) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    return bool(await sql.fetchval(query))
