"""The command `wallet redate` and its admin route give new dates to operations that are dated in the future."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg
import httpx
import orjson
import pytest

from cli.admin_client import AdminEndpoint
from cli.redate import RedateResult, redate
from kit.auth.principal import Role
from kit.integrity.check import Verdict
from subgraphs.bank.client import TransferRequest
from subgraphs.bank.service.adapters.postgres import redatings
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.adapters.postgres.invariants import Invariant
from subgraphs.bank.service.application.integrity import ledger_integrity
from subgraphs.bank.service.settings import Settings
from tests.conftest import USERS
from tests.integration.bank.future import AHEAD, dates_transfers_in_the_future
from tests.integration.bank.harness import (
    RunningBank,
    admin_client,
    assert_ledger_invariants,
    clearing_account,
    find_lock_waiter,
    rub,
)
from tests.integration.bank.small_ledger import run_to_verdict
from tests.waiting import until

CONNECTIONS: int = Settings.model_fields["bank_database_connections"].default

ROWS = """
    SELECT e.account_id, e.version, e.amount, e.balance_after, t.id, t.idempotency_key FROM entries e
    JOIN transfers t ON t.id = e.transfer_id ORDER BY e.account_id, e.version
"""


async def make_future(bank: RunningBank, monkeypatch: pytest.MonkeyPatch) -> tuple[UUID, UUID, UUID]:
    """Open three accounts. Make an operation with the right date, two dated in the future, then 21 more transfers.

    These 21 transfers are dated in the future too, because the dates of an account's operations never decrease.
    """
    alice, bob, carol = [await bank.open(name) for name in ("alice", "bob", "carol")]
    card = bank.service("card")
    await bank.user("alice")(bank.client.transfer(alice, bob, rub("1"), "before"))
    with monkeypatch.context() as patch:
        dates_transfers_in_the_future(patch)
        await bank.user("alice")(bank.client.transfer(alice, bob, rub("1"), "ahead"))
        await card(bank.client.deposit(alice, rub("5"), "deposit", {}))
    await bank.user("bob")(bank.client.transfer(bob, carol, rub("1"), "drawn"))
    requests = [TransferRequest(carol, alice, rub("1"), f"drawn {n}") for n in range(20)]
    await bank.user("carol")(bank.client.batch_transfer(requests))
    return alice, bob, carol


async def run_command(bank: RunningBank, *, apply: bool) -> RedateResult:
    endpoint = AdminEndpoint(bank.admin, bank.keys.user("root", Role.ADMIN))
    return await asyncio.to_thread(redate, endpoint, apply=apply)


async def check_ledger(url: str) -> Verdict:
    async with open_pool(url, max_size=1) as pool:
        return await run_to_verdict(ledger_integrity(pool))


async def now(bank: RunningBank) -> datetime:
    value: datetime = await bank.sql.fetchval("SELECT clock_timestamp()")
    return value


class TestCommand:
    async def test_future_dates_are_replaced_and_recorded_and_all_else_stays(
        self,
        own_bank: RunningBank,
        ledger_url: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        bank, began = own_bank, await now(own_bank)
        monkeypatch.setattr(redatings, "_CHUNK", 7)
        alice, _, carol = await make_future(bank, monkeypatch)
        assert (await bank.row(carol))["updated_at"] > began + AHEAD
        before = await bank.sql.fetch(ROWS)
        future = {row["id"]: row["created_at"] for row in await bank.sql.fetch("SELECT * FROM transfers")}
        assert sum(created_at > began + AHEAD for created_at in future.values()) == 23
        broken = (await check_ledger(ledger_url)).broken
        assert broken == {Invariant.TRANSFER_NOT_IN_FUTURE: 23, Invariant.ACCOUNT_NOT_IN_FUTURE: 4}

        assert await run_command(bank, apply=True) is RedateResult.DONE
        assert capsys.readouterr().out.startswith("redated: 23 transfers of 4 accounts (")
        assert await bank.sql.fetch(ROWS) == before
        assert (await check_ledger(ledger_url)).verdict == "sound"
        await assert_ledger_invariants(bank.sql)
        changes = await bank.sql.fetch("SELECT * FROM redatings JOIN transfers ON id = transfer_id")
        assert {row["id"]: row["old_created_at"] for row in changes} == {
            id_: created_at for id_, created_at in future.items() if created_at > began + AHEAD
        }
        assert all(began <= row["new_created_at"] == row["created_at"] <= row["redated_at"] for row in changes)
        assert {row["redated_by"] for row in changes} == {f"{USERS}|root"}

        receipt = await bank.user("alice")(bank.client.transfer(alice, carol, rub("1"), "after"))
        assert began <= receipt.transfer.created_at <= await now(bank)
        assert await run_command(bank, apply=False) is RedateResult.DONE
        assert capsys.readouterr().out == "nothing is dated in the future\n"

    async def test_command_without_apply_only_counts(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await make_future(own_bank, monkeypatch)
        before = await own_bank.sql.fetch("SELECT * FROM transfers")
        assert await run_command(own_bank, apply=False) is RedateResult.FOUND
        expected = "found: 23 transfers of 4 accounts are dated in the future; run it again with --apply\n"
        assert capsys.readouterr().out == expected
        assert await own_bank.sql.fetch("SELECT * FROM transfers") == before
        assert await own_bank.sql.fetchval("SELECT count(*) FROM redatings") == 0

    async def test_accounts_that_were_opened_or_closed_in_the_future_get_new_dates(self, own_bank: RunningBank) -> None:
        bank = own_bank
        opened, closed = await bank.open("alice"), await bank.open("bob", "0", status="CLOSED")
        await bank.sql.execute("UPDATE accounts SET created_at = created_at + $1, updated_at = updated_at + $1", AHEAD)
        assert await run_command(bank, apply=True) is RedateResult.DONE
        await assert_ledger_invariants(bank.sql)
        for account in (opened, closed, clearing_account()):
            row = await bank.row(account)
            assert row["created_at"] <= row["updated_at"] <= await now(bank)

    async def test_contradicting_rows_are_left_unchanged(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, bob, _ = await make_future(own_bank, monkeypatch)
        await own_bank.sql.execute("UPDATE accounts SET updated_at = now() WHERE id = $1", bob)
        assert await run_command(own_bank, apply=True) is RedateResult.NOT_FINISHED
        assert "run `wallet integrity`" in capsys.readouterr().out
        assert await own_bank.sql.fetchval("SELECT count(*) FROM redatings") == 0


@asynccontextmanager
async def paused_redating(bank: RunningBank) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """Start a redating, and block it until the end of the block, while it holds its locks on the accounts."""
    async with admin_client(bank) as http, bank.sql.acquire() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE redatings IN EXCLUSIVE MODE")
            redating = asyncio.create_task(http.post("/redate", params={"apply": "true"}, timeout=None))
            await until(lambda: find_lock_waiter(bank.sql, "INSERT INTO redatings"))
            yield redating
        await redating


class TestTransaction:
    async def test_bank_is_ready_and_reads_during_a_redating(
        self, own_bank: RunningBank, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank = own_bank
        account, _, _ = await make_future(bank, monkeypatch)
        alice, analytics = bank.user("alice"), bank.service("analytics")
        async with paused_redating(bank), admin_client(bank) as http:
            response = await http.get("/health/ready")
            assert (response.status_code, response.json()["checks"]["database"]) == (200, "ok")
            assert (await alice(bank.client.get_balance(account))).version == 23
            assert (await alice(bank.client.list_accounts())).accounts
            events = await analytics(bank.client.list_events(account, 0))
            assert len(events) == 23
            assert (await alice(bank.client.get_transfer(events[0].transfer.id))).id == events[0].transfer.id
            assert await analytics(bank.client.verify_history("", (), [])) is not None
            # The redating has not repaired the dates yet. If its locks prevented the check, it would be "unavailable".
            assert (await check_ledger(ledger_url)).verdict == "broken"
        await assert_ledger_invariants(bank.sql)

    async def test_openings_that_wait_for_a_redating_leave_connections_for_reads(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank = own_bank
        account, _, _ = await make_future(bank, monkeypatch)
        alice = bank.user("alice")
        async with paused_redating(bank):
            openings = [asyncio.create_task(alice(bank.client.open_account("RUB", f"{n}"))) for n in range(30)]

            async def count_waiting() -> int:
                count: int = await bank.sql.fetchval("""
                    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                           AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO accounts%'
                """)
                return count

            async def all_connections_for_changes_wait() -> bool:
                return await count_waiting() >= CONNECTIONS // 4

            await until(all_connections_for_changes_wait)
            assert (await alice(bank.client.get_balance(account))).version == 23
            assert await count_waiting() == CONNECTIONS // 4
        await asyncio.gather(*openings)

    async def test_client_that_disconnects_changes_nothing(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make_future(own_bank, monkeypatch)
        async with own_bank.sql.acquire() as other, other.transaction():
            await other.execute("LOCK TABLE redatings IN EXCLUSIVE MODE")
            async with admin_client(own_bank) as http:
                redating = asyncio.create_task(http.post("/redate", params={"apply": "true"}))
                await until(lambda: find_lock_waiter(own_bank.sql, "INSERT INTO redatings"))
                redating.cancel()
                await asyncio.wait([redating])

        async def is_unlocked() -> bool:
            held = (
                "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'accounts'::regclass AND mode = 'ExclusiveLock')"
            )
            return not await own_bank.sql.fetchval(held)

        await until(is_unlocked)
        assert await own_bank.sql.fetchval("SELECT count(*) FROM redatings") == 0

    async def test_transfer_waits_for_a_redating(self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch) -> None:
        alice, bob, _ = await make_future(own_bank, monkeypatch)
        caller = own_bank.user("alice")
        async with own_bank.sql.acquire() as other, other.transaction():
            await other.execute("LOCK TABLE redatings IN EXCLUSIVE MODE")
            async with admin_client(own_bank) as http:
                redating = asyncio.create_task(http.post("/redate", params={"apply": "true"}))
                await until(lambda: find_lock_waiter(own_bank.sql, "INSERT INTO redatings"))
                transfer = asyncio.create_task(caller(own_bank.client.transfer(alice, bob, rub("1"), "meanwhile")))
                await until(lambda: find_lock_waiter(own_bank.sql, "WITH precondition"))
                await other.execute("ROLLBACK; BEGIN")
                response: httpx.Response = await redating
        assert orjson.loads(response.text.splitlines()[-1])["outcome"] == "redated"
        assert (await transfer).transfer.created_at <= await now(own_bank)
        await assert_ledger_invariants(own_bank.sql)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transfers SET created_at = created_at - interval '1 h'",
            "UPDATE transfers SET amount = amount + 1",
            "UPDATE redatings SET redated_by = 'nobody'",
            "DELETE FROM redatings",
        ],
    )
    async def test_dates_change_only_with_a_record_and_records_stay(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch, statement: str
    ) -> None:
        await make_future(own_bank, monkeypatch)
        await run_command(own_bank, apply=True)
        with pytest.raises(asyncpg.RestrictViolationError, match="is append-only"):
            await own_bank.sql.execute(statement)
