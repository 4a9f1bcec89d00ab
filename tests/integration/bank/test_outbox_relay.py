import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from asyncapi.topics import OPERATIONS_TOPIC
from subgraphs.bank.service.adapters.postgres import outbox
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.adapters.postgres.outbox import Outbox
from subgraphs.bank.service.application import outbox_relay
from tests import java
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, get_leader_pid, rub, run_bank
from tests.integration.bank.topic_reader import Message, reading
from tests.kafka.brokers import Broker, on_apache, on_both
from tests.waiting import until
from wallet.errors import Unavailable

Run = Callable[..., AbstractAsyncContextManager[RunningBank]]


@pytest.fixture(autouse=True)
def _frequent_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_relay, "_MEASURE_SECONDS", 0.05)


@pytest.fixture
def run(ledger_url: str, keys: Keys, tmp_path: Path) -> Run:
    """Return a function that runs a bank on the test's ledger; two calls run two replicas."""

    def run(broker: Broker, **settings: Any) -> AbstractAsyncContextManager[RunningBank]:
        return run_bank(keys, tmp_path, ledger_url, kafka_bootstrap_servers=broker.bootstrap_servers, **settings)

    return run


@pytest.fixture
async def stopped_broker(broker: Broker) -> Broker:
    """Broker that is stopped; the test starts it."""
    await broker.stop()
    return broker


async def make_transfers(bank: RunningBank, sender: UUID, recipient: UUID, keys: range) -> set[str]:
    """Make one transfer per key in order and return their ids."""
    alice = bank.user("alice")
    receipts = [await alice(bank.client.transfer(sender, recipient, rub("1"), str(key))) for key in keys]
    return {str(receipt.transfer.id) for receipt in receipts}


async def until_published(sql: asyncpg.Pool, within: float = 20) -> None:
    """Wait until the outbox is empty."""

    async def nothing_left() -> bool:
        return not await sql.fetchval("SELECT count(*) FROM outbox")

    await until(nothing_left, within=within)


def metric_value(name: str) -> float | None:
    """Return the value of an outbox metric."""
    return REGISTRY.get_sample_value(f"wallet_bank_outbox_{name}")


def versions(messages: list[Message]) -> list[int]:
    return [message.body["sender"]["version"] for message in messages]


@on_apache
async def test_java_consumer_reads_the_events_with_the_cloudevents_sdk(run: Run, broker: Broker) -> None:
    folder = java.find_jars("cloudevents")
    async with run(broker) as bank:
        sender, recipient = await bank.open("alice", "10.00"), await bank.open("bob", "0")
        receipt = await bank.user("alice")(bank.client.transfer(sender, recipient, rub("2.50"), "k"))
        await until_published(bank.sql)
    program = str(Path(__file__).with_name("CloudEventsConsumer.java"))
    output = await asyncio.to_thread(
        java.run, "-cp", f"{folder}/*", program, broker.bootstrap_servers, OPERATIONS_TOPIC, "1"
    )
    *attributes, time, content_type, key, data = output.strip().split("\t")
    assert attributes == ["1.0", str(receipt.transfer.id), "/wallet/bank", "wallet.transfer.completed"]
    assert datetime.fromisoformat(time) == receipt.transfer.created_at
    assert (content_type, key) == ("application/json", str(sender))
    assert json.loads(data)["recipient"] == {"accountId": str(recipient), "version": 1, "balanceAfter": "2.50"}


@on_both
class TestPublishing:
    async def test_each_transfer_is_published_once_and_in_order(self, run: Run, broker: Broker) -> None:
        async with run(broker) as bank, reading(broker) as topic:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            ids = await make_transfers(bank, sender, recipient, range(20))
            await until_published(bank.sql)
            await topic.drain()
            messages = topic.about(ids)
        assert versions(messages) == list(range(1, 21))
        assert {message.key for message in messages} == {str(sender)}
        assert len({message.partition for message in messages}) == 1

    async def test_event_is_a_cloud_event_in_binary_mode(self, run: Run, broker: Broker) -> None:
        async with run(broker) as bank, reading(broker) as topic:
            sender, recipient = await bank.open("alice", "10.00"), await bank.open("bob", "0")
            receipt = await bank.user("alice")(bank.client.transfer(sender, recipient, rub("2.50"), "k"))
            id_ = str(receipt.transfer.id)
            (message,) = await topic.until_read({id_})
        assert message.headers == {
            "ce_specversion": "1.0",
            "ce_id": id_,
            "ce_source": "/wallet/bank",
            "ce_type": "wallet.transfer.completed",
            "ce_time": receipt.transfer.created_at.isoformat(),
            "content-type": "application/json",
        }
        assert message.body == {
            "transferId": id_,
            "occurredAt": receipt.transfer.created_at.isoformat().replace("+00:00", "Z"),
            "amount": "2.50",
            "currency": "RUB",
            "sender": {"accountId": str(sender), "version": 1, "balanceAfter": "7.50"},
            "recipient": {"accountId": str(recipient), "version": 1, "balanceAfter": "2.50"},
        }

    async def test_published_events_equal_list_events(self, run: Run, broker: Broker) -> None:
        async with run(broker) as bank, reading(broker) as topic:
            mine, bobs = await bank.open("alice", "10.00"), await bank.open("bob", "0")
            card, alice = bank.service("card"), bank.user("alice")
            await card(bank.client.deposit(mine, rub("5"), "in", {"topUpId": "t1", "cardBrand": "МИР"}))
            await alice(bank.client.transfer(mine, bobs, rub("7"), "out"))
            events = {str(event.transfer.id): event for event in await card(bank.client.list_events(mine, 0))}
            published = await topic.until_read(set(events))
        assert len(published) == len(events) == 2
        for message in published:
            event, body = events[message.transfer_id], message.body
            for published_side, side in ((body["sender"], event.sender), (body["recipient"], event.recipient)):
                assert published_side == {
                    "accountId": str(side.account_id),
                    "version": side.version,
                    "balanceAfter": str(side.balance_after),
                }
            assert (body["amount"], body["currency"]) == (str(event.transfer.amount), event.transfer.amount.currency)
            assert body.get("descriptor", {}) == event.descriptor
            kind = {"TRANSFER": "wallet.transfer.completed", "DEPOSIT": "wallet.topup.completed"}
            assert message.headers["ce_type"] == kind[event.transfer.kind]

    async def test_commit_wakes_the_relay(self, run: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox_relay, "_POLL_SECONDS", 3600.0)  # longer than the time-out of this test
        async with run(broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(1))
            await until_published(bank.sql)
            await make_transfers(bank, sender, recipient, range(1, 2))
            await until_published(bank.sql)

    async def test_rows_of_several_commits_are_published_together(
        self, run: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        interval_is_over = asyncio.Event()
        sizes: list[int] = []
        delete = Outbox.delete

        async def wait(_: float) -> None:
            await interval_is_over.wait()

        async def count_and_delete(self: Outbox, ids: Sequence[int]) -> None:
            sizes.append(len(ids))
            await delete(self, ids)

        monkeypatch.setattr(outbox_relay, "_sleep_until", wait)
        monkeypatch.setattr(Outbox, "delete", count_and_delete)
        async with run(broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(1))
            await until_published(bank.sql)
            await make_transfers(bank, sender, recipient, range(1, 5))
            assert (await bank.count_rows())["outbox"] == 4
            interval_is_over.set()
            await until_published(bank.sql)
        assert sizes == [1, 4]

    async def test_full_batch_is_followed_by_the_next_at_once(
        self, run: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def wait_forever(_: float) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(outbox_relay, "_sleep_until", wait_forever)
        monkeypatch.setattr(outbox_relay, "_BATCH_SIZE", 1)
        async with run(broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(3))
            await until_published(bank.sql)

    async def test_rows_without_a_wake_call_are_published(
        self, run: Run, broker: Broker, own_bank: RunningBank
    ) -> None:
        """`own_bank` is another replica on the same ledger, without a broker."""
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        await make_transfers(own_bank, sender, recipient, range(3))
        assert (await own_bank.count_rows())["outbox"] == 3
        async with run(broker), reading(broker):
            await until_published(own_bank.sql)


@pytest.mark.usefixtures("bank")  # the shared bank runs in this process, and must not change the gauges and calls below
class TestWithoutABroker:
    async def test_transfers_without_a_broker_are_published_when_the_broker_starts(
        self, run: Run, stopped_broker: Broker
    ) -> None:
        async with run(stopped_broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            ids = await make_transfers(bank, sender, recipient, range(10))
            assert (await bank.count_rows())["outbox"] == 10
            await stopped_broker.start()
            async with reading(stopped_broker) as topic:
                messages = await topic.until_read(ids)
            await until_published(bank.sql)
        assert versions(messages) == list(range(1, 11))

    @on_both
    async def test_no_event_is_lost_when_the_broker_is_killed_and_restarted(self, run: Run, broker: Broker) -> None:
        async with run(broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(5))
            await until_published(bank.sql)
            broker.kill()
            await broker.wait()
            ids = await make_transfers(bank, sender, recipient, range(5, 15))
            assert (await bank.count_rows())["outbox"] == 10
            await broker.start()
            async with reading(broker) as topic:
                messages = await topic.until_read(ids, within=30)
            await until_published(bank.sql)
        assert sorted(set(versions(messages))) == list(range(6, 16))

    async def test_backlog_metrics_show_count_and_age(self, run: Run, stopped_broker: Broker) -> None:
        async with run(stopped_broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(3))
            assert await bank.sql.fetchval("SELECT pg_sleep(0.5) IS NOT NULL")  # the oldest row is at least 0.5 s old
            await make_transfers(bank, sender, recipient, range(3, 7))

            async def backlog_is(backlog: int) -> bool:
                return metric_value("backlog") == backlog

            await until(lambda: backlog_is(7))
            age = metric_value("age_seconds")
            assert age is not None
            assert age > 0.5
            await stopped_broker.start()
            await until_published(bank.sql)
            await until(lambda: backlog_is(0))
            assert metric_value("age_seconds") == 0

    async def test_replica_that_is_not_the_leader_sets_backlog_metrics(
        self, run: Run, stopped_broker: Broker, ledger_url: str
    ) -> None:
        async with asyncpg.create_pool(ledger_url, min_size=0, max_size=1) as pool, Outbox.lead(pool) as frozen:
            assert frozen is not None
            async with run(stopped_broker) as bank:
                await make_transfers(bank, await bank.open("alice"), await bank.open("bob"), range(2))

                async def has_metrics() -> bool:
                    return (metric_value("backlog"), metric_value("is_leader")) == (2, 0)

                await until(has_metrics)

    async def test_stopping_bank_abandons_the_flush_of_unconfirmed_events(
        self, run: Run, broker: Broker, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        send, stop, close = AIOKafkaProducer.send, AIOKafkaProducer.stop, AIOKafkaClient.close

        async def recorded_send(producer: AIOKafkaProducer, *args: Any, **kwargs: Any) -> Any:
            confirmation = await send(producer, *args, **kwargs)
            calls.append("event sent")
            return confirmation

        async def recorded_stop(producer: AIOKafkaProducer) -> None:
            calls.append("flush began")
            try:
                await stop(producer)
            except asyncio.CancelledError:
                calls.append("flush abandoned")
                raise
            calls.append("flush completed")

        async def recorded_close(client: AIOKafkaClient) -> None:
            calls.append("connections closed")
            await close(client)

        async def event_is_sent() -> bool:
            return calls == ["event sent"]

        async with AsyncExitStack() as replica, asyncpg.create_pool(ledger_url, min_size=0, max_size=1) as sql:
            bank = await replica.enter_async_context(run(broker))
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(1))
            await until_published(bank.sql)
            broker.kill()
            await broker.wait()
            monkeypatch.setattr(AIOKafkaProducer, "send", recorded_send)
            monkeypatch.setattr(AIOKafkaProducer, "stop", recorded_stop)
            monkeypatch.setattr(AIOKafkaClient, "close", recorded_close)
            await make_transfers(bank, sender, recipient, range(1, 2))
            await until(event_is_sent)
            await replica.aclose()
            # The bank abandons the flush and closes the connections. aiokafka alone would wait for the broker without
            # end, and would leave the connections open if the waiting task was cancelled.
            assert calls == ["event sent", "flush began", "flush abandoned", "connections closed"]
            assert await sql.fetchval("SELECT count(*) FROM outbox") == 1


@on_both
class TestConfirmation:
    async def test_event_that_was_not_deleted_is_published_again(self, run: Run, broker: Broker) -> None:
        async with run(broker) as bank, reading(broker) as topic:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            # The trigger blocks the deletion of published rows, as a frozen process would.
            await bank.sql.execute("""
                CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
                CREATE TRIGGER hold BEFORE DELETE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION hold();
            """)
            async with bank.sql.acquire() as other:
                await other.execute("SELECT pg_advisory_lock(42)")
                ids = await make_transfers(bank, sender, recipient, range(5))

                async def deleting() -> int | None:
                    pid: int | None = await bank.sql.fetchval("""
                        SELECT pid FROM pg_stat_activity
                        WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM outbox%'
                    """)
                    return pid

                assert await other.fetchval("SELECT pg_terminate_backend($1)", await until(deleting))
                await other.execute("SELECT pg_advisory_unlock(42)")
            await until_published(bank.sql)
            await topic.drain()
            published = versions(topic.about(ids))
        assert set(published) == {1, 2, 3, 4, 5}
        assert len(published) > 5

    async def test_rows_stay_until_the_broker_confirms(self, run: Run, broker: Broker) -> None:
        async with run(broker) as bank:
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            await make_transfers(bank, sender, recipient, range(1))
            await until_published(bank.sql)
            assert broker.pid is not None
            broker.send(signal.SIGSTOP)
            await make_transfers(bank, sender, recipient, range(1, 4))
            assert (await bank.count_rows())["outbox"] == 3
            broker.send(signal.SIGCONT)
            await until_published(bank.sql)

    async def test_new_producer_replaces_one_whose_events_are_never_confirmed(
        self, run: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox_relay, "_CONFIRM_SECONDS", 0.2)
        send, producers = AIOKafkaProducer.send, list[AIOKafkaProducer]()

        async def never_confirm_first(producer: AIOKafkaProducer, *arguments: Any, **options: Any) -> Any:
            """Send with the first producer as if its requests failed and were repeated without end."""
            if producer not in producers:
                producers.append(producer)
            if producer is producers[0]:
                return asyncio.get_running_loop().create_future()
            return await send(producer, *arguments, **options)

        monkeypatch.setattr(AIOKafkaProducer, "send", never_confirm_first)
        with capture_logs() as logs:
            async with run(broker) as bank:
                sender, recipient = await bank.open("alice"), await bank.open("bob")
                await make_transfers(bank, sender, recipient, range(2))
                await until_published(bank.sql)
        errors = [line["error"] for line in logs if line["event"] == "background task restarts"]
        assert any(each.startswith("NoConfirmation: the broker has not confirmed") for each in errors)
        assert len(producers) > 1


class TestReplicas:
    @on_both
    async def test_another_replica_takes_over_from_a_lost_leader(self, run: Run, broker: Broker) -> None:
        async with AsyncExitStack() as first_replica, run(broker) as second, reading(broker) as topic:
            first = await first_replica.enter_async_context(run(broker))
            sender, recipient = await first.open("alice"), await first.open("bob")
            ids = await make_transfers(first, sender, recipient, range(5))
            ids |= await make_transfers(second, sender, recipient, range(5, 10))
            await until_published(second.sql)
            old = await get_leader_pid(second.sql)
            assert old is not None

            await second.sql.execute("SELECT pg_terminate_backend($1)", old)
            ids |= await make_transfers(first, sender, recipient, range(10, 15))
            await until_published(second.sql)
            assert await get_leader_pid(second.sql) not in {None, old}

            await first_replica.aclose()
            ids |= await make_transfers(second, sender, recipient, range(15, 20))
            await until_published(second.sql)
            messages = await topic.until_read(ids)
        assert set(versions(messages)) == set(range(1, 21))

    async def test_server_ends_the_session_of_a_frozen_leader(
        self, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "_LEADER_IDLE_TIMEOUT", "300ms")
        async with open_pool(ledger_url, max_size=2) as pool:

            async def freeze() -> None:
                async with Outbox.lead(pool) as outbox:
                    assert outbox is not None
                    assert not await leads_now()
                    await until(leads_now)
                    await outbox.read(1)

            async def leads_now() -> bool:
                async with Outbox.lead(pool) as outbox:
                    return outbox is not None

            with pytest.raises(Unavailable):
                await freeze()
