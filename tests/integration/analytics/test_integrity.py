"""Integrity check of the history against the ledger."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from cli.admin_client import AdminEndpoint
from cli.integrity import IntegrityResult, check_integrity
from cli.replay import ReplayResult, replay_history
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Copy, Window
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.application import comparison
from subgraphs.analytics.service.domain.rows import rows_from_event
from tests.integration.analytics.damage import DAMAGES, Damage, open_accounts
from tests.integration.analytics.environment import AnalyticsEnvironment
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.integrity import command_output, make_integrity_check, run_check, serve_admin_interface
from tests.waiting import until


class BlockedCopies(Copies):
    """`Copies` whose reads wait until `released` is set."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.released = asyncio.Event()
        self.is_reading = asyncio.Event()

    async def list_copies(self, windows: Sequence[Window]) -> list[Copy]:
        self.is_reading.set()
        await self.released.wait()
        return await super().list_copies(windows)


@asynccontextmanager
async def block_copies(env: AnalyticsEnvironment) -> AsyncIterator[BlockedCopies]:
    copies = BlockedCopies(env.database)
    try:
        yield copies
    finally:
        copies.released.set()


class TestIntegrity:
    async def test_empty_history_of_an_empty_ledger_is_sound(self, env: AnalyticsEnvironment) -> None:
        verdict, _ = await run_check(make_integrity_check(env))
        assert (verdict.verdict, verdict.rows) == ("sound", {"operations": 0, "stored accounts": 0})

    async def test_equal_history_with_repeated_rows_is_sound(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        for _ in range(2):
            await env.history.insert(await env.history.list_after(accounts.alice, 0, 10))
        verdict, violations = await run_check(make_integrity_check(env))
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {}, [])
        assert verdict.rows == {"operations": 12, "stored accounts": 3}

    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
    async def test_damage_is_reported_and_replay_repairs_it(
        self, env: AnalyticsEnvironment, damage: Damage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        accounts = await open_accounts(env)
        before = {
            account: await env.history.list_after(account, -1, 10)
            for account in (accounts.alice, accounts.bob, CLEARING)
        }
        expected = await damage(env, accounts)
        async with serve_admin_interface(env) as admin:
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.BROKEN
            *lines, verdict = command_output(capsys)
            assert verdict.startswith(f"broken: {len(expected)} violations")
            assert len(lines) == len(expected)
            assert all(any(line.startswith(start) for line in lines) for start in expected), lines
            assert (
                await asyncio.to_thread(replay_history, AdminEndpoint(admin), None, all_operations=True)
                == ReplayResult.COMPLETE
            )
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.SOUND
        for account, rows in before.items():
            assert await env.history.list_after(account, -1, 10) == rows

    async def test_result_does_not_depend_on_page_sizes(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = 0
        accounts = await open_accounts(env)
        for name in ("deleted in the middle", "another copy that is not read", "versions beyond the ledger's"):
            expected += len(await DAMAGES[name](env, accounts))
        expected += len(await DAMAGES["an account that the ledger does not have"](env, accounts))
        # Version 3 is deleted, so the next damage changes version 4. The number of violations is the same.
        sizes = {
            "WINDOW_OPERATIONS": 2,
            "BATCH_OPERATIONS": 3,
            "BATCH_WINDOWS": 2,
            "ACCOUNTS_PAGE": 1,
            "COPIES_PAGE": 1,
        }
        for name, size in sizes.items():
            monkeypatch.setattr(comparison, f"_{name}", size)
        monkeypatch.setattr("subgraphs.analytics.service.adapters.bank_ledger._PAGE_SIZE", 1)
        verdict, violations = await run_check(make_integrity_check(env))
        assert verdict.violations == len(violations) == expected
        assert verdict.rows == {"operations": 12, "stored accounts": 4}

    async def test_operation_that_arrives_during_the_wait_is_no_violation(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        late = env.bank.transfer(accounts.alice, accounts.bob)

        class Arriving(Copies):
            """`Copies` that lack an operation in the first comparison only."""

            reads = 0

            async def list_copies(self, windows: Sequence[Window]) -> list[Copy]:
                copies = await super().list_copies(windows)
                self.reads += 1
                if self.reads == 1:
                    await env.history.insert(rows_from_event(late))
                return copies

        verdict, violations = await run_check(make_integrity_check(env, Arriving(env.database)))
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {}, [])

    async def test_recent_missing_operation_is_pending(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        env.bank.transfer(accounts.alice, accounts.bob)
        env.bank.transfer(accounts.alice, accounts.bob)
        verdict, violations = await run_check(make_integrity_check(env, max_delay_seconds=1e9))
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {"operations": 4}, [])

    async def test_operations_during_the_check_are_no_violations(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        async with block_copies(env) as copies:
            checking = asyncio.create_task(run_check(make_integrity_check(env, copies)))
            await copies.is_reading.wait()
            new = env.bank.open()
            for event in (env.bank.transfer(accounts.alice, accounts.bob), env.bank.transfer(accounts.bob, new)):
                await env.history.insert(rows_from_event(event))
            copies.released.set()
            verdict, violations = await checking
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {}, [])
        assert verdict.rows == {"operations": 12, "stored accounts": 4}

    async def test_operation_that_is_missing_in_the_ledger_is_reported(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        env.bank.hide_operation(env.bank.transfer(accounts.alice, accounts.bob))
        verdict, violations = await run_check(make_integrity_check(env))
        assert verdict.verdict == "broken"
        assert [violation.row["version"] for violation in violations] == [6, 6]

    async def test_unavailable_bank_leaves_the_history_unverified(
        self, env: AnalyticsEnvironment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await open_accounts(env)
        env.bank.is_down = True
        async with serve_admin_interface(env) as admin:
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.NOT_PROVEN
        assert "became unavailable during the check" in capsys.readouterr().out

    async def test_second_check_is_refused_until_the_client_disconnects(self, env: AnalyticsEnvironment) -> None:
        await open_accounts(env)
        async with (
            block_copies(env) as copies,
            serve_admin_interface(env, integrity := make_integrity_check(env, copies)) as admin,
            httpx.AsyncClient(trust_env=False, base_url=admin) as http,
        ):
            async with http.stream("GET", "/integrity"):
                await copies.is_reading.wait()
                second = await http.get("/integrity")
                assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)

            async def ended() -> bool:
                return not integrity.is_running

            await until(ended)

    async def test_metrics_have_the_last_finished_check(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        await DAMAGES["another amount"](env, accounts)
        async with serve_admin_interface(env) as admin, httpx.AsyncClient(trust_env=False, base_url=admin) as http:
            response = await http.get("/integrity")
            metrics = (await http.get("/metrics")).text
        first, *_, last = [orjson.loads(line) for line in response.text.splitlines()]
        assert first["violation"]["found"] == "amount 11"
        assert (last["verdict"], last["violations"]) == ("broken", 1)
        assert "wallet_analytics_integrity_violations 1.0" in metrics
        assert "wallet_analytics_integrity_finished_timestamp_seconds 1." in metrics
