import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from uuid import UUID

import pytest
from aiokafka.errors import KafkaError

from stack.engines.apache_kafka import ApacheKafka
from subgraphs.analytics.service.application.subscription_hub import HubLimits, SubscriptionHub
from subgraphs.analytics.service.domain.model import Event, Row, StreamStart
from subgraphs.analytics.service.domain.rows import rows_from_event
from tests.integration.analytics.environment import AnalyticsEnvironment, background
from tests.integration.analytics.fake_bank import CLEARING
from tests.kafka.brokers import on_both
from tests.waiting import until
from wallet.errors import AccountNotFound, ResourceExhausted, SubscriberTooSlow, Unavailable, WalletError

bank_outages = pytest.mark.parametrize(
    "outage", [Unavailable("the bank"), ResourceExhausted()], ids=lambda outage: type(outage).__name__
)


@pytest.fixture
def alice(env: AnalyticsEnvironment) -> UUID:
    return env.bank.open("alice")


@pytest.fixture
def bob(env: AnalyticsEnvironment) -> UUID:
    return env.bank.open("bob")


class Reader:
    """Reader of one stream of an account's operations, with the identity of Alice."""

    def __init__(self, env: AnalyticsEnvironment, hub: SubscriptionHub, account_id: UUID, after: int | None) -> None:
        self._env = env
        self._hub = hub
        self._account_id = account_id
        self._stream = hub.subscribe(account_id, after)
        self._batch: Iterator[Row] = iter(())
        self._pending: asyncio.Task[Row] | None = None
        self.start: int | None = None

    async def take(self, count: int) -> list[int]:
        """Return the next `count` versions."""
        async with asyncio.timeout(5):
            return [(await self._next()).account_version for _ in range(count)]

    async def publish_until_error(self, publish: Callable[[], None]) -> None:
        """Publish and take operations until the stream raises its error."""
        while True:
            publish()
            await self.take(1)

    async def wait_until_idle(self) -> None:
        """Wait until the stream has delivered all stored operations and waits for new ones."""
        self._pending = asyncio.create_task(self._step())

        async def is_live() -> bool:
            streams = self._hub._subscriptions[self._account_id]
            return bool(streams) and all(stream.is_live for stream in streams)

        await until(is_live)

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait({self._pending})
        await self._stream.aclose()

    async def _next(self) -> Row:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return await pending
        return await self._step()

    async def _step(self) -> Row:
        if (row := next(self._batch, None)) is not None:
            return row
        with self._env.as_user("alice"):
            batch = await anext(self._stream)
            if isinstance(batch, StreamStart):
                self.start = batch.version
                batch = await anext(self._stream)
        assert not isinstance(batch, StreamStart)
        self._batch = iter(batch)
        return next(self._batch)


@asynccontextmanager
async def reading(
    env: AnalyticsEnvironment, hub: SubscriptionHub, account_id: UUID, after: int | None
) -> AsyncIterator[Reader]:
    reader = Reader(env, hub, account_id, after)
    try:
        yield reader
    finally:
        await reader.close()


async def store(env: AnalyticsEnvironment, *events: Event) -> None:
    await env.history.insert([row for event in events for row in rows_from_event(event)])


class TestStream:
    async def test_stored_and_new_operations_are_delivered_without_gap_or_repeat(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        events = [env.bank.transfer(alice, bob) for _ in range(5)]
        await store(env, *events)
        hub = env.hub()
        async with reading(env, hub, alice, 2) as reader:
            assert await reader.take(2) == [3, 4]
            for event in [events[4], *(env.bank.transfer(alice, bob) for _ in range(2))]:
                hub.publish(event)
                hub.publish(event)
            assert await reader.take(3) == [5, 6, 7]
        assert not hub.has_subscriptions

    async def test_stream_after_version_zero_has_all_operations(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        await store(env, *[env.bank.transfer(alice, bob) for _ in range(3)])
        async with reading(env, env.hub(), alice, 0) as reader:
            assert await reader.take(3) == [1, 2, 3]

    async def test_long_history_is_fetched_in_pages(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.analytics.service.application.subscription_hub._PAGE_SIZE", 3)
        await store(env, *[env.bank.transfer(alice, bob) for _ in range(10)])
        async with reading(env, env.hub(), alice, 0) as reader:
            assert await reader.take(10) == list(range(1, 11))

    async def test_operations_available_together_are_delivered_together(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        await store(env, *[env.bank.transfer(alice, bob) for _ in range(40)])
        hub = env.hub()
        with env.as_user("alice"):
            async with aclosing(hub.subscribe(alice, 0)) as stream:
                start, *stored = [await anext(stream) for _ in range(3)]
                assert start == StreamStart(0, "")
                for _ in range(3):
                    hub.publish(env.bank.transfer(alice, bob))
                batches = [*stored, await anext(stream)]
        versions = [[row.account_version for row in batch] for batch in batches if not isinstance(batch, StreamStart)]
        assert versions == [[*range(1, 33)], [*range(33, 41)], [41, 42, 43]]

    async def test_pages_of_one_caller_are_fetched_one_after_another(
        self, env: AnalyticsEnvironment, alice: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = env.bank.open("carol")
        await store(env, env.bank.transfer(CLEARING, alice), env.bank.transfer(CLEARING, account))
        hub, fetched, proceed = env.hub(), list[UUID](), asyncio.Event()
        list_after = hub._history.list_after

        async def wait_to_list(account_id: UUID, version: int, limit: int) -> list[Row]:
            fetched.append(account_id)
            await proceed.wait()
            return await list_after(account_id, version, limit)

        monkeypatch.setattr(hub._history, "list_after", wait_to_list)

        async def read(user: str, account_id: UUID) -> Sequence[Row] | StreamStart:
            with env.as_user(user):
                async with aclosing(hub.subscribe(account_id, 0)) as stream:
                    await anext(stream)
                    return await anext(stream)

        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            reads = [tasks.create_task(read("alice", alice)) for _ in range(3)]

            async def is_fetching() -> bool:
                return len(fetched) == 1

            await until(is_fetching)
            reads.append(tasks.create_task(read("carol", account)))

            async def is_fetching_for_both() -> bool:
                return account in fetched

            await until(is_fetching_for_both)
            assert fetched == [alice, account]
            proceed.set()
        assert [len(read.result()) for read in reads] == [1, 1, 1, 1]  # type: ignore[arg-type]

    async def test_stream_without_a_version_has_new_operations_only(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        await store(env, env.bank.transfer(alice, bob))
        hub = env.hub()
        async with reading(env, hub, alice, None) as reader:
            await reader.wait_until_idle()
            assert reader.start == 1
            hub.publish(env.bank.transfer(CLEARING, alice))
            assert await reader.take(1) == [2]
        assert env.bank.calls["GetBalance"] == 1

    async def test_operation_that_is_not_stored_is_delivered(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub()
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]
        assert await env.stored_versions(alice) == []
        assert env.bank.calls["ListEvents"] == 0

    async def test_operations_missing_in_the_history_come_from_the_bank(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        for _ in range(3):
            env.bank.transfer(alice, bob)
        async with reading(env, env.hub(), alice, 1) as reader:
            assert await reader.take(2) == [2, 3]

    async def test_two_subscribers_receive_the_same_operations(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub()
        async with reading(env, hub, alice, 0) as one, reading(env, hub, alice, 0) as other:
            await one.wait_until_idle()
            await other.wait_until_idle()
            for _ in range(3):
                hub.publish(env.bank.transfer(alice, bob))
            assert await one.take(3) == await other.take(3) == [1, 2, 3]

    async def test_account_of_another_user_is_not_found(self, env: AnalyticsEnvironment, bob: UUID) -> None:
        async with reading(env, env.hub(), bob, None) as reader:
            with pytest.raises(AccountNotFound):
                await reader.take(1)


class TestOrder:
    async def test_operations_out_of_order_are_delivered_in_order(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub(limits=HubLimits(gap_timeout_seconds=5, check_interval_seconds=3600))
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            for event in reversed([env.bank.transfer(alice, bob) for _ in range(4)]):
                hub.publish(event)
            assert await reader.take(4) == [1, 2, 3, 4]
        assert env.bank.calls["ListEvents"] == 0

    async def test_lost_event_is_fetched_from_the_bank(self, env: AnalyticsEnvironment, alice: UUID, bob: UUID) -> None:
        repair = env.repair()
        hub = env.hub(repair)
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            env.bank.transfer(alice, bob)
            hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(2) == [1, 2]
        assert repair._suspects == {alice}

    async def test_missed_operation_is_fetched_from_the_history(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub()
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            await store(env, env.bank.transfer(alice, bob))
            hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(2) == [1, 2]
        assert env.bank.calls["ListEvents"] == 0

    async def test_lost_last_event_is_found_by_the_periodic_check(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub(limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=0.1))
        async with reading(env, hub, alice, 0) as reader, background(hub.run_checks()):
            await reader.wait_until_idle()
            env.bank.transfer(alice, bob)
            assert await reader.take(1) == [1]

    async def test_requested_check_runs_without_a_wait(self, env: AnalyticsEnvironment, alice: UUID, bob: UUID) -> None:
        hub = env.hub()
        async with reading(env, hub, alice, 0) as reader, background(hub.run_checks()):
            await reader.wait_until_idle()
            env.bank.transfer(alice, bob)
            hub.request_check()
            assert await reader.take(1) == [1]

    @bank_outages
    async def test_gap_that_cannot_be_filled_ends_the_stream_so_that_it_can_resume(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID, outage: WalletError
    ) -> None:
        hub = env.hub()
        env.bank.outage = outage
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            env.bank.transfer(alice, bob)
            env.bank.is_down = True
            hub.publish(env.bank.transfer(alice, bob))
            with pytest.raises(Unavailable):
                await reader.take(1)

    async def test_version_missing_in_the_ledger_is_awaited(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "subgraphs.analytics.service.application.subscription_hub._MISSING_OPERATION_DELAY_SECONDS", 0.05
        )
        hub = env.hub()
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            next(iter(hub._subscriptions[alice])).expect(1)

            async def has_retried() -> bool:
                return env.bank.calls["ListEvents"] >= 2

            await until(has_retried)
            hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]


class TestSlowSubscriber:
    async def test_stream_of_slow_subscriber_ends_and_can_resume(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub(limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, buffer_size=3))
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]
            for _ in range(4):
                hub.publish(env.bank.transfer(alice, bob))
            with pytest.raises(SubscriberTooSlow):
                await reader.take(1)
        async with reading(env, hub, alice, 1) as reader:
            assert await reader.take(4) == [2, 3, 4, 5]

    async def test_subscriber_that_reads_history_is_not_too_slow(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub(limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, buffer_size=3))
        await store(env, *[env.bank.transfer(alice, bob) for _ in range(3)])
        async with reading(env, hub, alice, 0) as reader:
            assert await reader.take(1) == [1]
            for _ in range(10):
                hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(12) == list(range(2, 14))

    async def test_subscriber_that_reads_lost_operations_is_not_too_slow(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub(limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, buffer_size=3))
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            for _ in range(10):
                env.bank.transfer(alice, bob)
            hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(1) == [1]
            for _ in range(4):
                hub.publish(env.bank.transfer(alice, bob))
            assert await reader.take(14) == list(range(2, 16))

    async def test_repeated_events_are_not_buffered(self, env: AnalyticsEnvironment, alice: UUID, bob: UUID) -> None:
        hub = env.hub(limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, buffer_size=3))
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            events = [env.bank.transfer(alice, bob) for _ in range(3)]
            for event in events:
                hub.publish(event)
            assert await reader.take(3) == [1, 2, 3]
            for event in [*events, env.bank.transfer(alice, bob)]:
                hub.publish(event)
            assert await reader.take(1) == [4]


class TestClose:
    async def test_close_ends_all_streams_and_refuses_new_ones(self, env: AnalyticsEnvironment, alice: UUID) -> None:
        hub = env.hub()
        async with reading(env, hub, alice, 0) as reader:
            await reader.wait_until_idle()
            hub.close()
            with pytest.raises(Unavailable):
                await reader.take(1)
        async with reading(env, hub, alice, 0) as reader:
            with pytest.raises(Unavailable):
                await reader.take(1)


class TestLiveConsumer:
    @on_both
    async def test_new_events_are_published_to_the_hub(self, env: AnalyticsEnvironment, alice: UUID, bob: UUID) -> None:
        await env.publish(env.bank.transfer(alice, bob))
        published: list[int] = []

        class RecordingHub(SubscriptionHub):
            has_subscriptions = True

            def publish(self, event: Event) -> None:
                published.append(event.sender.version)

            def request_check(self) -> None:
                published.append(0)

        hub = RecordingHub(env.history, env.ledger, env.bank_client, env.repair(), HubLimits())

        async def has_started() -> bool:
            return published == [0]

        async def has_both() -> bool:
            return published == [0, 2, 3]

        async with background(env.live_consumer(hub).run()):
            await until(has_started)
            await env.publish_raw(b"nonsense", [])
            await env.publish(env.bank.transfer(alice, bob), env.bank.transfer(alice, bob))
            await until(has_both)

    @on_both
    async def test_new_topic_is_read_from_its_start(self, env: AnalyticsEnvironment, alice: UUID, bob: UUID) -> None:
        if isinstance(env.kafka, ApacheKafka):
            await env.kafka.clean()
        hub = env.hub()

        async def has_started() -> bool:
            return hub._check_requested.is_set()

        async with reading(env, hub, alice, 0) as reader, background(env.live_consumer(hub).run()):
            await reader.wait_until_idle()
            await until(has_started)
            await env.publish(*(env.bank.transfer(alice, bob) for _ in range(3)))
            assert await reader.take(3) == [1, 2, 3]
        assert env.bank.calls["ListEvents"] == 0

    @on_both
    async def test_ping_fails_until_the_consumer_is_connected(self, env: AnalyticsEnvironment) -> None:
        live_consumer = env.live_consumer(env.hub())
        with pytest.raises(Unavailable):
            await live_consumer.ping()
        async with background(live_consumer.run()):

            async def is_connected() -> bool:
                try:
                    await live_consumer.ping()
                except Unavailable:
                    return False
                return True

            await until(is_connected)

    async def test_run_fails_when_the_broker_is_lost(self, env: AnalyticsEnvironment) -> None:
        live_consumer = env.live_consumer(env.hub())
        running = asyncio.create_task(live_consumer.run())

        async def is_connected() -> bool:
            return live_consumer._running_admin is not None

        await until(is_connected)
        env.kafka.kill()
        with pytest.raises(KafkaError):
            await asyncio.wait_for(running, 10)


class TestLostAccess:
    async def test_lost_access_ends_idle_and_busy_streams(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID
    ) -> None:
        hub = env.hub(
            limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, access_interval_seconds=0.1)
        )
        async with reading(env, hub, alice, 0) as quiet, reading(env, hub, alice, 0) as busy:
            await quiet.wait_until_idle()
            hub.publish(env.bank.transfer(bob, alice))
            assert await quiet.take(1) == await busy.take(1) == [1]
            env.bank.change_owner(alice, "mallory")
            with pytest.raises(AccountNotFound):
                await quiet.take(1)
            with pytest.raises(AccountNotFound):
                await busy.publish_until_error(lambda: hub.publish(env.bank.transfer(bob, alice)))

    @bank_outages
    async def test_outage_of_the_bank_does_not_end_streams(
        self, env: AnalyticsEnvironment, alice: UUID, bob: UUID, outage: WalletError
    ) -> None:
        env.bank.outage = outage
        hub = env.hub(
            limits=HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600, access_interval_seconds=0.02)
        )
        async with reading(env, hub, alice, None) as reader:
            await reader.wait_until_idle()
            env.bank.is_down = True
            calls_before = env.bank.calls["GetBalance"]

            async def has_checked_again() -> bool:
                return env.bank.calls["GetBalance"] > calls_before + 2

            await until(has_checked_again)
            hub.publish(env.bank.transfer(bob, alice))
            assert await reader.take(1) == [1]
