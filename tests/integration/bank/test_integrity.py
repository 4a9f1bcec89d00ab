"""Integrity check of a ledger without violations, also while transfers are committed."""

import asyncio
from contextlib import aclosing, suppress

import asyncpg
import pytest

from kit.integrity.check import Progress, Report, Verdict, Violation
from subgraphs.bank.service.adapters.postgres import invariants
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.application import integrity
from subgraphs.bank.service.application.integrity import ledger_integrity
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, find_lock_waiter, rub
from tests.integration.bank.small_ledger import BOB, SmallLedger, collect_reports, run_to_verdict
from tests.waiting import until
from wallet.errors import InsufficientFunds


async def redate_all(sql: asyncpg.Pool) -> None:
    """Give every transfer another date in one transaction, as `wallet redate` does."""
    async with sql.acquire() as connection, connection.transaction():
        await connection.execute("""
            INSERT INTO redatings (transfer_id, old_created_at, new_created_at, redated_by)
            SELECT id, created_at, created_at - interval '1 microsecond', 'test' FROM transfers
        """)
        await connection.execute("UPDATE transfers SET created_at = created_at - interval '1 microsecond'")


class TestSound:
    @pytest.mark.parametrize("page", [1, 2, 3, 2000])
    async def test_intact_ledger_is_sound(self, small_ledger: SmallLedger, page: int) -> None:
        *progress, last = await collect_reports(ledger_integrity(await small_ledger.corrupt(), page))
        assert isinstance(last, Verdict)
        assert (last.verdict, last.violations) == ("sound", 0)
        assert last.rows == {
            "accounts": 6,
            "entries": 10,
            "transfers": 5,
            "idempotency_keys": 6,
            "transfer_words": 0,
            "outbox": 5,
        }
        scans = {report.scan: report for report in progress if isinstance(report, Progress)}
        assert {scan: report.rows for scan, report in scans.items()} == {scan: n for scan, n in last.rows.items() if n}
        assert scans["entries"].verified_up_to == f"{BOB}/3"
        assert scans["idempotency_keys"].verified_up_to == "transfer/refused"

    async def test_ledger_is_sound_with_transfers_between_pages(self, own_bank: RunningBank, ledger_url: str) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        accounts = [await bank.open("alice") for _ in range(4)]
        sent = 0
        async with open_pool(ledger_url, max_size=1) as pool, aclosing(ledger_integrity(pool, 10).run()) as check:
            async for report in check:
                if isinstance(report, Progress):
                    sender, recipient = accounts[sent % 4], accounts[(sent + 1) % 4]
                    await alice(bank.client.transfer(sender, recipient, rub("1"), str(sent)))
                    sent += 1
                last = report
        assert isinstance(last, Verdict)
        assert (last.verdict, last.violations) == ("sound", 0)
        assert last.rows["entries"] > 20
        await assert_ledger_invariants(bank.sql)

    async def test_ledger_is_sound_under_load(self, own_bank: RunningBank, ledger_url: str) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        accounts = [await bank.open("alice", "5.00") for _ in range(3)]
        sent = 0
        checked = asyncio.Event()

        async def customer(n: int) -> None:
            nonlocal sent
            while sent < 150 or not checked.is_set():
                sent += 1
                sender, recipient = accounts[n % 3], accounts[(n + 1) % 3]
                with suppress(InsufficientFunds):
                    await alice(bank.client.transfer(sender, recipient, rub("1"), str(sent)))

        async with open_pool(ledger_url, max_size=1) as pool:
            customers = asyncio.gather(*(customer(n) for n in range(9)))
            verdicts = [await run_to_verdict(ledger_integrity(pool, 20)) for _ in range(3)]
            checked.set()
            await customers
            verdicts.append(await run_to_verdict(ledger_integrity(pool, 20)))
        assert {(last.verdict, last.violations) for last in verdicts} == {("sound", 0)}
        assert verdicts[0].rows["entries"] < verdicts[-1].rows["entries"]

    async def test_transfer_committed_between_two_scans_is_no_violation(
        self, own_bank: RunningBank, ledger_url: str
    ) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        await bank.sql.execute("""
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION hold();
        """)
        await alice(bank.client.transfer(sender, recipient, rub("1"), "before"))
        async with bank.sql.acquire() as other, open_pool(ledger_url, max_size=1) as pool:
            await other.execute("SELECT pg_advisory_lock(42)")
            between = asyncio.create_task(alice(bank.client.transfer(sender, recipient, rub("1"), "between")))
            await until(lambda: find_lock_waiter(bank.sql, "WITH precondition"))
            async with aclosing(ledger_integrity(pool, 1).run()) as check:
                async for report in check:
                    if isinstance(report, Progress) and report.scan == "idempotency_keys" and not between.done():
                        await other.execute("SELECT pg_advisory_unlock(42)")
                        await between
                    last = report
        assert isinstance(last, Verdict)
        assert (last.rows["transfers"], last.rows["idempotency_keys"], last.verdict) == (1, 2, "sound")

    @pytest.mark.parametrize("ids_in_memory", [100_000, 0])
    async def test_redating_between_two_pages_is_no_violation(
        self, own_bank: RunningBank, ledger_url: str, monkeypatch: pytest.MonkeyPatch, ids_in_memory: int
    ) -> None:
        monkeypatch.setattr(integrity, "_MAX_IDS_IN_MEMORY", ids_in_memory)
        bank, alice = own_bank, own_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        for n in range(2):
            await alice(bank.client.transfer(sender, recipient, rub("1"), str(n)))
        async with open_pool(ledger_url, max_size=1) as pool:
            pages = len(await collect_reports(ledger_integrity(pool, 100))) - 1
            assert pages > 5
            for page in range(pages):
                reports = list[Report]()
                async with aclosing(ledger_integrity(pool, 100).run()) as check:
                    async for report in check:
                        reports.append(report)
                        if len(reports) == page + 1:
                            await redate_all(bank.sql)
                assert [report for report in reports if isinstance(report, Violation)] == []
                assert isinstance(reports[-1], Verdict)
                assert reports[-1].verdict == "sound"

    async def test_failed_statement_makes_the_verdict_unavailable(self, ledger_url: str) -> None:
        async with open_pool(ledger_url, max_size=1) as pool:
            await pool.execute("ALTER TABLE outbox RENAME TO elsewhere")
            last = await run_to_verdict(ledger_integrity(pool))
        assert (last.verdict, last.violations) == ("unavailable", 0)


class TestFence:
    async def test_transaction_id_keeps_its_side_while_transactions_pass(self, ledger_url: str) -> None:
        # The fence is the oldest transaction that was running when the check began. A row has only 32 bits of its
        # transaction's id, so ids are compared modulo 2^32. The 2^28 ids that start at the fence are on the new side
        # (`_IS_FENCED`), all other ids are on the old side.
        query = f"SELECT x FROM unnest($1::bigint[]) AS x WHERE NOT {invariants._IS_FENCED.format(xmin='x::text::xid')}"
        async with open_pool(ledger_url, max_size=1) as pool:
            fence = await pool.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::xid")
            ids = [(fence + step) % 2**32 for step in (-1_000, -1, 0, 1, 5, 10, 50, 2**28 - 1, 2**28, 2**31, 2**32 - 9)]
            before = [row["x"] for row in await pool.fetch(query, ids, fence)]
            for _ in range(10):
                await pool.execute("SELECT pg_current_xact_id()")
            assert [row["x"] for row in await pool.fetch(query, ids, fence)] == before
        assert [ids.index(each) for each in before] == [0, 1, 8, 9, 10]

    async def test_check_with_too_many_transactions_is_unavailable(
        self, own_bank: RunningBank, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(invariants, "_FENCED", 10)
        async with open_pool(ledger_url, max_size=1) as pool, aclosing(ledger_integrity(pool).run()) as check:
            async for report in check:
                for _ in range(10):
                    await own_bank.sql.execute("SELECT pg_current_xact_id()")
                last = report
        assert isinstance(last, Verdict)
        assert (last.verdict, last.violations) == ("unavailable", 0)
