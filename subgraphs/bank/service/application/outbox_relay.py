"""Outbox rows to Kafka: at least once, in order within a leader's term."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
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
from subgraphs.bank.service.adapters.postgres.outbox import Outbox, waiting
from subgraphs.bank.service.domain.model import Kind, Posting, Transfer

log = structlog.get_logger(__name__)

_SPAN: Final[tracing.Attributes] = {
    "messaging.system": "kafka",
    "messaging.destination.name": OPERATIONS_TOPIC,
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
}

_BATCH: Final = 500
_CLOSE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 1.0
"""How long a row that nobody announced may wait, and how often a leader's session is heard of."""
_MEASURE_SECONDS: Final = 2.0


class Relay:
    """Publishes what is committed and forgets it when the broker has confirmed it.

    One relay leads among the replicas; the others stand by. A row goes out again when its leader is lost between the
    broker's confirmation and the removal: readers tell by the account's version that they have seen it.
    """

    def __init__(self, pool: asyncpg.Pool, producer: Callable[[], AIOKafkaProducer]) -> None:
        """Args:
        pool: of connections to the ledger's database; one is held while leading or standing by.
        producer: makes an idempotent producer that waits for all replicas.
        """
        self._pool = pool
        self._producer = producer
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something to publish. Never blocks."""
        self._wake.set()

    async def run(self) -> None:
        """Stands by until nobody else leads, then publishes until something fails, which it raises."""
        async with Outbox.lead(self._pool) as outbox:
            metrics.OUTBOX_LEADS.set(outbox is not None)
            if outbox is None:
                await asyncio.sleep(_POLL_SECONDS)
                return
            log.info("leading the outbox")
            producer = self._producer()
            try:
                await producer.start()
                while True:
                    await self._publish(outbox, producer)
            finally:
                await _close(producer)  # one that could not start holds connections, too

    async def measure(self) -> None:
        """Tells what waits, for ever, whoever leads and even if nobody does.

        Raises:
            Unavailable: the database is away.
        """
        while True:
            count, seconds = await waiting(self._pool)
            metrics.OUTBOX_BACKLOG.set(count)
            metrics.OUTBOX_AGE_SECONDS.set(seconds)
            await asyncio.sleep(_MEASURE_SECONDS)

    async def _publish(self, outbox: Outbox, producer: AIOKafkaProducer) -> None:
        self._wake.clear()
        rows = await outbox.next(_BATCH)
        if not rows:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wake.wait()
            return
        attributes: tracing.Attributes = {**_SPAN, "messaging.batch.message_count": len(rows)}
        traceparents = [row.traceparent for row in rows]
        with tracing.start_batch_span(traceparents, f"send {OPERATIONS_TOPIC}", SpanKind.PRODUCER, attributes):
            confirmations = [await _send(producer, row.transfer, row.traceparent) for row in rows]
            await asyncio.gather(*confirmations)
        await outbox.remove([row.id for row in rows])
        metrics.EVENTS_PUBLISHED.inc(len(rows))


async def _close(producer: AIOKafkaProducer) -> None:
    """Closes the producer. What is still on its way stays in the outbox, so nobody need wait for it; and while the
    broker is away, aiokafka's own `stop` would wait for it for ever.
    """
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await producer.stop()
    except TimeoutError:
        await producer._sender.close()  # noqa: SLF001  the rest of `stop`, which has no other name
        await producer.client.close()


async def _send(producer: AIOKafkaProducer, transfer: Transfer, traceparent: str | None) -> "asyncio.Future[object]":
    """Hands one event to the producer, in CloudEvents binary mode; the future is the broker's confirmation."""
    event = event_of(transfer)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(event.transfer_id),
        "ce_source": "/wallet/bank",
        "ce_type": TRANSFER_COMPLETED if isinstance(event, TransferEvent) else TOP_UP_COMPLETED,
        "ce_time": event.occurred_at.isoformat(),
        "content-type": "application/json",
    }
    if traceparent is not None:
        headers["traceparent"] = traceparent
    confirmation: asyncio.Future[object] = await producer.send(
        OPERATIONS_TOPIC,
        value=event.model_dump_json(by_alias=True, exclude_none=True).encode(),
        key=str(event.sender.account_id).encode(),
        headers=[(name, value.encode()) for name, value in headers.items()],
    )
    return confirmation


def event_of(transfer: Transfer) -> TransferEvent | TopUpEvent:
    """The transfer as the topic tells it."""
    event: dict[str, object] = {
        "transfer_id": transfer.id,
        "occurred_at": transfer.created_at,
        "amount": str(transfer.amount),
        "currency": transfer.amount.currency,
        "sender": _side(transfer.sender),
        "recipient": _side(transfer.recipient),
    }
    if transfer.kind is Kind.TRANSFER:
        return TransferEvent.model_validate(event)
    return TopUpEvent.model_validate({**event, "descriptor": dict(transfer.descriptor) or None})


def _side(posting: Posting) -> dict[str, object]:
    return {
        "account_id": posting.account_id,
        "version": posting.version,
        "balance_after": str(posting.balance_after),
    }
