"""Stores the events of the operations topic in the history, in batches, and then commits their offsets.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from cachetools import LRUCache
from opentelemetry.trace import SpanKind

from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC
from kit.runtime import process
from kit.runtime.backoff import Backoff
from kit.telemetry import tracing
from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.events import InvalidEvent, decode_event
from subgraphs.analytics.service.adapters.kafka import running_client
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.domain.model import Event, Row
from subgraphs.analytics.service.domain.rows import rows_from_event
from wallet.errors import TEMPORARY_ERRORS

log = structlog.get_logger(__name__)

_IDLE_TIMEOUT_MS: Final = 1_000
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 2.0
_BATCH_STOP_TIMEOUT_SECONDS: Final = 3.0
_LAG_INTERVAL_SECONDS: Final = 1.0
_STALL_SECONDS: Final = 30.0
"""Time without progress after which a new client joins the group. A rebalance takes up to 15 s after a crash.

aiokafka repeats failed requests without end and without an error, so a client that cannot continue would wait for ever.
"""
_GAP_DETECTION_ACCOUNTS: Final = 100_000
_COMPARED_KEYS: Final = 1_000

_SPAN_ATTRIBUTES: Final[tracing.Attributes] = {
    "messaging.system": "kafka",
    "messaging.destination.name": OPERATIONS_TOPIC,
    "messaging.operation.name": "store",
    "messaging.operation.type": "process",
    "db.system.name": "clickhouse",
}

Message: TypeAlias = "ConsumerRecord[bytes, bytes]"
Value = TypeVar("Value")


class TooManyDeadLetters(Exception):
    """The limit of dead letters is exceeded, so the cause is probably not in the messages.

    An operator must find the cause. A consumer that continued would move the whole topic to the dead letters.
    """


class NoProgress(Exception):
    """The client has stored no message for a while, although messages wait, or it is not known whether any waits."""


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """Limits of the consumer.

    Attributes:
        batch_size: maximum messages in one insert, and in memory.
        interval_seconds: shortest time between two inserts, unless the second one is full, and between an assignment of
            partitions and the first insert. Many small inserts are expensive for ClickHouse. A message that arrives
            later after the insert before it is inserted at once.
        max_dead_letters: maximum dead letters among the last `window` messages.
        window: number of messages that `max_dead_letters` refers to.
    """

    batch_size: int = 2_000
    interval_seconds: float = 0.1
    max_dead_letters: int = 100
    window: int = 1_000


class Consumer:
    """Member of the consumer group that stores the topic.

    For each batch it decodes the messages, inserts the rows, sends the dead letters and then commits the offsets. After
    a crash at any point, messages are consumed again and none is lost. A row that is inserted twice counts once.
    """

    def __init__(
        self,
        history: History,
        repair: Repair,
        consumer: Callable[[], AIOKafkaConsumer],
        producer: Callable[[], AIOKafkaProducer],
        limits: ConsumerLimits,
    ) -> None:
        """Args:
        history: stores the rows.
        repair: compares accounts that seem to have a gap.
        consumer: returns a new member of the group, not subscribed and without automatic commits.
        producer: returns a new producer for the dead letters.
        limits: limits of batches and dead letters.
        """
        self._history = history
        self._repair = repair
        self._epochs = repair.epochs
        self._consumer = consumer
        self._producer = producer
        self._limits = limits
        self._recent: deque[bool] = deque(maxlen=limits.window)
        """One value for each of the last `limits.window` messages: True if the message was invalid."""
        self._versions: LRUCache[UUID, int] = LRUCache(_GAP_DETECTION_ACCOUNTS)
        self._next_offsets: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._next_batch_at = 0.0
        """Time of the event loop before which only a full batch is inserted."""
        self._generation = 0
        self._is_assigned = False
        self._lag: int | None = None
        self._progress_at = 0.0
        """Time of the event loop at which a batch was last stored, or no message waited."""

    async def run(self) -> None:
        """Consume with restarts until cancelled, or until there are too many dead letters."""
        metrics.CONSUMER_STOPPED.set(0)
        try:
            await process.run_with_restarts(
                self.consume,
                name="consumer",
                first_delay_seconds=_FIRST_DELAY_SECONDS,
                longest_delay_seconds=_LONGEST_DELAY_SECONDS,
                fatal=TooManyDeadLetters,
            )
        except TooManyDeadLetters as error:
            # The process continues: reads work, and the repair restores what the topic would have delivered.
            metrics.CONSUMER_STOPPED.set(1)
            log.error("consumer stopped", error=f"{error}: look at the dead letters, then restart analytics")

    async def consume(self) -> None:
        """Consume until an error occurs, and raise it. When cancelled, finish the current batch first.

        Raises:
            TooManyDeadLetters: a batch exceeds the limit of invalid messages; it is not committed.
            KafkaError: the broker is unavailable, or has removed this member from the group.
            NoProgress: nothing was stored for half a minute, although messages may wait.
        """
        async with running_client(self._producer()) as producer, running_client(self._consumer()) as consumer:
            self._next_offsets.clear()
            self._committed.clear()
            self._lag = None
            await self._epochs.wait_until_following()
            consumer.subscribe(
                [OPERATIONS_TOPIC], listener=_RebalanceListener(self._lose_partitions, self._start_generation)
            )
            self._note_progress()
            self._repair.note_delivery(0)  # nothing is known about this topic yet
            # The committed offset may belong to an earlier topic of the same name. Then this topic's first messages are
            # skipped.
            self._repair.suspect_all()
            async with process.background_task(self._report_lag(consumer), "lag"):
                while True:
                    try:
                        async with asyncio.timeout_at(self._progress_at + _STALL_SECONDS):
                            messages, generation = await self._collect(consumer)
                    except TimeoutError:
                        raise NoProgress(f"no messages for {_STALL_SECONDS:g} s: {self._describe()}") from None
                    if messages:
                        await _finish_when_cancelled(self._store_batch(consumer, producer, messages, generation))
                        self._note_progress()

    def _note_progress(self) -> None:
        self._progress_at = asyncio.get_running_loop().time()
        metrics.CONSUMER_PROGRESS.set_to_current_time()

    def _describe(self) -> str:
        """Return what is known about the messages that wait."""
        if not self._is_assigned:
            return "the group has assigned no partitions"
        return "it is not known whether any waits" if self._lag is None else f"{self._lag} wait"

    async def _collect(self, consumer: AIOKafkaConsumer) -> tuple[list[Message], int]:
        """Return the next messages, if any arrive within a second, and the generation of all of them.

        The generation is the number of rebalances before the messages were fetched.
        """
        loop = asyncio.get_running_loop()
        messages: list[Message] = []
        generation = self._generation
        remaining_ms = _IDLE_TIMEOUT_MS
        while remaining_ms > 0 and len(messages) < self._limits.batch_size:
            remaining = self._limits.batch_size - len(messages)
            fetched = await consumer.getmany(timeout_ms=remaining_ms, max_records=remaining)
            if generation != self._generation:
                # The group has been rebalanced: the new owners of the partitions consume these messages again.
                messages, generation = [], self._generation
            if not fetched and not messages:
                break
            messages.extend(message for part in fetched.values() for message in part)
            remaining_ms = int((self._next_batch_at - loop.time()) * 1000)
        if messages:
            self._delay_next_batch()
        return messages, generation

    def _delay_next_batch(self) -> None:
        self._next_batch_at = asyncio.get_running_loop().time() + self._limits.interval_seconds

    def _lose_partitions(self) -> None:
        """Note that a rebalance has begun. The current batch continues."""
        self._is_assigned = False
        metrics.CONSUMER_PARTITIONS.set(0)

    def _start_generation(self, partitions: Collection[TopicPartition]) -> None:
        """Discard the expected offsets after a rebalance: each partition continues at its committed offset."""
        self._generation += 1
        self._next_offsets.clear()
        self._delay_next_batch()  # messages that wait arrive in several fetches
        self._is_assigned = True
        metrics.CONSUMER_PARTITIONS.set(len(partitions))
        log.info("partitions assigned", partitions=sorted(each.partition for each in partitions))

    async def _store_batch(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        messages: list[Message],
        generation: int,
    ) -> None:
        events: list[Event] = []
        invalid: list[tuple[Message, str]] = []
        recent = self._recent.copy()
        for message in messages:
            try:
                events.append(decode_event(message.value, message.headers))
            except InvalidEvent as error:
                invalid.append((message, error.reason))
                recent.append(True)
                self._check_dead_letters(recent)
            else:
                recent.append(False)
        epoch, events = await self._take_own_epoch(events)
        rows = [row for event in events for row in rows_from_event(event)]
        attributes: tracing.Attributes = {**_SPAN_ATTRIBUTES, "messaging.batch.message_count": len(messages)}
        with tracing.start_batch_span(
            map(_traceparent, messages), f"store {OPERATIONS_TOPIC}", SpanKind.CONSUMER, attributes
        ):
            await self._insert(rows, epoch)
        await _send_dead_letters(producer, invalid)
        await self._commit(consumer, messages, generation)
        self._repair.note_delivery(time.time() - min(message.timestamp for message in messages) / 1000)
        self._recent = recent  # a batch that fails before this line is consumed, and counted, again
        metrics.EVENTS_CONSUMED.inc(len(messages) - len(invalid))
        metrics.DEAD_LETTERS.inc(len(invalid))
        self._detect_gaps(rows)

    def _check_dead_letters(self, recent: deque[bool]) -> None:
        if sum(recent) > self._limits.max_dead_letters:
            raise TooManyDeadLetters(f"{sum(recent)} of the last {len(recent)} messages are invalid")

    async def _take_own_epoch(self, events: Sequence[Event]) -> tuple[str, list[Event]]:
        """Return the epoch of the history, and the events that belong to this epoch.

        Raises:
            EpochChanged: the ledger has another epoch than the history.
        """
        epoch = await self._retry(self._epochs.refresh)
        own = [event for event in events if event.epoch == epoch]
        if skipped := len(events) - len(own):
            await self._retry(self._epochs.verify)
            # The ledger has the history's epoch, so the skipped events were published before this epoch began. The
            # ledger may lack operations of these events; the repair inserts the operations that the ledger has.
            metrics.OTHER_EPOCH_EVENTS.inc(skipped)
            log.warning("events of another epoch skipped", events=skipped, epoch=epoch)
            self._repair.suspect_all()
        return epoch, own

    async def _insert(self, rows: Sequence[Row], epoch: str) -> None:
        """Insert the rows, with retries until they are stored. The member's heartbeats continue.

        Raises:
            EpochChanged: the ledger has another epoch than the history.
        """
        if rows:
            await self._retry(partial(self._verify_repeated, rows))
            await self._retry(partial(self._insert_once, rows, epoch))

    async def _insert_once(self, rows: Sequence[Row], epoch: str) -> None:
        async with self._epochs.writing(epoch):
            await self._history.insert(rows)

    async def _verify_repeated(self, rows: Sequence[Row]) -> None:
        """Compare rows that may be stored already with the stored rows.

        A row above the last version that this process has stored for the account is new, and is not compared.
        """
        repeated = {
            (row.account_id, row.account_version): row.operation_id
            for row in rows
            if row.account_version <= self._versions.get(row.account_id, row.account_version)
        }
        keys = list(repeated)
        for start in range(0, len(keys), _COMPARED_KEYS):
            stored = await self._history.list_postings(keys[start : start + _COMPARED_KEYS])
            differing = [each for each in stored if repeated[each.account_id, each.version] != each.operation_id]
            if differing:
                log.error("events contradict the history", postings=len(differing))
                arrived = [replace(each, operation_id=repeated[each.account_id, each.version]) for each in differing]
                await self._epochs.verify([*differing, *arrived])

    async def _retry(self, step: Callable[[], Awaitable[Value]]) -> Value:
        """Return the result of a step, which is repeated without end while it fails with one of `TEMPORARY_ERRORS`."""
        backoff = Backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)
        is_logged = False
        while True:
            try:
                return await step()
            except TEMPORARY_ERRORS as error:
                if not is_logged:
                    log.warning("batch delayed", error=f"{type(error).__name__}: {error}")
                    is_logged = True
                await asyncio.sleep(backoff.next_delay())

    async def _commit(self, consumer: AIOKafkaConsumer, messages: Iterable[Message], generation: int) -> None:
        if generation != self._generation:
            # A commit could now reset offsets that another member of the group has committed. Without the commit the
            # messages are consumed again, which is harmless.
            log.info("offsets not committed", error="the group has been rebalanced")
            return
        offsets: dict[TopicPartition, int] = {}
        for message in messages:
            partition = TopicPartition(message.topic, message.partition)
            expected = offsets.get(partition, self._next_offsets.get(partition, message.offset))
            # Another member may have consumed the partition in the meantime, so a later offset is a gap only within one
            # generation. An offset below the committed one is never correct.
            if message.offset != expected or message.offset < self._committed.get(partition, 0):
                log.warning("offset gap", partition=message.partition, expected=expected, got=message.offset)
                self._repair.suspect_all()
            offsets[partition] = message.offset + 1
        self._next_offsets |= offsets
        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            # Other members own the partitions now.
            log.info("offsets not committed", error=str(error))
        else:
            if generation == self._generation:  # otherwise the new generation may start at lower offsets
                self._committed |= offsets

    def _detect_gaps(self, rows: list[Row]) -> None:
        """Report accounts with a skipped version to the repair.

        Usually the missing event is in another partition, so the repair waits before it reads the operation.
        """
        for row in sorted(rows, key=lambda row: row.account_version):
            last = self._versions.get(row.account_id)
            if last is not None and row.account_version > last + 1:
                self._repair.suspect(row.account_id)
            self._versions[row.account_id] = max(last or 0, row.account_version)

    async def _report_lag(self, consumer: AIOKafkaConsumer) -> None:
        """Report the lag every second, also while a batch waits for ClickHouse.

        While the broker is down or the group is rebalanced, the metric keeps its last value.
        """
        while True:
            with suppress(KafkaError):
                self._lag = await self._get_lag(consumer)
                if self._is_assigned:
                    metrics.CONSUMER_LAG.set(self._lag)
                    if not self._lag:
                        self._note_progress()
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)

    async def _get_lag(self, consumer: AIOKafkaConsumer) -> int:
        """Return the number of messages in this member's partitions that are not stored."""
        partitions = list(consumer.assignment())
        if not partitions:
            return 0
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        lag = 0
        for partition in partitions:
            offset = self._next_offsets.get(partition)
            if offset is None:
                offset = await consumer.committed(partition) or 0
            lag += max(0, ends[partition] - max(offset, begins[partition]))
        return lag


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Calls functions at the start and at the end of a rebalance."""

    def __init__(
        self, on_revoked: Callable[[], None], on_assigned: Callable[[Collection[TopicPartition]], None]
    ) -> None:
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002  all of them
        """Report the start. If the commit of the current batch is too late, its messages are consumed again."""
        self._on_revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Report the assignment, before any message of the assigned partitions is fetched."""
        self._on_assigned(assigned)


def _traceparent(message: Message) -> str | None:
    value = dict(message.headers).get("traceparent")
    return None if value is None else value.decode("latin-1")


async def _send_dead_letters(producer: AIOKafkaProducer, invalid: Sequence[tuple[Message, str]]) -> None:
    """Send the dead letters, and wait until the broker has confirmed every dead letter."""
    confirmations = []
    for message, reason in invalid:
        log.warning("invalid event", partition=message.partition, offset=message.offset, reason=reason)
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


async def _finish_when_cancelled(step: Coroutine[Any, Any, None]) -> None:
    """Run a step. After a cancellation the step has three seconds to end before it is cancelled, too."""
    task = asyncio.create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_BATCH_STOP_TIMEOUT_SECONDS)
        task.cancel()
        await asyncio.wait({task})
        raise
