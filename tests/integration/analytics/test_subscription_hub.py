import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from aiokafka.errors import KafkaError

from stack.engines.apache_kafka import ApacheKafka
from subgraphs.analytics.service.application.watch import Timing, Watch
from subgraphs.analytics.service.domain.model import Event, Row, StreamStart
from subgraphs.analytics.service.domain.rows import rows_of
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.world import World, beside
from tests.kafka.brokers import on_both
from tests.waiting import until
from wallet.errors import AccountNotFound, SubscriberTooSlow, Unavailable


@pytest.fixture
def alice(world: World) -> UUID:
    return world.bank.open("alice")


@pytest.fixture
def bob(world: World) -> UUID:
    return world.bank.open("bob")


class Reader:
    """One open stream of alice's, as a client would hold it."""

    def __init__(self, world: World, watch: Watch, account_id: UUID, after: int | None) -> None:
        self._world = world
        self._watch = watch
        self._account_id = account_id
        self._rows = watch.operations(account_id, after)
        self._pending: asyncio.Task[Row] | None = None
        self.start: int | None = None

    async def take(self, count: int) -> list[int]:
        """The next so many versions."""
        async with asyncio.timeout(5):
            return [(await self._next()).account_version for _ in range(count)]

    async def follow(self, publish: Callable[[], None]) -> None:
        """Takes one after the other, for as long as there are any."""
        while True:
            publish()
            await self.take(1)

    async def waits(self) -> None:
        """Returns when the stream has told all there is and waits for what happens."""
        self._pending = asyncio.create_task(self._step())

        async def is_live() -> bool:
            streams = self._watch._subscriptions[self._account_id]
            return bool(streams) and all(stream.is_live for stream in streams)

        await until(is_live)

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait({self._pending})
        await self._rows.aclose()

    async def _next(self) -> Row:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return await pending
        return await self._step()

    async def _step(self) -> Row:
        with self._world.caller("alice"):
            row = await anext(self._rows)
            if isinstance(row, StreamStart):
                self.start = row.version
                row = await anext(self._rows)
        assert isinstance(row, Row)
        return row


@asynccontextmanager
async def reading(world: World, watch: Watch, account_id: UUID, after: int | None) -> AsyncIterator[Reader]:
    reader = Reader(world, watch, account_id, after)
    try:
        yield reader
    finally:
        await reader.close()


async def store(world: World, *events: Event) -> None:
    await world.history.insert([row for event in events for row in rows_of(event)])


class TestHistoryThenLive:
    async def test_history_and_live_meet_without_gap_or_repeat(self, world: World, alice: UUID, bob: UUID) -> None:
        events = [world.bank.transfer(alice, bob) for _ in range(5)]
        await store(world, *events)
        watch = world.watch()
        async with reading(world, watch, alice, 2) as reader:
            assert await reader.take(2) == [3, 4]
            for event in [events[4], *(world.bank.transfer(alice, bob) for _ in range(2))]:
                watch.publish(event)
                watch.publish(event)
            assert await reader.take(3) == [5, 6, 7]
        assert not watch.is_watched

    async def test_from_the_first_on(self, world: World, alice: UUID, bob: UUID) -> None:
        await store(world, *[world.bank.transfer(alice, bob) for _ in range(3)])
        async with reading(world, world.watch(), alice, 0) as reader:
            assert await reader.take(3) == [1, 2, 3]

    async def test_a_long_history_comes_in_pages(
        self, world: World, alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.application.watch._PAGE", 3)
        await store(world, *[world.bank.transfer(alice, bob) for _ in range(10)])
        async with reading(world, world.watch(), alice, 0) as reader:
            assert await reader.take(10) == list(range(1, 11))

    async def test_without_a_version_it_is_from_now_on(self, world: World, alice: UUID, bob: UUID) -> None:
        await store(world, world.bank.transfer(alice, bob))
        watch = world.watch()
        async with reading(world, watch, alice, None) as reader:
            await reader.waits()
            assert reader.start == 1
            watch.publish(world.bank.transfer(CLEARING, alice))
            assert await reader.take(1) == [2]
        assert world.bank.asked["GetBalance"] == 1

    async def test_what_is_not_stored_yet_is_delivered(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch()
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]
        assert await world.versions(alice) == []
        assert world.bank.asked["ListEvents"] == 0

    async def test_a_history_that_is_lost_comes_from_the_bank(self, world: World, alice: UUID, bob: UUID) -> None:
        for _ in range(3):
            world.bank.transfer(alice, bob)
        async with reading(world, world.watch(), alice, 1) as reader:
            assert await reader.take(2) == [2, 3]

    async def test_two_readers_get_the_same(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch()
        async with reading(world, watch, alice, 0) as one, reading(world, watch, alice, 0) as other:
            await one.waits()
            await other.waits()
            for _ in range(3):
                watch.publish(world.bank.transfer(alice, bob))
            assert await one.take(3) == await other.take(3) == [1, 2, 3]

    async def test_anothers_account_is_not_found(self, world: World, bob: UUID) -> None:
        async with reading(world, world.watch(), bob, None) as reader:
            with pytest.raises(AccountNotFound):
                await reader.take(1)


class TestDisorder:
    async def test_what_overtakes_waits_for_what_it_overtook(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=5, check_seconds=3600))
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            for event in reversed([world.bank.transfer(alice, bob) for _ in range(4)]):
                watch.publish(event)
            assert await reader.take(4) == [1, 2, 3, 4]
        assert world.bank.asked["ListEvents"] == 0

    async def test_what_never_comes_is_fetched_from_the_bank(self, world: World, alice: UUID, bob: UUID) -> None:
        repair = world.repair()
        watch = world.watch(repair)
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            world.bank.transfer(alice, bob)
            watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(2) == [1, 2]
        assert repair._suspects == {alice}

    async def test_what_was_stored_but_not_seen_is_fetched_from_the_history(
        self, world: World, alice: UUID, bob: UUID
    ) -> None:
        watch = world.watch()
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            await store(world, world.bank.transfer(alice, bob))
            watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(2) == [1, 2]
        assert world.bank.asked["ListEvents"] == 0

    async def test_a_loss_that_nothing_follows_is_noticed(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=0.1))
        async with reading(world, watch, alice, 0) as reader, beside(watch.check()):
            await reader.waits()
            world.bank.transfer(alice, bob)
            assert await reader.take(1) == [1]

    async def test_when_the_feed_was_away_every_stream_is_compared_at_once(
        self, world: World, alice: UUID, bob: UUID
    ) -> None:
        watch = world.watch()
        async with reading(world, watch, alice, 0) as reader, beside(watch.check()):
            await reader.waits()
            world.bank.transfer(alice, bob)
            watch.check_soon()
            assert await reader.take(1) == [1]

    async def test_a_gap_that_nobody_can_fill_now_ends_the_stream(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch()
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            world.bank.transfer(alice, bob)
            world.bank.is_down = True
            watch.publish(world.bank.transfer(alice, bob))
            with pytest.raises(Unavailable):
                await reader.take(1)

    async def test_a_version_that_the_ledger_has_not_got_is_waited_for(
        self, world: World, alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.application.watch._NOTHING_SECONDS", 0.05)
        watch = world.watch()
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            next(iter(watch._subscriptions[alice])).expect(1)

            async def has_asked() -> bool:
                return world.bank.asked["ListEvents"] >= 2

            await until(has_asked)
            watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]


class TestSlowReader:
    async def test_is_let_go_and_may_come_back(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=3600, room=3))
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]
            for _ in range(4):
                watch.publish(world.bank.transfer(alice, bob))
            with pytest.raises(SubscriberTooSlow):
                await reader.take(1)
        async with reading(world, watch, alice, 1) as reader:
            assert await reader.take(4) == [2, 3, 4, 5]

    async def test_is_not_let_go_while_it_reads_history(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=3600, room=3))
        await store(world, *[world.bank.transfer(alice, bob) for _ in range(3)])
        async with reading(world, watch, alice, 0) as reader:
            assert await reader.take(1) == [1]
            for _ in range(10):
                watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(12) == list(range(2, 14))

    async def test_is_not_let_go_while_it_reads_what_was_lost(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=3600, room=3))
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            for _ in range(10):
                world.bank.transfer(alice, bob)
            watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]
            for _ in range(4):
                watch.publish(world.bank.transfer(alice, bob))
            assert await reader.take(14) == list(range(2, 16))

    async def test_what_is_repeated_takes_no_room(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=3600, room=3))
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            events = [world.bank.transfer(alice, bob) for _ in range(3)]
            for event in events:
                watch.publish(event)
            assert await reader.take(3) == [1, 2, 3]
            for event in [*events, world.bank.transfer(alice, bob)]:
                watch.publish(event)
            assert await reader.take(1) == [4]


class TestClose:
    async def test_ends_every_stream_and_lets_no_other_begin(self, world: World, alice: UUID) -> None:
        watch = world.watch()
        async with reading(world, watch, alice, 0) as reader:
            await reader.waits()
            watch.close()
            with pytest.raises(Unavailable):
                await reader.take(1)
        async with reading(world, watch, alice, 0) as reader:
            with pytest.raises(Unavailable):
                await reader.take(1)


class TestTail:
    @on_both
    async def test_hands_on_what_is_published_from_now_on(self, world: World, alice: UUID, bob: UUID) -> None:
        await world.publish(world.bank.transfer(alice, bob))
        seen: list[int] = []

        class Notes(Watch):
            is_watched = True

            def publish(self, event: Event) -> None:
                seen.append(event.sender.version)

            def check_soon(self) -> None:
                seen.append(0)

        watch = Notes(world.history, world.ledger, world.bank_client, world.repair(), Timing())

        async def follows() -> bool:
            return seen == [0]

        async def has_both() -> bool:
            return seen == [0, 2, 3]

        async with beside(world.tail(watch).run()):
            await until(follows)
            await world.publish_raw(b"nonsense", [])
            await world.publish(world.bank.transfer(alice, bob), world.bank.transfer(alice, bob))
            await until(has_both)

    @on_both
    async def test_a_topic_that_is_made_later_is_read_from_its_start(
        self, world: World, alice: UUID, bob: UUID
    ) -> None:
        if isinstance(world.kafka, ApacheKafka):
            await world.kafka.clean()
        watch = world.watch()

        async def follows() -> bool:
            return watch._check_now.is_set()

        async with reading(world, watch, alice, 0) as reader, beside(world.tail(watch).run()):
            await reader.waits()
            await until(follows)
            await world.publish(*(world.bank.transfer(alice, bob) for _ in range(3)))
            assert await reader.take(3) == [1, 2, 3]
        assert world.bank.asked["ListEvents"] == 0

    @on_both
    async def test_says_whether_the_broker_answers(self, world: World) -> None:
        tail = world.tail(world.watch())
        with pytest.raises(Unavailable):
            await tail.ping()
        async with beside(tail.run()):

            async def answers() -> bool:
                try:
                    await tail.ping()
                except Unavailable:
                    return False
                return True

            await until(answers)

    async def test_fails_when_the_broker_goes_so_that_it_is_started_again(self, world: World) -> None:
        tail = world.tail(world.watch())
        running = asyncio.create_task(tail.run())

        async def answers() -> bool:
            return tail._running is not None

        await until(answers)
        world.kafka.kill()
        with pytest.raises(KafkaError):
            await asyncio.wait_for(running, 10)


class TestLosingAccess:
    async def test_ends_a_quiet_stream_and_a_busy_one(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=3600, access_seconds=0.1))
        async with reading(world, watch, alice, 0) as quiet, reading(world, watch, alice, 0) as busy:
            await quiet.waits()
            watch.publish(world.bank.transfer(bob, alice))
            assert await quiet.take(1) == await busy.take(1) == [1]
            world.bank.give(alice, "mallory")
            with pytest.raises(AccountNotFound):
                await quiet.take(1)
            with pytest.raises(AccountNotFound):
                await busy.follow(lambda: watch.publish(world.bank.transfer(bob, alice)))

    async def test_is_not_what_a_bank_that_is_away_says(self, world: World, alice: UUID, bob: UUID) -> None:
        watch = world.watch(timing=Timing(patience_seconds=0.05, check_seconds=3600, access_seconds=0.02))
        async with reading(world, watch, alice, None) as reader:
            await reader.waits()
            world.bank.is_down = True
            asked = world.bank.asked["GetBalance"]

            async def asked_again() -> bool:
                return world.bank.asked["GetBalance"] > asked + 2

            await until(asked_again)
            watch.publish(world.bank.transfer(bob, alice))
            assert await reader.take(1) == [1]
