"""The end of the topic as it grows, for whoever watches: every replica reads all of it, whoever stores it."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from asyncapi.topics import OPERATIONS_TOPIC
from subgraphs.analytics.service.adapters.events import Unreadable, decode
from subgraphs.analytics.service.adapters.kafka import started
from subgraphs.analytics.service.application.watch import Watch
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_REFRESH_SECONDS: Final = 1.0
"""How often the topic is looked at for partitions that are new."""


class Tail:
    """Reads what is published from now on, without a group, and hands it to the watch."""

    def __init__(
        self,
        watch: Watch,
        consumer: Callable[[], AIOKafkaConsumer],
        admin: Callable[[], AIOKafkaAdminClient],
    ) -> None:
        """Args:
        watch: is told of every event, and of every moment from which events may have been missed.
        consumer: makes a reader without a group, that begins at the earliest where it loses its place.
        admin: makes what knows the topic's partitions.
        """
        self._watch = watch
        self._consumer = consumer
        self._admin = admin
        self._running: AIOKafkaAdminClient | None = None

    async def ping(self) -> None:
        """Returns when the broker answers.

        Raises:
            Unavailable: it is not connected.
            KafkaError: it does not answer.
        """
        if self._running is None:
            raise Unavailable("the broker")
        await self._running.describe_cluster()

    async def run(self) -> None:
        """Reads until something fails, which it raises. What was published meanwhile is not read by the next run; the
        watch then asks the bank for it.
        """
        async with started(self._admin()) as admin, started(self._consumer()) as consumer:
            self._running = admin
            try:
                await self._read(admin, consumer)
            finally:
                self._running = None

    async def _read(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        places = await consumer.end_offsets(await _partitions(admin))
        _assign(consumer, places)
        log.info("following the topic", partitions=len(places))
        self._watch.check_soon()
        while True:
            refresh_at = loop.time() + _REFRESH_SECONDS
            while (remaining := refresh_at - loop.time()) > 0:
                if not places:
                    await asyncio.sleep(remaining)
                    continue
                for partition, messages in (await consumer.getmany(timeout_ms=int(remaining * 1000) + 1)).items():
                    for message in messages:
                        self._publish(message.value, message.headers)
                    places[partition] = messages[-1].offset + 1
            # A partition that was not there a moment ago holds nothing that was before: it is read from its start.
            if added := [partition for partition in await _partitions(admin) if partition not in places]:
                places |= dict.fromkeys(added, 0)
                _assign(consumer, places)

    def _publish(self, value: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> None:
        if not self._watch.is_watched:
            return
        try:
            self._watch.publish(decode(value, headers))
        except Unreadable:
            log.debug("unreadable; the consumer sees to it")


async def _partitions(admin: AIOKafkaAdminClient) -> list[TopicPartition]:
    # All topics: asking for one that is not there yet would make it.
    topics = await admin.describe_topics()
    return [
        TopicPartition(OPERATIONS_TOPIC, partition["partition"])
        for topic in topics
        if topic["topic"] == OPERATIONS_TOPIC
        for partition in topic["partitions"]
    ]


def _assign(consumer: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> None:
    """An assignment forgets every place, those of the partitions that it had before, too."""
    if places:
        consumer.assign(list(places))
        for partition, offset in places.items():
            consumer.seek(partition, offset)
