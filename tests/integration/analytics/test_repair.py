import asyncio
import json
from collections.abc import Sequence
from uuid import UUID

import pytest

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.history import Coverage, History
from subgraphs.analytics.service.adapters.events import decode
from subgraphs.analytics.service.application import repair as module
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.rows import rows_of
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.group import Held
from tests.integration.analytics.world import World, beside, body, headers
from wallet.errors import Unavailable


class TestRepair:
    async def test_a_lost_topic_loses_nothing(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        world.bank.transfer(CLEARING, alice, "500.00")
        for _ in range(20):
            world.bank.transfer(alice, bob)
        await world.repair().compare_all(grace_seconds=0)
        assert await world.versions(alice) == list(range(1, 22))
        assert await world.versions(bob) == list(range(1, 21))
        assert await world.versions(CLEARING) == [1]

    async def test_what_comes_by_either_road_is_the_same(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        events = [world.bank.transfer(CLEARING, alice), world.bank.transfer(alice, bob, "0.01")]
        pulled = await world.ledger.events(alice, 0)
        assert pulled == events
        assert pulled == [decode(json.dumps(body(event)).encode(), headers(event)) for event in events]

    async def test_a_hole_in_the_middle_is_filled(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        events = [world.bank.transfer(alice, bob) for _ in range(10)]
        await world.history.insert([row for event in (*events[:3], *events[5:]) for row in rows_of(event)])
        await world.repair().compare_all(grace_seconds=0)
        assert await world.versions(alice) == list(range(1, 11))
        assert await world.versions(bob) == list(range(1, 11))

    async def test_holes_far_apart_do_not_cost_what_lies_between(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.adapters.ledger._PAGE", 5)
        alice, bob = world.bank.open(), world.bank.open("bob")
        events = [world.bank.transfer(alice, bob) for _ in range(100)]
        await world.history.insert(
            [row for event in events if event.sender.version not in {7, 70} for row in rows_of(event)]
        )
        await world.repair().compare_all(grace_seconds=0)
        assert await world.versions(alice) == list(range(1, 101))
        assert world.bank.asked["ListEvents"] == 2

    async def test_nothing_is_pulled_where_nothing_is_missing(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        world.bank.open("carol")
        events = [world.bank.transfer(alice, bob) for _ in range(3)]
        await world.history.insert([row for event in events for row in rows_of(event)])
        await world.repair().compare_all(grace_seconds=0)
        assert world.bank.asked == {"ListAccountVersions": 1}

    async def test_what_arrives_within_the_grace_is_not_pulled(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        event = world.bank.transfer(alice, bob)

        class Arriving(History):
            """What was found missing arrives a moment later."""

            arrival: "asyncio.Task[None] | None" = None

            async def coverage(self, account_ids: Sequence[UUID]) -> dict[UUID, Coverage]:
                found = await super().coverage(account_ids)
                self.arrival = self.arrival or asyncio.create_task(self._arrive())
                return found

            async def _arrive(self) -> None:
                await asyncio.sleep(0.1)
                await self.insert(rows_of(event))

        repair = Repair(Arriving(world.database), world.ledger, period_seconds=3600, grace_seconds=0)
        await repair.compare_all(grace_seconds=2)
        assert await world.versions(alice) == [1]
        assert world.bank.asked["ListEvents"] == 0

    async def test_all_accounts_are_compared_page_by_page(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.adapters.ledger._PAGE", 3)
        monkeypatch.setattr(module, "_MOST_SUSPECTS", 2)
        accounts = [world.bank.open() for _ in range(10)]
        for account in accounts:
            world.bank.transfer(CLEARING, account)
        await world.repair().compare_all(grace_seconds=0)
        for account in accounts:
            assert await world.versions(account) == [1]

    async def test_says_how_many_accounts_are_incomplete_until_they_are_not(self, world: World) -> None:
        accounts = [world.bank.open() for _ in range(3)]
        for account in accounts:
            world.bank.transfer(CLEARING, account)
        metrics.COMPARED.set(0)
        history = Held(world.database)
        history.hold()
        repair = Repair(history, world.ledger, period_seconds=3600, grace_seconds=0)
        async with beside(repair.compare_all(grace_seconds=0)) as comparing:
            await history.waits.wait()
            assert (metrics.ACCOUNTS_INCOMPLETE._value.get(), metrics.COMPARED._value.get()) == (4, 0)
            history.may_go.set()
            await comparing
        assert metrics.ACCOUNTS_INCOMPLETE._value.get() == 0
        assert metrics.COMPARED._value.get() > 0

    async def test_what_the_ledger_lacks_itself_stays_incomplete(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        world.bank.transfer(CLEARING, alice)
        world.bank.forget(world.bank.transfer(alice, bob))
        await world.repair().compare_all(grace_seconds=0)
        assert metrics.ACCOUNTS_INCOMPLETE._value.get() == 2

    async def test_every_so_often_all_accounts_are_compared(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        async with beside(world.repair(period_seconds=0.1).run()):
            world.bank.transfer(alice, bob)
            await world.stored(alice, [1])
            world.bank.transfer(alice, bob)
            await world.stored(alice, [1, 2])

    async def test_a_suspected_account_is_mended_alone(self, world: World) -> None:
        alice, bob, carol = world.bank.open(), world.bank.open("bob"), world.bank.open("carol")
        repair = world.repair()
        repair._is_first = False
        world.bank.transfer(CLEARING, carol)
        world.bank.transfer(alice, bob)
        repair.suspect(alice)
        async with beside(repair.run()):
            await world.stored(alice, [1])
        assert await world.versions(carol) == []
        assert world.bank.asked["ListAccountVersions"] == 0

    async def test_too_many_suspects_are_all_accounts(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_MOST_SUSPECTS", 0)
        alice, bob = world.bank.open(), world.bank.open("bob")
        repair = world.repair()
        world.bank.transfer(alice, bob)
        repair.suspect(bob)
        async with beside(repair.run()):
            await world.stored(alice, [1])

    async def test_what_was_suspected_outlives_a_failure(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        repair = world.repair()
        repair._is_first = False
        world.bank.transfer(alice, bob)
        repair.suspect(alice)
        world.bank.is_down = True
        with pytest.raises(Unavailable):
            await repair.run()
        world.bank.is_down = False
        async with beside(repair.run()):
            await world.stored(alice, [1])

    async def test_a_ledger_that_lacks_what_it_counts_does_not_hold_up_the_rest(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        world.bank.transfer(CLEARING, bob)
        versions = await world.ledger.versions([alice, bob])
        await world.repair()._mend(versions | {alice: 5}, 0)
        assert await world.versions(bob) == [1]

    async def test_a_gap_in_the_ledger_itself_is_passed_over(self, world: World) -> None:
        alice, bob = world.bank.open(), world.bank.open("bob")
        events = [world.bank.transfer(alice, bob) for _ in range(5)]
        world.bank.forget(events[2])
        await world.repair().compare_all(grace_seconds=0)
        assert await world.versions(alice) == [1, 2, 4, 5]
        assert await world.versions(bob) == [1, 2, 4, 5]
