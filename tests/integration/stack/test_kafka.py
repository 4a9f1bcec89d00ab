import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stack.parts import Kafka
from stack.ports import free_ports

TOPIC = "wallet.operations"


@pytest.fixture
async def kafka() -> AsyncIterator[Kafka]:
    async with Kafka(free_ports(1)[0]) as running:
        yield running


@asynccontextmanager
async def producer(kafka: Kafka) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True)
    async with client:
        yield client


@asynccontextmanager
async def consumer(kafka: Kafka, *topics: str, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    client = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=2000,  # a group that a member left waits almost this long for it before it takes a new one
        heartbeat_interval_ms=500,
    )
    async with client:
        yield client


async def read(client: AIOKafkaConsumer, count: int) -> list[bytes]:
    async with asyncio.timeout(30):
        return [(await client.getone()).value for _ in range(count)]


class TestKafka:
    async def test_a_group_reads_what_an_idempotent_producer_wrote_and_goes_on_from_its_commit(
        self, kafka: Kafka
    ) -> None:
        async with producer(kafka) as out:
            for n in range(20):
                await out.send_and_wait(TOPIC, str(n).encode(), key=b"account", headers=[("ce_id", b"%d" % n)])
        async with consumer(kafka, TOPIC, group="analytics") as first:
            assert await read(first, 12) == [b"%d" % n for n in range(12)]
            await first.commit()
        async with consumer(kafka, TOPIC, group="analytics") as second:
            assert await read(second, 8) == [b"%d" % n for n in range(12, 20)]

    async def test_a_reader_without_a_group_assigns_and_seeks(self, kafka: Kafka) -> None:
        async with producer(kafka) as out, consumer(kafka) as tail:
            for n in range(10):
                await out.send_and_wait(TOPIC, b"%d" % n, partition=2)
            partition = TopicPartition(TOPIC, 2)
            tail.assign([partition])
            assert await tail.end_offsets([partition]) == {partition: 10}
            tail.seek(partition, 7)
            assert await read(tail, 3) == [b"7", b"8", b"9"]

    async def test_a_topic_is_made_on_first_use_with_four_partitions(self, kafka: Kafka) -> None:
        async with producer(kafka) as out:
            await out.send_and_wait(TOPIC, b"made")
            assert await out.partitions_for(TOPIC) == {0, 1, 2, 3}

    async def test_it_comes_back_empty_at_the_same_address_and_its_producers_go_on(self, kafka: Kafka) -> None:
        async with producer(kafka) as out:
            await out.send_and_wait(TOPIC, b"lost", key=b"account")
            kafka.kill()
            assert await kafka.wait() == -9
            await kafka.start()
            async with asyncio.timeout(30):
                await out.send_and_wait(TOPIC, b"new", key=b"account")
        async with consumer(kafka, TOPIC, group="analytics") as group:
            assert await read(group, 1) == [b"new"]

    async def test_two_brokers_know_nothing_of_each_other(self, kafka: Kafka) -> None:
        async with Kafka(free_ports(1)[0]) as other, producer(kafka) as out, consumer(other) as elsewhere:
            await out.send_and_wait(TOPIC, b"here")
            assert await elsewhere.topics() == set()
