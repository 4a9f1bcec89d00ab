"""`close_producer`, and the parts of aiokafka's producer that it uses."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from subgraphs.bank.service.adapters import aiokafka_internals
from subgraphs.bank.service.adapters.aiokafka_internals import close_producer


async def test_aiokafka_producer_has_the_private_sender_that_close_producer_closes() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    try:
        assert asyncio.iscoroutinefunction(producer._sender.close)
        assert asyncio.iscoroutinefunction(producer.client.close)
    finally:
        await producer.stop()


class HangingProducer:
    """Fake producer whose `stop` never returns."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self._sender: Any = self._Part("sender", self.closed)
        self.client: Any = self._Part("client", self.closed)

    class _Part:
        def __init__(self, name: str, closed: list[str]) -> None:
            self._name = name
            self._closed = closed

        async def close(self) -> None:
            self._closed.append(self._name)

    async def stop(self) -> None:
        await asyncio.Event().wait()


async def test_sender_and_client_are_closed_when_stop_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka_internals, "_CLOSE_SECONDS", 0.01)
    producer = HangingProducer()
    await close_producer(producer)
    assert producer.closed == ["sender", "client"]
