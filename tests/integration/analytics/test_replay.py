"""Replay of the ledger into the history."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from uuid import UUID, uuid4

import httpx
import pytest

from cli.admin_client import AdminEndpoint
from cli.replay import ReplayResult, replay_history
from subgraphs.analytics.service.application import comparison
from subgraphs.analytics.service.application.replay import Outcome, Progress, Replay, Report
from tests.integration.analytics.damage import (
    DAMAGES,
    UNKNOWN_ACCOUNT,
    command,
    insert_in_one_part,
    open_accounts,
    read_row,
)
from tests.integration.analytics.environment import AnalyticsEnvironment
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.integrity import command_output, make_integrity_check, run_check, serve_admin_interface
from tests.waiting import until


def make_replay(env: AnalyticsEnvironment) -> Replay:
    return Replay(env.history, env.copies, env.ledger, env.repair())


async def run_replay(replay: Replay, account: UUID | None = None, *, all_operations: bool = False) -> Outcome:
    reports: list[Report] = [each async for each in replay.replay(account, all_operations=all_operations)]
    assert isinstance(reports[-1], Outcome)
    return reports[-1]


async def is_sound(env: AnalyticsEnvironment) -> bool:
    verdict, _ = await run_check(make_integrity_check(env))
    return verdict.verdict == "sound"


class TestReplay:
    async def test_replay_of_a_complete_history_inserts_nothing(self, env: AnalyticsEnvironment) -> None:
        await open_accounts(env)
        outcome = await run_replay(make_replay(env))
        assert (outcome.outcome, outcome.accounts, outcome.pulled, outcome.removed) == ("complete", 3, 0, 0)
        assert env.bank.calls["ListEvents"] == 0

    async def test_replay_of_an_empty_history_inserts_all_operations(self, env: AnalyticsEnvironment) -> None:
        await DAMAGES["all deleted"](env, await open_accounts(env))
        outcome = await run_replay(make_replay(env))
        assert (outcome.outcome, outcome.accounts) == ("complete", 3)
        assert await is_sound(env)

    async def test_replay_of_missing_operations_stops_at_rows_that_the_ledger_lacks(
        self, env: AnalyticsEnvironment
    ) -> None:
        accounts = await open_accounts(env)
        await DAMAGES["versions beyond the ledger's"](env, accounts)
        outcome = await run_replay(make_replay(env))
        assert (outcome.outcome, outcome.pulled, outcome.removed) == ("unavailable", 0, 0)
        assert env.bank.epoch

    async def test_second_replay_is_refused(self, env: AnalyticsEnvironment) -> None:
        await open_accounts(env)
        async with serve_admin_interface(env) as admin, httpx.AsyncClient(trust_env=False, base_url=admin) as http:
            env.bank.gate.clear()
            async with asyncio.TaskGroup() as group:
                first = group.create_task(http.post("/replay", params={"all_operations": True}))

                async def is_reading_versions() -> bool:
                    return env.bank.calls["ListAccountVersions"] > 0

                await until(is_reading_versions)
                second = await http.post("/replay")
                env.bank.gate.set()
            assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)
            assert first.result().text.splitlines()[-1].startswith('{"outcome":"complete"')

    async def test_replay_of_one_account_changes_no_others(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        carol = env.bank.open("carol")
        env.bank.transfer(CLEARING, carol)
        env.bank.transfer(accounts.bob, accounts.alice)
        outcome = await run_replay(make_replay(env), accounts.alice)
        assert (outcome.accounts, outcome.pulled) == (1, 1)
        assert await env.stored_versions(accounts.alice) == [1, 2, 3, 4, 5, 6]
        assert await env.stored_versions(carol) == []

    async def test_repeated_replay_of_all_operations_changes_nothing(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(comparison, "_BATCH_OPERATIONS", 3)
        accounts = await open_accounts(env)
        for name in ("another copy", "versions beyond the ledger's", "an account that the ledger does not have"):
            await DAMAGES[name](env, accounts)
        done = [await run_replay(make_replay(env), all_operations=True) for _ in range(2)]
        assert [(each.outcome, each.pulled, each.removed) for each in done] == [
            ("complete", 1, 1 + 3 + 2),
            ("complete", 0, 0),
        ]

    @pytest.mark.parametrize("equal_copies", [1, 15])
    async def test_one_replay_removes_any_number_of_wrong_copies(
        self, env: AnalyticsEnvironment, equal_copies: int
    ) -> None:
        accounts = await open_accounts(env)
        right = await read_row(env.history, accounts.alice, 3)
        wrong = [replace(right, amount=Decimal(amount)) for amount in range(101, 126)]
        await insert_in_one_part(env.database, [right] * equal_copies + wrong * equal_copies)
        done = [await run_replay(make_replay(env), all_operations=True) for _ in range(2)]
        assert [(each.outcome, each.pulled, each.removed) for each in done] == [
            ("complete", 1, len(wrong)),
            ("complete", 0, 0),
        ]
        assert await read_row(env.history, accounts.alice, 3) == right
        assert await is_sound(env)

    async def test_row_that_was_inserted_last_is_read_and_kept(self, env: AnalyticsEnvironment) -> None:
        """The replay depends on this: of several copies, ClickHouse keeps the one that was inserted last."""
        accounts = await open_accounts(env)
        right = await read_row(env.history, accounts.alice, 3)
        await DAMAGES["another copy"](env, accounts)
        assert await read_row(env.history, accounts.alice, 3) != right
        await env.history.insert([right])
        assert await read_row(env.history, accounts.alice, 3) == right
        await command(env.database, "OPTIMIZE TABLE operations FINAL")
        assert await read_row(env.history, accounts.alice, 3) == right
        assert await is_sound(env)

    @pytest.mark.parametrize("all_operations", [False, True])
    async def test_interrupted_replay_resumes(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch, all_operations: bool
    ) -> None:
        accounts = await open_accounts(env)
        await DAMAGES["all deleted"](env, accounts)
        monkeypatch.setattr(comparison, "_BATCH_OPERATIONS", 1)
        monkeypatch.setattr(comparison, "_WINDOW_OPERATIONS", 1)
        monkeypatch.setattr("subgraphs.analytics.service.adapters.bank_ledger._PAGE_SIZE", 1)
        replay = make_replay(env)
        async with aclosing(replay.replay(accounts.alice, all_operations=all_operations)) as reports:
            assert isinstance(await anext(reports), Progress)
        assert await env.stored_versions(accounts.alice) == [1]
        assert not replay.is_replaying
        outcome = await run_replay(replay, accounts.alice, all_operations=all_operations)
        assert (outcome.outcome, outcome.pulled) == ("complete", 4)
        assert await env.stored_versions(accounts.alice) == [1, 2, 3, 4, 5]

    async def test_replay_with_a_gap_in_the_ledger_is_incomplete(self, env: AnalyticsEnvironment) -> None:
        accounts = await open_accounts(env)
        env.bank.hide_operation(env.bank.transfer(accounts.alice, accounts.bob))
        env.bank.transfer(accounts.alice, accounts.bob)
        for all_operations in (False, True):
            outcome = await run_replay(make_replay(env), all_operations=all_operations)
            assert (outcome.outcome, outcome.lacking, outcome.removed) == ("incomplete", 2, 0)
            assert await env.stored_versions(accounts.alice) == [1, 2, 3, 4, 5, 7]


class TestCommand:
    async def test_replay_reports_its_counters(
        self, env: AnalyticsEnvironment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        accounts = await open_accounts(env)
        await DAMAGES["an account that the ledger does not have"](env, accounts)
        await DAMAGES["deleted in the middle"](env, accounts)
        async with serve_admin_interface(env) as admin:
            for account, all_operations in ((accounts.alice, False), (UNKNOWN_ACCOUNT, True), (None, True)):
                code = await asyncio.to_thread(
                    replay_history, AdminEndpoint(admin), account, all_operations=all_operations
                )
                assert code == ReplayResult.COMPLETE
            async with httpx.AsyncClient(trust_env=False, base_url=admin) as http:
                metrics = (await http.get("/metrics")).text
        lines = [line.partition(" (")[0] for line in command_output(capsys)]
        assert lines == [
            "complete: 1 accounts checked, 3 operations pulled, 0 rows removed",
            "complete: 0 accounts checked, 0 operations pulled, 2 rows removed",
            "complete: 3 accounts checked, 0 operations pulled, 0 rows removed",
        ]
        assert "wallet_analytics_operations_replayed_total" in metrics

    async def test_replay_of_an_unknown_account_reports_it(
        self, env: AnalyticsEnvironment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with serve_admin_interface(env) as admin:
            assert (
                await asyncio.to_thread(replay_history, AdminEndpoint(admin), uuid4(), all_operations=True)
                == ReplayResult.NOT_FINISHED
            )
        assert "has no account" in capsys.readouterr().out

    async def test_replay_without_the_bank_is_unavailable(
        self, env: AnalyticsEnvironment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        env.bank.is_down = True
        async with serve_admin_interface(env) as admin:
            assert (
                await asyncio.to_thread(replay_history, AdminEndpoint(admin), None, all_operations=False)
                == ReplayResult.NOT_FINISHED
            )
        assert "run it again" in capsys.readouterr().out
