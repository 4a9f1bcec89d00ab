"""Outbox relay: publishes each outbox row to Kafka at least once; in order, as long as the same replica leads."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Final

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from opentelemetry.trace import SpanKind

from asyncapi.models.topup_event import TopUpEvent
from asyncapi.models.transfer_event import TransferEvent
from asyncapi.topics import OPERATIONS_TOPIC, TOP_UP_COMPLETED, TRANSFER_COMPLETED
from kit.telemetry import tracing
from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.aiokafka_internals import close_producer
from subgraphs.bank.service.adapters.postgres.outbox import Outbox, OutboxRow, backlog
from subgraphs.bank.service.domain.model import Posting, Transfer, TransferKind

log = structlog.get_logger(__name__)

_SPAN: Final[tracing.Attributes] = {
    "messaging.system": "kafka",
    "messaging.destination.name": OPERATIONS_TOPIC,
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
}

_BATCH_SIZE: Final = 500
_POLL_SECONDS: Final = 1.0
"""Longest wait for new rows without a `wake` call, so an idle leader notices soon that its database session, which has
the leader's lock, was lost. Also the time after which a replica that does not lead tries again to become the leader.
"""
_INTERVAL_SECONDS: Final = 0.02
"""Shortest time between the reads of two batches, unless the first one is full. Under load, the rows of several commits
become one batch, which costs all processes up to ClickHouse less. A row that finds no batch on its way does not wait.
"""
_MEASURE_SECONDS: Final = 2.0
_CONFIRM_SECONDS: Final = 30.0
"""Longest wait for the confirmation of a batch. An idempotent producer of aiokafka repeats requests without end and
without an error. After this time a new producer publishes the rows again.
"""


class NoConfirmation(Exception):
    """The broker has not confirmed a batch in time. The rows stay in the outbox."""


class OutboxRelay:
    """Publishes outbox rows and deletes them after the broker's confirmation.

    One replica leads; the relays of the other replicas stand by. If the leader is lost between the confirmation and the
    deletion, the next leader publishes the rows again; consumers detect a repeat by the account's version.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        create_producer: Callable[[], AIOKafkaProducer],
        check_sessions: Callable[[], Awaitable[None]],
    ) -> None:
        """Args:
        pool: connections to the ledger's database; a leader holds one of them.
        check_sessions: raises an error if connections share database sessions, as behind PgBouncer in transaction
            mode. The leader's lock belongs to a session, so two replicas that share a session could both lead.
        create_producer: returns a new idempotent producer that waits for all in-sync replicas.
        """
        self._pool = pool
        self._create_producer = create_producer
        self._check_sessions = check_sessions
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Signal that the outbox has new rows. Never blocks."""
        self._wake.set()

    async def run(self) -> None:
        """Try to become leader, then publish until an error occurs and raise it. Returns if another replica leads."""
        await self._check_sessions()
        async with Outbox.lead(self._pool) as outbox:
            metrics.OUTBOX_IS_LEADER.set(outbox is not None)
            if outbox is None:
                await asyncio.sleep(_POLL_SECONDS)
                return
            log.info("outbox leadership acquired")
            producer = self._create_producer()
            try:
                await producer.start()
                while True:
                    await self._publish(outbox, producer)
            finally:
                await close_producer(producer)  # a producer that failed to start holds connections, too

    async def measure(self) -> None:
        """Update the backlog's metrics until cancelled. Every replica does this, not only the leader.

        Raises:
            Unavailable: the database is unreachable.
        """
        while True:
            count, seconds = await backlog(self._pool)
            metrics.OUTBOX_BACKLOG.set(count)
            metrics.OUTBOX_AGE_SECONDS.set(seconds)
            await asyncio.sleep(_MEASURE_SECONDS)

    async def _publish(self, outbox: Outbox, producer: AIOKafkaProducer) -> None:
        """Publish and delete the oldest rows, and let further rows collect; or wait for new rows."""
        self._wake.clear()
        started = monotonic()
        rows = await outbox.read(_BATCH_SIZE)
        if not rows:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wake.wait()
            return
        attributes: tracing.Attributes = {**_SPAN, "messaging.batch.message_count": len(rows)}
        traceparents = [row.traceparent for row in rows]
        with tracing.start_batch_span(traceparents, f"send {OPERATIONS_TOPIC}", SpanKind.PRODUCER, attributes):
            try:
                async with asyncio.timeout(_CONFIRM_SECONDS):
                    confirmations = [await _send(producer, row) for row in rows]
                    await asyncio.gather(*confirmations)
            except TimeoutError:
                raise NoConfirmation(
                    f"the broker has not confirmed {len(rows)} events in {_CONFIRM_SECONDS:g} s"
                ) from None
        await outbox.delete([row.id for row in rows])
        metrics.EVENTS_PUBLISHED.inc(len(rows))
        if len(rows) < _BATCH_SIZE:
            await _sleep_until(started + _INTERVAL_SECONDS)


async def _sleep_until(end: float) -> None:
    """Sleep until this time on the monotonic clock."""
    await asyncio.sleep(end - monotonic())


async def _send(producer: AIOKafkaProducer, row: OutboxRow) -> "asyncio.Future[object]":
    """Send one event in CloudEvents binary mode. The future completes with the broker's confirmation."""
    event = event_from_transfer(row.transfer)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(event.transfer_id),
        "ce_source": "/wallet/bank",
        "ce_type": TRANSFER_COMPLETED if isinstance(event, TransferEvent) else TOP_UP_COMPLETED,
        "ce_time": event.occurred_at.isoformat(),
        "content-type": "application/json",
    }
    if row.epoch:
        headers["ce_ledgerepoch"] = row.epoch
    if row.traceparent is not None:
        headers["traceparent"] = row.traceparent
    confirmation: asyncio.Future[object] = await producer.send(
        OPERATIONS_TOPIC,
        value=event.model_dump_json(by_alias=True, exclude_none=True).encode(),
        key=str(event.sender.account_id).encode(),
        headers=[(name, value.encode()) for name, value in headers.items()],
    )
    return confirmation


def event_from_transfer(transfer: Transfer) -> TransferEvent | TopUpEvent:
    """Convert a transfer to its event."""
    event: dict[str, object] = {
        "transfer_id": transfer.id,
        "occurred_at": transfer.created_at,
        "amount": str(transfer.amount),
        "currency": transfer.amount.currency,
        "sender": _posting_to_event(transfer.sender),
        "recipient": _posting_to_event(transfer.recipient),
    }
    if transfer.kind is TransferKind.TRANSFER:
        if transfer.words is not None:
            words = {
                "description": transfer.words.description,
                "reference": transfer.words.reference,
                "metadata": dict(transfer.words.metadata),
                "created_by": transfer.words.created_by,
            }
            event |= {name: value for name, value in words.items() if value}
        return TransferEvent.model_validate(event)
    return TopUpEvent.model_validate({**event, "descriptor": dict(transfer.descriptor) or None})


def _posting_to_event(posting: Posting) -> dict[str, object]:
    return {
        "account_id": posting.account_id,
        "version": posting.version,
        "balance_after": str(posting.balance_after),
    }
