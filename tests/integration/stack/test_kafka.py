import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stack.engines.apache_kafka import POM, ApacheKafka
from stack.engines.children import Kafka
from stack.engines.jars import JarsUnavailable, fetch_jars
from stack.ports import free_ports
from tests.kafka.brokers import Broker, on_apache, on_both

pytestmark = pytest.mark.slow

TOPIC = "wallet.operations"


@asynccontextmanager
async def producer(broker: Broker) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=True)
    async with client:
        yield client


@asynccontextmanager
async def consumer(broker: Broker, *topics: str, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    client = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=2000,  # time until the group replaces a lost member
        heartbeat_interval_ms=500,
    )
    async with client:
        yield client


async def read(client: AIOKafkaConsumer, count: int) -> list[bytes]:
    async with asyncio.timeout(30):
        return [(await client.getone()).value for _ in range(count)]


@on_both
class TestBroker:
    """Behaviour that the services need from both brokers."""

    async def test_group_resumes_from_its_committed_offset(self, broker: Broker) -> None:
        async with producer(broker) as out:
            for n in range(20):
                await out.send_and_wait(TOPIC, str(n).encode(), key=b"account", headers=[("ce_id", b"%d" % n)])
        async with consumer(broker, TOPIC, group="analytics") as first:
            assert await read(first, 12) == [b"%d" % n for n in range(12)]
            await first.commit()
        async with consumer(broker, TOPIC, group="analytics") as second:
            assert await read(second, 8) == [b"%d" % n for n in range(12, 20)]

    async def test_reader_without_group_can_assign_and_seek(self, broker: Broker) -> None:
        async with producer(broker) as out, consumer(broker) as tail:
            for n in range(10):
                await out.send_and_wait(TOPIC, b"%d" % n, partition=2)
            partition = TopicPartition(TOPIC, 2)
            tail.assign([partition])
            assert await tail.end_offsets([partition]) == {partition: 10}
            tail.seek(partition, 7)
            assert await read(tail, 3) == [b"7", b"8", b"9"]

    async def test_topic_is_created_on_first_use_with_four_partitions(self, broker: Broker) -> None:
        async with producer(broker) as out:
            await out.send_and_wait(TOPIC, b"made")
            assert await out.partitions_for(TOPIC) == {0, 1, 2, 3}


class TestEmbedded:
    async def test_embedded_broker_restarts_empty_at_the_same_address(self, broker: Broker) -> None:
        async with producer(broker) as out:
            await out.send_and_wait(TOPIC, b"lost", key=b"account")
            broker.kill()
            assert await broker.wait() == -9
            await broker.start()
            async with asyncio.timeout(30):
                await out.send_and_wait(TOPIC, b"new", key=b"account")
        async with consumer(broker, TOPIC, group="analytics") as group:
            assert await read(group, 1) == [b"new"]

    async def test_two_embedded_brokers_are_independent(self, broker: Broker) -> None:
        async with Kafka(*free_ports(1)) as other, producer(broker) as out, consumer(other) as elsewhere:
            await out.send_and_wait(TOPIC, b"here")
            assert await elsewhere.topics() == set()


@on_apache
class TestApache:
    async def test_apache_kafka_keeps_acknowledged_messages_after_kill(self, broker: Broker) -> None:
        async with producer(broker) as out:
            for n in range(20):
                await out.send_and_wait(TOPIC, b"%d" % n, key=b"account")
            async with consumer(broker, TOPIC, group="analytics") as first:
                await read(first, 12)
                await first.commit()
            broker.kill()
            assert await broker.wait() == -9
            await broker.start()
            async with asyncio.timeout(30):
                await out.send_and_wait(TOPIC, b"20", key=b"account")
        async with consumer(broker, TOPIC, group="analytics") as second:
            assert await read(second, 9) == [b"%d" % n for n in range(12, 21)]

    async def test_clean_deletes_messages_and_committed_offsets(self, broker: ApacheKafka) -> None:
        async with producer(broker) as out:
            await out.send_and_wait(TOPIC, b"old", partition=0)
            async with consumer(broker, TOPIC, group="analytics") as group:
                await read(group, 1)
                await group.commit()
        await broker.clean()
        async with producer(broker) as out, consumer(broker, TOPIC, group="analytics") as group:
            await out.send_and_wait(TOPIC, b"new", partition=0)
            assert await read(group, 1) == [b"new"]


class TestFetching:
    def test_error_names_the_missing_tool(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(JarsUnavailable, match="`java`"):
            fetch_jars(POM)
        (tmp_path / "java").touch(mode=0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(JarsUnavailable, match="`mvn`"):
            fetch_jars(POM)

    def test_error_shows_the_maven_failure_and_no_partial_download_remains(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "java").touch(mode=0o755)
        (tmp_path / "mvn").write_text("#!/bin/sh\necho no such artifact\nexit 1\n")
        (tmp_path / "mvn").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with pytest.raises(JarsUnavailable, match="no such artifact"):
            fetch_jars(POM)
        assert [file.name for file in (tmp_path / "cache" / "wallet-tests").iterdir()] == ["apache_kafka.lock"]
