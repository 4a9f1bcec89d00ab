"""From the topic into the history: at least once, in batches, offsets last."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from opentelemetry.trace import SpanKind

from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC
from kit.runtime import process
from kit.runtime.backoff import Backoff
from kit.telemetry import tracing
from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.events import Unreadable, decode
from subgraphs.analytics.service.adapters.kafka import started
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.domain.rows import rows_of
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_IDLE_MS: Final = 1_000
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_GRACE_SECONDS: Final = 3.0
_LAG_SECONDS: Final = 1.0
_WATCHED_ACCOUNTS: Final = 100_000

_SPAN: Final[tracing.Attributes] = {
    "messaging.system": "kafka",
    "messaging.destination.name": OPERATIONS_TOPIC,
    "messaging.operation.name": "store",
    "messaging.operation.type": "process",
    "db.system.name": "clickhouse",
}

Message: TypeAlias = "ConsumerRecord[bytes, bytes]"


class TooMuchUnreadable(Exception):
    """So many of the last messages could not be read that the fault is not theirs. A person must look: to go on would
    move the whole topic to the dead letters.
    """


@dataclass(frozen=True, slots=True)
class Limits:
    """Attributes:
    batch: messages at most in one insert, and in memory.
    linger_seconds: how long a batch waits for more once it has something. Many small inserts cost ClickHouse dear.
    unreadable: how many messages of the last `window` may be dead letters.
    window: over how many messages that is counted.
    """

    batch: int = 2_000
    linger_seconds: float = 0.05
    unreadable: int = 100
    window: int = 1_000


class Consumer:
    """One member of the group that stores the topic.

    A batch is decoded, inserted, its dead letters sent, then its offsets committed: whatever crashes when, a message is
    seen again rather than missed, and a row that is stored twice counts once.
    """

    def __init__(
        self,
        history: History,
        repair: Repair,
        consumer: Callable[[], AIOKafkaConsumer],
        producer: Callable[[], AIOKafkaProducer],
        limits: Limits,
    ) -> None:
        """Args:
        history: where rows go.
        repair: is told where something seems to be missing.
        consumer: makes a member of the group that neither commits nor subscribes by itself.
        producer: makes the sender of dead letters.
        limits: of batches and of patience.
        """
        self._history = history
        self._repair = repair
        self._consumer = consumer
        self._producer = producer
        self._limits = limits
        self._recent: deque[bool] = deque(maxlen=limits.window)
        self._versions: OrderedDict[UUID, int] = OrderedDict()
        self._next: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._term = 0

    async def run(self) -> None:
        """Consumes until cancelled, whatever comes and goes, or until too much is unreadable, which it reports."""
        metrics.CONSUMER_STOPPED.set(0)
        try:
            await process.run_with_restarts(
                self.consume,
                name="consumer",
                first_delay_seconds=_FIRST_PAUSE,
                longest_delay_seconds=_LONGEST_PAUSE,
                fatal=TooMuchUnreadable,
            )
        except TooMuchUnreadable as error:
            # The process lives on: reads work, and the repair still brings what the topic would have brought.
            metrics.CONSUMER_STOPPED.set(1)
            log.error("the consumer has stopped; look at the dead letters, then restart it", error=str(error))

    async def consume(self) -> None:
        """Consumes until something fails, which it raises. When cancelled, the batch in hand is finished first.

        Raises:
            TooMuchUnreadable: nothing of the batch that went too far is committed.
            KafkaError: the broker is not there, or has sent this member away.
        """
        async with started(self._producer()) as producer, started(self._consumer()) as consumer:
            self._next.clear()
            self._committed.clear()
            consumer.subscribe([OPERATIONS_TOPIC], listener=_Rebalances(self._begin_term))
            # What was committed may be an offset of another topic, that had the name before.
            self._repair.suspect_all()
            async with process.background_task(self._measure(consumer), "lag"):
                while True:
                    messages, term = await self._collect(consumer)
                    if messages:
                        await _finished(self._settle(consumer, producer, messages, term))

    async def _collect(self, consumer: AIOKafkaConsumer) -> tuple[list[Message], int]:
        """The next messages, none if there are none for a while, and the term that all of them belong to."""
        loop = asyncio.get_running_loop()
        messages: list[Message] = []
        term = self._term
        remaining_ms, deadline = _IDLE_MS, 0.0
        while remaining_ms > 0 and len(messages) < self._limits.batch:
            room = self._limits.batch - len(messages)
            fetched = await consumer.getmany(timeout_ms=remaining_ms, max_records=room)
            if term != self._term:  # what was collected before comes again, to whoever has its partition now
                messages, term = [], self._term
            if not fetched and not messages:
                break
            deadline = deadline or loop.time() + self._limits.linger_seconds
            messages.extend(message for part in fetched.values() for message in part)
            remaining_ms = int((deadline - loop.time()) * 1000)
        return messages, term

    def _begin_term(self) -> None:
        """The group has shared the partitions out anew: each goes on from what was committed, by whomever."""
        self._term += 1
        self._next.clear()

    async def _settle(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        messages: list[Message],
        term: int,
    ) -> None:
        rows: list[Row] = []
        unreadable: list[tuple[Message, str]] = []
        recent = self._recent.copy()
        for message in messages:
            try:
                rows += rows_of(decode(message.value, message.headers))
            except Unreadable as error:
                unreadable.append((message, error.reason))
                recent.append(True)
                self._check(recent)
            else:
                recent.append(False)
        attributes: tracing.Attributes = {**_SPAN, "messaging.batch.message_count": len(messages)}
        with tracing.start_batch_span(
            map(_traceparent, messages), f"store {OPERATIONS_TOPIC}", SpanKind.CONSUMER, attributes
        ):
            await self._store(rows)
        await _set_aside(producer, unreadable)
        await self._commit(consumer, messages, term)
        self._recent = recent  # now, since a batch that fails before this comes again
        metrics.EVENTS_CONSUMED.inc(len(messages) - len(unreadable))
        metrics.DEAD_LETTERS.inc(len(unreadable))
        self._look_for_gaps(rows)

    def _check(self, recent: deque[bool]) -> None:
        if sum(recent) > self._limits.unreadable:
            raise TooMuchUnreadable(f"{sum(recent)} of the last {len(recent)} messages")

    async def _store(self, rows: Sequence[Row]) -> None:
        """Returns when the rows are stored, however long ClickHouse is away. Heartbeats go on meanwhile."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while rows:
            try:
                await self._history.insert(rows)
            except Unavailable:
                await asyncio.sleep(backoff.next_delay())
            else:
                return

    async def _commit(self, consumer: AIOKafkaConsumer, messages: Iterable[Message], term: int) -> None:
        if term != self._term:
            # To commit now could set back what another member has committed since. The messages come again, which does
            # no harm.
            log.info("not committed", error="the partitions have been shared out anew")
            return
        offsets: dict[TopicPartition, int] = {}
        for message in messages:
            partition = TopicPartition(message.topic, message.partition)
            expected = offsets.get(partition, self._next.get(partition, message.offset))
            # Another member may have moved a partition on between two terms, but what was committed never comes again.
            if message.offset != expected or message.offset < self._committed.get(partition, 0):
                log.warning("the topic has jumped", partition=message.partition, expected=expected, got=message.offset)
                self._repair.suspect_all()
            offsets[partition] = message.offset + 1
        self._next |= offsets
        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions are another member's by now.
            log.info("not committed", error=str(error))
        else:
            if term == self._term:  # or it may have been committed when the new term had begun to read from before
                self._committed |= offsets

    def _look_for_gaps(self, rows: list[Row]) -> None:
        """Tells the repair of accounts whose versions jumped. Mostly the missing one is on its way in another
        partition; the repair waits for it.
        """
        for row in sorted(rows, key=lambda row: row.account_version):
            last = self._versions.pop(row.account_id, None)
            if last is not None and row.account_version > last + 1:
                self._repair.suspect(row.account_id)
            self._versions[row.account_id] = max(last or 0, row.account_version)
        while len(self._versions) > _WATCHED_ACCOUNTS:
            self._versions.popitem(last=False)

    async def _measure(self, consumer: AIOKafkaConsumer) -> None:
        """Tells the lag every so often, even while a batch waits for ClickHouse. While the broker is away it stays."""
        while True:
            with suppress(KafkaError):
                metrics.CONSUMER_LAG.set(await self._lag(consumer))
            await asyncio.sleep(_LAG_SECONDS)

    async def _lag(self, consumer: AIOKafkaConsumer) -> int:
        """The messages of this member's partitions that are there and not stored."""
        partitions = list(consumer.assignment())
        if not partitions:
            return 0
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        lag = 0
        for partition in partitions:
            place = self._next.get(partition)
            if place is None:
                place = await consumer.committed(partition) or 0
            lag += max(0, ends[partition] - max(place, begins[partition]))
        return lag


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Says when the group has shared the partitions out."""

    def __init__(self, on_assigned: Callable[[], None]) -> None:
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Nothing: the batch in hand is finished all the same, and what it commits too late is seen again."""

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:  # noqa: ARG002  whichever they are
        """Before anything of them is read."""
        self._on_assigned()


def _traceparent(message: Message) -> str | None:
    value = dict(message.headers).get("traceparent")
    return None if value is None else value.decode("latin-1")


async def _set_aside(producer: AIOKafkaProducer, unreadable: Sequence[tuple[Message, str]]) -> None:
    """Returns when the broker has confirmed every dead letter."""
    confirmations = []
    for message, reason in unreadable:
        log.warning("unreadable", partition=message.partition, offset=message.offset, reason=reason)
        added = {
            "dlq_reason": reason,
            "dlq_topic": message.topic,
            "dlq_partition": str(message.partition),
            "dlq_offset": str(message.offset),
        }
        headers = [*message.headers, *((name, value.encode()) for name, value in added.items())]
        confirmations.append(
            await producer.send(DEAD_LETTER_TOPIC, value=message.value, key=message.key, headers=headers),
        )
    await asyncio.gather(*confirmations)


async def _finished(step: Coroutine[Any, Any, None]) -> None:
    """Runs the step. When this is cancelled, the step has some seconds to come to its end before it is, too."""
    task = asyncio.create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_GRACE_SECONDS)
        task.cancel()
        await asyncio.wait({task})
        raise
