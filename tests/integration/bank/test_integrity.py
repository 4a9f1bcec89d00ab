"""Integrity check of a ledger without violations, also while transfers are committed."""

import asyncio
from contextlib import aclosing, suppress

import pytest

from kit.integrity.check import Progress, Verdict
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.application.integrity import ledger_integrity
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, find_lock_waiter, rub
from tests.integration.bank.small_ledger import BOB, SmallLedger, collect_reports, run_to_verdict
from tests.waiting import until
from wallet.errors import InsufficientFunds


class TestSound:
    @pytest.mark.parametrize("page", [1, 2, 3, 2000])
    async def test_intact_ledger_is_sound(self, small_ledger: SmallLedger, page: int) -> None:
        *progress, last = await collect_reports(ledger_integrity(await small_ledger.corrupt(), page))
        assert isinstance(last, Verdict)
        assert (last.verdict, last.violations) == ("sound", 0)
        assert last.rows == {"accounts": 6, "entries": 10, "transfers": 5, "idempotency_keys": 6, "outbox": 5}
        scans = {report.scan: report for report in progress if isinstance(report, Progress)}
        assert {scan: report.rows for scan, report in scans.items()} == last.rows
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

    async def test_failed_statement_makes_the_verdict_unavailable(self, ledger_url: str) -> None:
        async with open_pool(ledger_url, max_size=1) as pool:
            await pool.execute("ALTER TABLE outbox RENAME TO elsewhere")
            last = await run_to_verdict(ledger_integrity(pool))
        assert (last.verdict, last.violations) == ("unavailable", 0)
