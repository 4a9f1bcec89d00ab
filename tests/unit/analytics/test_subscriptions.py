from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from subgraphs.analytics.client import Operation, StreamStart
from subgraphs.analytics.graph.context import Context
from subgraphs.analytics.graph.subscriptions import watch_operations
from tests.operations import new_operation
from wallet.cursor import HistoryPosition
from wallet.errors import Unavailable

ACCOUNT = UUID(int=7)


@dataclass
class Clients:
    """Fake bank with an account at version 5, and fake analytics. All streams except the last end with Unavailable."""

    streams: list[Sequence[Operation | StreamStart]]
    opened_after: list[int | None] = field(default_factory=list)
    bank_calls: int = 0

    @property
    def context(self) -> Context:
        analytics = SimpleNamespace(
            watch_operations=lambda _, after, __: self._stream(after), watch_new_operations=lambda _: self._stream(None)
        )
        return cast(Context, SimpleNamespace(analytics=analytics, bank=self))

    async def get_balance(self, _: UUID) -> Any:
        self.bank_calls += 1
        return SimpleNamespace(version=5, epoch="")

    async def _stream(self, after: int | None) -> AsyncGenerator[Operation | StreamStart, None]:
        self.opened_after.append(after)
        for value in self.streams.pop(0):
            yield value
        if self.streams:
            raise Unavailable

    async def watch_versions(self, after: int | None) -> list[int]:
        position = None if after is None else HistoryPosition(after, "")
        async with aclosing(watch_operations(self.context, ACCOUNT, position)) as operations:
            return [each.account_version async for each in operations]


async def test_subscription_without_cursor_does_not_call_the_bank() -> None:
    clients = Clients([[StreamStart(3), new_operation(4)]])
    assert await clients.watch_versions(None) == [4]
    assert (clients.opened_after, clients.bank_calls) == ([None], 0)


async def test_reconnect_before_the_first_operation_continues_at_the_start_version() -> None:
    clients = Clients([[StreamStart(3)], [new_operation(4)]])
    assert await clients.watch_versions(None) == [4]
    assert (clients.opened_after, clients.bank_calls) == ([None, 3], 0)


async def test_reconnect_continues_after_the_last_operation() -> None:
    clients = Clients([[new_operation(3), new_operation(4)], [new_operation(5)]])
    assert await clients.watch_versions(2) == [3, 4, 5]
    assert (clients.opened_after, clients.bank_calls) == ([2, 4], 0)


async def test_reconnect_without_a_start_version_continues_at_the_banks_version() -> None:
    clients = Clients([[], [new_operation(6)]])
    assert await clients.watch_versions(None) == [6]
    assert (clients.opened_after, clients.bank_calls) == ([None, 5], 1)
