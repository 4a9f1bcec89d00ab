"""Reads new messages of the operations topic for the subscriptions of this replica."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from asyncapi.topics import OPERATIONS_TOPIC
from subgraphs.analytics.service.adapters.events import InvalidEvent, decode_event
from subgraphs.analytics.service.adapters.kafka import running_client
from subgraphs.analytics.service.application.subscription_hub import SubscriptionHub
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_PARTITION_REFRESH_SECONDS: Final = 1.0


class LiveConsumer:
    """Consumes all partitions from their ends, without a consumer group, and publishes the events to the hub.

    Every replica reads the whole topic, because any replica may have subscribers of any account.
    """

    def __init__(
        self,
        hub: SubscriptionHub,
        consumer: Callable[[], AIOKafkaConsumer],
        admin: Callable[[], AIOKafkaAdminClient],
    ) -> None:
        """Args:
        hub: receives the events. `request_check` is called at each start, because events may have been missed.
        consumer: returns a new consumer without a group. If the topic no longer has the consumer's offset, the consumer
            continues at the earliest offset.
        admin: returns a new admin client, which lists the topic's partitions.
        """
        self._hub = hub
        self._consumer = consumer
        self._admin = admin
        self._running_admin: AIOKafkaAdminClient | None = None

    async def ping(self) -> None:
        """Check that the broker responds.

        Raises:
            Unavailable: the consumer is not connected.
            KafkaError: the broker does not respond.
        """
        if self._running_admin is None:
            raise Unavailable("the broker")
        await self._running_admin.describe_cluster()

    async def run(self) -> None:
        """Consume until an error occurs, and raise it.

        The next run does not read the messages that were published between the runs; the hub fetches their operations.
        """
        async with running_client(self._admin()) as admin, running_client(self._consumer()) as consumer:
            self._running_admin = admin
            try:
                await self._consume(admin, consumer)
            finally:
                self._running_admin = None

    async def _consume(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        offsets = await consumer.end_offsets(await _list_partitions(admin))
        _assign(consumer, offsets)
        log.info("live consumer started", partitions=len(offsets))
        self._hub.request_check()
        while True:
            refresh_at = loop.time() + _PARTITION_REFRESH_SECONDS
            while (remaining := refresh_at - loop.time()) > 0:
                if not offsets:
                    await asyncio.sleep(remaining)
                    continue
                for partition, messages in (await consumer.getmany(timeout_ms=int(remaining * 1000) + 1)).items():
                    for message in messages:
                        self._publish(message.value, message.headers)
                    offsets[partition] = messages[-1].offset + 1
            # All messages of a new partition are new, so it is read from its start.
            if added := [partition for partition in await _list_partitions(admin) if partition not in offsets]:
                offsets |= dict.fromkeys(added, 0)
                _assign(consumer, offsets)

    def _publish(self, value: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> None:
        if not self._hub.has_subscriptions:
            return
        try:
            self._hub.publish(decode_event(value, headers))
        except InvalidEvent:
            log.debug("invalid event skipped")  # the group's consumer sends the dead letter


async def _list_partitions(admin: AIOKafkaAdminClient) -> list[TopicPartition]:
    # Describes all topics, because describing a topic that does not exist creates it.
    topics = await admin.describe_topics()
    return [
        TopicPartition(OPERATIONS_TOPIC, partition["partition"])
        for topic in topics
        if topic["topic"] == OPERATIONS_TOPIC
        for partition in topic["partitions"]
    ]


def _assign(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    """Assign the partitions and seek each of them. An assignment resets the offsets of the earlier partitions, too."""
    if offsets:
        consumer.assign(list(offsets))
        for partition, offset in offsets.items():
            consumer.seek(partition, offset)
