"""Reads all messages of the operations topic, without a consumer group."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from asyncapi.topics import OPERATIONS_TOPIC
from tests.kafka.brokers import Broker

PARTITIONS = range(4)


@dataclass(frozen=True)
class Message:
    """Message of the topic."""

    key: str
    headers: dict[str, str]
    value: bytes
    partition: int

    @cached_property
    def body(self) -> dict[str, Any]:
        read: dict[str, Any] = orjson.loads(self.value)
        return read

    @property
    def transfer_id(self) -> str:
        return str(self.body["transferId"])


class TopicReader:
    """Collects all messages of the topic."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.messages: list[Message] = []

    async def until_read(self, transfer_ids: set[str], within: float = 15) -> list[Message]:
        """Read until each transfer has a message, and return all messages of the transfers in the order of reading."""
        async with asyncio.timeout(within):
            while not transfer_ids <= {message.transfer_id for message in self.messages}:
                await self._read()
        return self.about(transfer_ids)

    async def drain(self) -> None:
        """Read all messages that the topic has now."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        while [p for p, end in ends.items() if await self._consumer.position(p) < end]:
            await self._read()

    def about(self, transfer_ids: set[str]) -> list[Message]:
        return [message for message in self.messages if message.transfer_id in transfer_ids]

    async def _read(self) -> None:
        batches = await self._consumer.getmany(timeout_ms=100)
        for partition, records in batches.items():
            for record in records:
                headers = {name: value.decode() for name, value in record.headers}
                self.messages.append(Message(record.key.decode(), headers, record.value, partition.partition))


@asynccontextmanager
async def reading(broker: Broker) -> AsyncIterator[TopicReader]:
    """Open a reader that starts at the first message."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=500,
    )
    try:
        await consumer.start()
        consumer.assign([TopicPartition(OPERATIONS_TOPIC, partition) for partition in PARTITIONS])
        yield TopicReader(consumer)
    finally:
        await consumer.stop()
