import asyncio
import json
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import pytest

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.history import Coverage, History
from subgraphs.analytics.service.adapters.events import decode_event
from subgraphs.analytics.service.application import repair as repair_module
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.rows import rows_from_event
from tests.integration.analytics.environment import AnalyticsEnvironment, background, body, headers
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.group import BlockedHistory
from wallet.errors import Unavailable


class TestRepair:
    async def test_history_is_complete_without_the_topic(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        env.bank.transfer(CLEARING, alice, "500.00")
        for _ in range(20):
            env.bank.transfer(alice, bob)
        await env.repair().repair_all(grace_seconds=0)
        assert await env.stored_versions(alice) == list(range(1, 22))
        assert await env.stored_versions(bob) == list(range(1, 21))
        assert await env.stored_versions(CLEARING) == [1]

    async def test_repaired_rows_equal_consumed_rows(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        events = [env.bank.transfer(CLEARING, alice), env.bank.transfer(alice, bob, "0.01")]
        pulled = await env.ledger.list_events(alice, 0)
        assert pulled == events
        assert pulled == [decode_event(json.dumps(body(event)).encode(), headers(event)) for event in events]

    async def test_gap_is_filled(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        events = [env.bank.transfer(alice, bob) for _ in range(10)]
        await env.history.insert([row for event in (*events[:3], *events[5:]) for row in rows_from_event(event)])
        await env.repair().repair_all(grace_seconds=0)
        assert await env.stored_versions(alice) == list(range(1, 11))
        assert await env.stored_versions(bob) == list(range(1, 11))

    async def test_only_the_gaps_are_read_from_the_bank(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.adapters.bank_ledger._PAGE_SIZE", 5)
        alice, bob = env.bank.open(), env.bank.open("bob")
        events = [env.bank.transfer(alice, bob) for _ in range(100)]
        await env.history.insert(
            [row for event in events if event.sender.version not in {7, 70} for row in rows_from_event(event)]
        )
        await env.repair().repair_all(grace_seconds=0)
        assert await env.stored_versions(alice) == list(range(1, 101))
        assert env.bank.calls["ListEvents"] == 2

    async def test_complete_history_is_not_read_from_the_bank(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        env.bank.open("carol")
        events = [env.bank.transfer(alice, bob) for _ in range(3)]
        await env.history.insert([row for event in events for row in rows_from_event(event)])
        await env.repair().repair_all(grace_seconds=0)
        assert env.bank.calls == {"ListAccountVersions": 1, "VerifyHistory": 1}

    async def test_operation_that_arrives_within_the_grace_period_is_not_read_from_the_bank(
        self, env: AnalyticsEnvironment
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        event = env.bank.transfer(alice, bob)

        class Arriving(History):
            """History in which a missing operation is inserted after the first comparison."""

            comparisons = 0

            async def get_coverage(self, account_ids: Sequence[UUID]) -> dict[UUID, Coverage]:
                coverage = await super().get_coverage(account_ids)
                self.comparisons += 1
                if self.comparisons == 1:
                    await self.insert(rows_from_event(event))
                return coverage

        history = Arriving(env.database)
        repair = Repair(history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=0)
        await repair.repair_all(grace_seconds=0.01)
        assert history.comparisons == 2
        assert await env.stored_versions(alice) == [1]
        assert env.bank.calls["ListEvents"] == 0

    async def test_repair_waits_for_a_topic_that_delivers_late(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        event = env.bank.transfer(alice, bob)
        repair = Repair(env.history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=0.01)

        class Delivery(asyncio.Event):
            """Becomes true when somebody waits: then the topic has delivered the operation."""

            async def wait(self) -> Literal[True]:
                if not self.is_set():
                    await env.history.insert(rows_from_event(event))
                return True

        repair._is_prompt = Delivery()
        repair.note_delivery(6)
        await repair.repair_all(grace_seconds=0.01)
        assert await env.stored_versions(alice) == [1]
        assert env.bank.calls["ListEvents"] == 0

    async def test_wait_for_a_topic_that_delivers_late_is_bounded(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repair_module, "_LONGEST_DELIVERY_SECONDS", 0.01)
        alice, bob = env.bank.open(), env.bank.open("bob")
        env.bank.transfer(alice, bob)
        repair = Repair(env.history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=0.01)
        repair.note_delivery(6)
        await repair.repair_all(grace_seconds=0.01)
        assert await env.stored_versions(alice) == [1]

    async def test_topic_that_delivers_promptly_again_is_not_waited_for(self, env: AnalyticsEnvironment) -> None:
        repair = Repair(env.history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=5)
        repair.note_delivery(5.1)
        assert not repair._is_prompt.is_set()
        repair.note_delivery(4.9)
        assert repair._is_prompt.is_set()

    async def test_all_accounts_are_compared_in_pages(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.adapters.bank_ledger._PAGE_SIZE", 3)
        monkeypatch.setattr(repair_module, "_MAX_SUSPECTS", 2)
        accounts = [env.bank.open() for _ in range(10)]
        for account in accounts:
            env.bank.transfer(CLEARING, account)
        await env.repair().repair_all(grace_seconds=0)
        for account in accounts:
            assert await env.stored_versions(account) == [1]

    async def test_metric_counts_incomplete_accounts_during_the_repair(self, env: AnalyticsEnvironment) -> None:
        accounts = [env.bank.open() for _ in range(3)]
        for account in accounts:
            env.bank.transfer(CLEARING, account)
        metrics.COMPARED.set(0)
        history = BlockedHistory(env.database)
        history.block()
        repair = Repair(history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=0)
        async with background(repair.repair_all(grace_seconds=0)) as comparing:
            await history.is_blocking.wait()
            assert (metrics.ACCOUNTS_INCOMPLETE._value.get(), metrics.COMPARED._value.get()) == (4, 0)
            history.release()
            await comparing
        assert metrics.ACCOUNTS_INCOMPLETE._value.get() == 0
        assert metrics.COMPARED._value.get() > 0

    async def test_account_with_a_gap_in_the_ledger_stays_incomplete(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        env.bank.transfer(CLEARING, alice)
        env.bank.hide_operation(env.bank.transfer(alice, bob))
        await env.repair().repair_all(grace_seconds=0)
        assert metrics.ACCOUNTS_INCOMPLETE._value.get() == 2

    async def test_all_accounts_are_compared_periodically(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        async with background(env.repair(period_seconds=0.1).run()):
            env.bank.transfer(alice, bob)
            await env.until_stored(alice, [1])
            env.bank.transfer(alice, bob)
            await env.until_stored(alice, [1, 2])

    async def test_suspected_accounts_do_not_delay_the_comparison_of_all(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        repair = env.repair(grace_seconds=0, period_seconds=0.1)
        repair._is_first = False
        env.bank.transfer(CLEARING, alice)

        async def suspect_repeatedly() -> None:
            while True:
                repair.suspect(bob)
                await asyncio.sleep(0.01)

        async with background(repair.run()), background(suspect_repeatedly()):
            await env.until_stored(alice, [1])

    async def test_only_the_suspected_account_is_repaired(self, env: AnalyticsEnvironment) -> None:
        alice, bob, carol = env.bank.open(), env.bank.open("bob"), env.bank.open("carol")
        repair = env.repair()
        repair._is_first = False
        env.bank.transfer(CLEARING, carol)
        env.bank.transfer(alice, bob)
        repair.suspect(alice)
        async with background(repair.run()):
            await env.until_stored(alice, [1])
        assert await env.stored_versions(carol) == []
        assert env.bank.calls["ListAccountVersions"] == 0

    async def test_all_accounts_are_compared_after_too_many_suspects(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repair_module, "_MAX_SUSPECTS", 0)
        alice, bob = env.bank.open(), env.bank.open("bob")
        repair = env.repair()
        repair._is_first = False
        env.bank.transfer(alice, bob)
        repair.suspect(bob)
        async with background(repair.run()):
            await env.until_stored(alice, [1])

    async def test_suspects_are_kept_after_a_failure(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        repair = env.repair()
        repair._is_first = False
        env.bank.transfer(alice, bob)
        repair.suspect(alice)
        env.bank.is_down = True
        with pytest.raises(Unavailable):
            await repair.run()
        env.bank.is_down = False
        async with background(repair.run()):
            await env.until_stored(alice, [1])

    async def test_gap_in_the_ledger_does_not_block_other_accounts(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        env.bank.transfer(CLEARING, bob)
        versions = await env.ledger.get_versions([alice, bob])
        await env.repair()._repair(versions | {alice: 5}, 0)
        assert await env.stored_versions(bob) == [1]

    async def test_operations_after_a_gap_in_the_ledger_are_inserted(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        events = [env.bank.transfer(alice, bob) for _ in range(5)]
        env.bank.hide_operation(events[2])
        await env.repair().repair_all(grace_seconds=0)
        assert await env.stored_versions(alice) == [1, 2, 4, 5]
        assert await env.stored_versions(bob) == [1, 2, 4, 5]
