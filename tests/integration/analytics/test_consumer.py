import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer
from structlog.testing import capture_logs

from asyncapi.topics import OPERATIONS_TOPIC
from stack.engines.children import ClickHouse
from stack.ports import free_ports
from subgraphs.analytics.service import __main__ as main
from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application import consumer
from subgraphs.analytics.service.application.consumer import Consumer, ConsumerLimits, TooManyDeadLetters
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.migrations.schema import upgrade
from tests.integration.analytics.environment import AnalyticsEnvironment, background, body, headers, until_equal
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.group import BlockedHistory
from tests.kafka.brokers import on_both
from tests.waiting import until
from wallet.errors import ResourceExhausted, Unavailable, WalletError


class CrashesAfterInsert(History):
    """History that fails after each insert, so that the offsets of the batch are not committed."""

    async def insert(self, rows: Sequence[Row]) -> None:
        await super().insert(rows)
        raise RuntimeError("crash")


class FailsOnce(History):
    """History whose first insert fails."""

    has_failed = False

    async def insert(self, rows: Sequence[Row]) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError("crash")
        await super().insert(rows)


class CountsInserts(History):
    """History that counts its inserts."""

    inserts = 0

    async def insert(self, rows: Sequence[Row]) -> None:
        self.inserts += 1
        await super().insert(rows)


@on_both
class TestConsumer:
    async def test_rows_of_both_accounts_are_stored_and_committed(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        async with background(env.consumer().run()):
            await env.publish(env.bank.transfer(CLEARING, alice), env.bank.transfer(alice, bob))
            await env.until_stored(alice, [1, 2])
            await env.until_stored(bob, [1])
            await env.until_committed(2)
            await until_equal(lag, 0)

    async def test_messages_wait_for_the_interval_and_a_full_batch_does_not(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        history = CountsInserts(env.database)
        limits = ConsumerLimits(batch_size=3, interval_seconds=3_600)
        async with background(env.consumer(limits, history=history).run()):
            for _ in range(6):
                await env.publish(env.bank.transfer(alice, bob))  # each arrives in a fetch of its own
            await env.until_stored(alice, list(range(1, 7)))
            assert history.inserts == 2

    async def test_lag_counts_messages_that_wait_for_clickhouse(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumer, "_LAG_INTERVAL_SECONDS", 0.05)
        alice, bob = env.bank.open(), env.bank.open("bob")

        async def publish_events(count: int) -> None:
            await env.publish(*(env.bank.transfer(alice, bob) for _ in range(count)))

        history = BlockedHistory(env.database)
        history.block()
        await publish_events(10)
        async with background(env.consumer(ConsumerLimits(batch_size=3), history=history).run()):
            await until_equal(lag, 10)
            await publish_events(2)
            await until_equal(lag, 12)
            history.release()
            await until_equal(lag, 0)
        await publish_events(4)
        history.block()
        async with background(env.consumer(ConsumerLimits(batch_size=3), history=history).run()):
            await until_equal(lag, 4)
            history.release()
            await until_equal(lag, 0)

    async def test_invalid_messages_become_dead_letters_and_the_others_are_stored(
        self, env: AnalyticsEnvironment
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        first, second = env.bank.transfer(alice, bob), env.bank.transfer(alice, bob)
        await env.publish(first, partition=0)
        await env.publish_raw(b"{nonsense", [*headers(first), ("mine", b"kept")], key=b"k", partition=0)
        await env.publish_raw(json.dumps(body(first)).encode(), [], partition=0)
        await env.publish(second, partition=0)
        async with background(env.consumer().run()):
            await env.until_stored(alice, [1, 2])
            letters = await env.read_dead_letters(2)
        broken, headerless = sorted(letters, key=lambda letter: int(dict(letter.headers)["dlq_offset"]))
        assert (broken.value, broken.key) == (b"{nonsense", b"k")
        assert broken.headers[: len(headers(first)) + 1] == (*headers(first), ("mine", b"kept"))
        added = dict(broken.headers)
        assert added["dlq_reason"].startswith(b"body: Invalid JSON")
        assert (added["dlq_topic"], added["dlq_partition"], added["dlq_offset"]) == (b"wallet.operations", b"0", b"1")
        assert dict(headerless.headers)["dlq_reason"] == b"the header ce_type is missing"

    async def test_unknown_fields_are_ignored_and_unknown_types_or_missing_fields_are_dead_letters(
        self, env: AnalyticsEnvironment
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        plain, extended, retyped, incomplete = (env.bank.transfer(alice, bob) for _ in range(4))
        added = body(extended) | {"note": "new", "sender": body(extended)["sender"] | {"alias": {"of": ["what", 1]}}}
        lacking = {name: value for name, value in body(incomplete).items() if name != "recipient"}
        unknown = [
            (name, b"wallet.transfer.reversed" if name == "ce_type" else value) for name, value in headers(plain)
        ]
        await env.publish_raw(json.dumps(added).encode(), [*headers(extended), ("ce_dataschema", b"v2")], partition=0)
        await env.publish_raw(json.dumps(body(retyped)).encode(), unknown, partition=1)
        await env.publish_raw(json.dumps(lacking).encode(), headers(incomplete), partition=2)
        await env.publish(plain, partition=3)
        async with background(env.consumer().run()):
            await env.until_stored(alice, [1, 2])
            letters = await env.read_dead_letters(2)
            await env.until_committed(4)
        reasons = {dict(letter.headers)["dlq_partition"]: dict(letter.headers)["dlq_reason"] for letter in letters}
        assert reasons == {
            b"1": b"the header ce_type names no event of the contract",
            b"2": b"recipient: Field required",
        }

    async def test_late_and_repeated_messages_are_stored_once(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        late, *events = [env.bank.transfer(alice, bob) for _ in range(30)]
        async with background(env.consumer(ConsumerLimits(batch_size=7)).run()):
            for n, event in enumerate([*reversed(events), *events]):
                await env.publish(event, partition=n % 4)
            await env.until_stored(alice, list(range(2, 31)))
            await env.publish(late, late, events[0])
            await env.until_stored(alice, list(range(1, 31)))
            await env.until_committed(61)
        rows = await env.history.list_after(bob, 0, 100)
        assert [(row.account_version, row.operation_id) for row in rows] == [
            (event.recipient.version, event.id) for event in (late, *events)
        ]

    async def test_too_many_dead_letters_stop_the_consumer(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        await env.publish(env.bank.transfer(alice, bob), partition=0)
        for _ in range(4):
            await env.publish_raw(b"nonsense", [], partition=0)
        with pytest.raises(TooManyDeadLetters, match="4 of the last 5"):
            await env.consumer(ConsumerLimits(max_dead_letters=3)).consume()
        assert await env.committed() == 0
        await env.consumer(ConsumerLimits(max_dead_letters=3)).run()
        assert metrics.CONSUMER_STOPPED._value.get() == 1

    async def test_few_dead_letters_do_not_stop_the_consumer(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        for _ in range(6):
            await env.publish_raw(b"nonsense", [], partition=0)
            await env.publish(env.bank.transfer(alice, bob), env.bank.transfer(alice, bob), partition=0)
        async with background(env.consumer(ConsumerLimits(max_dead_letters=2, window=6, batch_size=4)).run()):
            await env.until_stored(alice, list(range(1, 13)))

    async def test_invalid_message_that_is_consumed_again_counts_once(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        await env.publish_raw(b"nonsense", [], partition=0)
        await env.publish(env.bank.transfer(alice, bob), partition=0)
        once = FailsOnce(env.database)
        consumer = env.consumer(ConsumerLimits(max_dead_letters=1), history=once)
        with pytest.raises(RuntimeError, match="crash"):
            await consumer.consume()
        async with background(consumer.run()):
            await env.until_stored(alice, [1])
            await env.until_committed(2)

    async def test_uncommitted_batch_is_consumed_again_and_counts_once(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        await env.publish(env.bank.transfer(alice, bob), env.bank.transfer(alice, bob))
        with pytest.raises(RuntimeError, match="crash"):
            await env.consumer(history=CrashesAfterInsert(env.database)).consume()
        assert await env.committed() == 0
        async with background(env.consumer().run()):
            await env.publish(env.bank.transfer(alice, bob))
            await env.until_stored(alice, [1, 2, 3])
        assert (await env.history.get_coverage([bob]))[bob].count == 3

    @pytest.mark.slow
    async def test_history_is_complete_after_a_clickhouse_crash(
        self, env: AnalyticsEnvironment, tmp_path: Path
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        async with (
            ClickHouse(tmp_path / "store", *free_ports(1)) as server,
            Database.connect(server.dsn("wallet")) as database,
            background(env.consumer(history=(history := History(database))).run()),
        ):
            await upgrade(server.dsn("wallet"))
            await env.publish(env.bank.transfer(alice, bob))
            await until(lambda: _has(history, alice, 1))
            server.kill()
            await server.wait()
            await env.publish(*(env.bank.transfer(alice, bob) for _ in range(50)))
            assert await env.committed() <= 1
            await server.start()
            await until(lambda: _has(history, alice, 51))

    async def test_stop_finishes_the_current_batch(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumer, "_BATCH_STOP_TIMEOUT_SECONDS", 30)
        alice, bob = env.bank.open(), env.bank.open("bob")
        history = BlockedHistory(env.database)
        history.block()
        await env.publish(env.bank.transfer(alice, bob))
        consuming = asyncio.create_task(env.consumer(history=history).run())
        await history.is_blocking.wait()
        consuming.cancel()
        await asyncio.sleep(0)
        history.release()
        with pytest.raises(asyncio.CancelledError):
            await consuming
        assert await env.stored_versions(alice) == [1]
        assert await env.committed() == 1

    async def test_skipped_account_version_is_repaired(self, env: AnalyticsEnvironment) -> None:
        class RepairOfSuspects(Repair):
            """Repair that never compares all accounts, because this would also find the skipped version."""

            def suspect_all(self) -> None:
                pass

        alice, bob = env.bank.open(), env.bank.open("bob")
        repair = RepairOfSuspects(env.history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=0.05)
        repair._is_first = False
        async with background(repair.run()), background(env.consumer(repair=repair).run()):
            await env.publish(env.bank.transfer(alice, bob))
            await env.until_stored(alice, [1])
            env.bank.transfer(alice, bob)
            await env.publish(env.bank.transfer(alice, bob))
            await env.until_stored(alice, [1, 2, 3])
            await env.until_stored(bob, [1, 2, 3])

    async def test_account_that_skips_a_version_is_suspected(self, env: AnalyticsEnvironment) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        suspected = []

        class RecordingRepair(Repair):
            def suspect(self, account_id: UUID) -> None:
                suspected.append(account_id)

        repair = RecordingRepair(env.history, env.ledger, env.epochs, period_seconds=1, grace_seconds=0)
        async with background(env.consumer(repair=repair).run()):
            first, second, _, fourth = (env.bank.transfer(alice, bob) for _ in range(4))
            await env.publish(first, second, second)
            await env.until_stored(alice, [1, 2])
            assert suspected == []
            await env.publish(fourth)
            await until_equal(lambda: len(suspected), 2)
        assert set(suspected) == {alice, bob}

    @pytest.mark.parametrize("expected", [0, 7])
    async def test_offset_gap_leads_to_a_comparison_of_all_accounts(
        self, env: AnalyticsEnvironment, expected: int
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        suspected = []

        class RecordingRepair(Repair):
            def suspect_all(self) -> None:
                suspected.append(True)

        repair = RecordingRepair(env.history, env.ledger, env.epochs, period_seconds=1, grace_seconds=0)
        member = env.consumer(repair=repair)
        async with background(member.run()):
            await env.publish(env.bank.transfer(alice, bob), partition=0)
            await env.until_stored(alice, [1])
            assert len(suspected) == 1

            async def has_offsets() -> bool:
                return bool(member._next_offsets)

            await until(has_offsets)
            member._next_offsets = dict.fromkeys(member._next_offsets, expected)
            await env.publish(env.bank.transfer(alice, bob), partition=0)
            await until_equal(lambda: len(suspected), 2)

    async def test_age_of_the_oldest_message_of_a_batch_is_reported_to_the_repair(
        self, env: AnalyticsEnvironment
    ) -> None:
        alice, bob = env.bank.open(), env.bank.open("bob")
        seconds = list[float]()

        class RecordingRepair(Repair):
            def note_delivery(self, age: float) -> None:
                seconds.append(age)

        repair = RecordingRepair(env.history, env.ledger, env.epochs, period_seconds=3600, grace_seconds=0)
        late, prompt = env.bank.transfer(alice, bob), env.bank.transfer(alice, bob)
        published = int((time.time() - 60) * 1000)
        for event, timestamp_ms in ((late, published), (prompt, None)):
            await env.producer.send_and_wait(
                OPERATIONS_TOPIC, json.dumps(body(event)).encode(), headers=headers(event), timestamp_ms=timestamp_ms
            )
        async with background(env.consumer(repair=repair).run()):
            await env.until_stored(alice, [1, 2])
            await until_equal(lambda: max(seconds) >= 60, True)
        assert seconds[0] == 0  # at the start, nothing is known

    @pytest.mark.parametrize("outage", [Unavailable("the bank"), ResourceExhausted()])
    async def test_consumer_waits_without_a_restart_while_the_bank_gives_no_decision(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch, outage: WalletError
    ) -> None:
        monkeypatch.setattr(consumer, "_LONGEST_DELAY_SECONDS", 0.05)
        alice, bob = env.bank.open(), env.bank.open("bob")
        event = env.bank.transfer(alice, bob)
        env.bank.is_down, env.bank.outage = True, outage
        with capture_logs() as logs:
            async with background(env.consumer().consume()):  # raises an error after which `run` would restart it
                await env.publish_raw(
                    json.dumps(body(event)).encode(), [*headers(event), ("ce_ledgerepoch", b"earlier")], partition=0
                )
                await env.publish(event, partition=0)

                async def has_retried() -> bool:
                    return env.bank.calls["VerifyHistory"] >= 5  # gRPC alone makes up to four attempts of one call

                await until(has_retried)
                env.bank.is_down = False
                await env.until_stored(alice, [1])
        delays = [entry["error"] for entry in logs if entry["event"] == "batch delayed"]
        assert delays == [f"{type(outage).__name__}: {outage}"]


class TestEmbeddedBroker:
    """The embedded broker loses its data at a restart. `test_pipeline.py` tests outages of Apache Kafka."""

    @pytest.mark.slow
    async def test_new_client_replaces_one_that_delivers_nothing(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumer, "_STALL_SECONDS", 2.0)
        clients = list[AIOKafkaConsumer]()

        def new_client() -> AIOKafkaConsumer:
            client = env.kafka_clients.group_consumer(main.NAME)
            if not clients:  # aiokafka repeats failed requests silently, without end
                client.getmany = deliver_nothing
            clients.append(client)
            return client

        async def deliver_nothing(**_: Any) -> dict[str, str]:
            await asyncio.sleep(0.05)
            return {}

        alice = env.bank.open()
        await env.publish(env.bank.transfer(CLEARING, alice))
        watched = Consumer(env.history, env.repair(), new_client, env.kafka_clients.producer, ConsumerLimits())
        with capture_logs() as logs:
            async with background(watched.run()):
                await env.until_stored(alice, [1], within=30)
                await env.until_committed(1, within=30)
        errors = [line["error"] for line in logs if line["event"] == "background task restarts"]
        assert errors[0].startswith("NoProgress: no messages for 2 s: ")
        assert [line["partitions"] for line in logs if line["event"] == "partitions assigned"][-1] == [0, 1, 2, 3]

    @pytest.mark.slow
    async def test_idle_consumer_keeps_its_client(
        self, env: AnalyticsEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumer, "_STALL_SECONDS", 1.0)
        monkeypatch.setattr(consumer, "_IDLE_TIMEOUT_MS", 50)
        monkeypatch.setattr(consumer, "_LAG_INTERVAL_SECONDS", 0.05)
        alice = env.bank.open()
        await env.publish(env.bank.transfer(CLEARING, alice))
        with capture_logs() as logs:
            async with background(env.consumer().run()):
                await env.until_committed(1)
                stored = metrics.CONSUMER_PROGRESS._value.get()

                async def is_idle_for_long() -> bool:
                    return bool(metrics.CONSUMER_PROGRESS._value.get() > stored + 2)

                await until(is_idle_for_long)
        assert not [line for line in logs if line["event"] == "background task restarts"]

    async def test_history_is_complete_after_the_broker_restarts_empty(self, env: AnalyticsEnvironment) -> None:
        """In the empty topic, new messages have offsets below the committed one, so a consumer may skip them.

        The repair then adds their operations.
        """
        alice, bob = env.bank.open(), env.bank.open("bob")
        repair = env.repair()
        async with background(repair.run()), background(env.consumer(repair=repair).run()):
            await env.publish(env.bank.transfer(alice, bob))
            await env.until_stored(alice, [1])
            env.kafka.kill()
            await env.kafka.wait()
            await env.kafka.start()
            await env.publish(*(env.bank.transfer(alice, bob) for _ in range(3)))
            await env.until_stored(alice, [1, 2, 3, 4], within=20)

    async def test_consumer_starts_before_the_broker(self, env: AnalyticsEnvironment) -> None:
        await env.producer.stop()
        await env.kafka.stop()
        async with background(env.consumer().run()) as running:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), 0.3)
            assert not running.done()


def lag() -> int:
    return int(metrics.CONSUMER_LAG._value.get())


async def _has(history: History, account_id: UUID, count: int) -> bool:
    try:
        return len(await history.list_after(account_id, 0, 1000)) == count
    except Unavailable:
        return False
