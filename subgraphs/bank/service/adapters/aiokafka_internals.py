"""Closes aiokafka producers within a bounded time.

`AIOKafkaProducer.stop` waits for unconfirmed messages without a time-out while the broker is unreachable. The other
steps of `stop` have no public methods, so this module uses the private attribute `_sender`. A unit test fails if
aiokafka removes it.
"""

from typing import Final

from aiokafka import AIOKafkaProducer

from kit.runtime.timeouts import completes_within

_CLOSE_SECONDS: Final = 1.0


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Close a producer and its connections, and drop unconfirmed messages after a second.

    The dropped messages are still in the outbox, and the next leader publishes them.
    """
    if not await completes_within(_CLOSE_SECONDS, producer.stop()):
        await producer._sender.close()  # noqa: SLF001  the other steps of `stop`
        await producer.client.close()
