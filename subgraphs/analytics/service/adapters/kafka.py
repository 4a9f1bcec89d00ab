"""Configures, starts and stops the Kafka clients of analytics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

_FETCH_WAIT_MS: Final = 50
"""Maximum time that the broker holds a fetch open. Kafka responds as soon as there are messages. The embedded broker
responds only at the end of this time, so it delays every event by this time.
"""

_MAX_POLL_INTERVAL_MS: Final = 24 * 3600 * 1000
"""Long, because a member that waits for ClickHouse does not poll. Its heartbeats keep it in the group."""

_METADATA_MAX_AGE_MS: Final = 5_000
"""Maximum delay until a new topic or partition is noticed."""

_REQUEST_TIMEOUT_MS: Final = 5_000

Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)


@dataclass(frozen=True, slots=True)
class KafkaClients:
    """Factory of clients, which are not started yet.

    Attributes:
        bootstrap_servers: `host:port`, or several with commas.
        client_id: prefix of the clients' ids in the broker's logs.
        session_seconds: silence after which the consumer group removes a member.
    """

    bootstrap_servers: str
    client_id: str
    session_seconds: float

    def group_consumer(self, group_id: str) -> AIOKafkaConsumer:
        """Return a member of a consumer group. The caller subscribes and commits."""
        return self._consumer("store", group_id)

    def live_consumer(self) -> AIOKafkaConsumer:
        """Return a consumer without a group. The caller assigns partitions."""
        return self._consumer("live", None)

    def producer(self) -> AIOKafkaProducer:
        """Return a producer that waits for all in-sync replicas."""
        return AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers, client_id=self.client_id, acks="all")

    def admin_client(self) -> AIOKafkaAdminClient:
        """Return an admin client."""
        return AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap_servers,
            client_id=self.client_id,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )

    def _consumer(self, name: str, group_id: str | None) -> AIOKafkaConsumer:
        session_ms = int(self.session_seconds * 1000)
        return AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            client_id=f"{self.client_id}-{name}",
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=int(self.session_seconds * 1000 / 4),
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            request_timeout_ms=session_ms + _REQUEST_TIMEOUT_MS,  # joining may take as long as the session time-out
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
        )


@asynccontextmanager
async def running_client(client: Client) -> AsyncIterator[Client]:
    """Start a client and stop it at the end, also if the start fails: a client that did not start holds connections."""
    try:
        await client.start()
        yield client
    finally:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
