"""Callers of the bank's client, whose concurrent transfers the client sends to the bank together."""

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from typing import Final
from uuid import UUID

from kit.auth.principal import Principal
from kit.rpc.request_context import RequestContext, current_request
from kit.telemetry.tracing import TraceContext
from subgraphs.bank.client import BankClient, Receipt, forwarding
from tests.clock import ManualClock
from tests.unit.bank.forwarding.held_bank import HeldBank, HeldCall
from wallet.errors import WalletError
from wallet.money import Money

GATEWAY_TOKEN: Final = "the gateway's token"
SENDER: Final = UUID(int=1)
RECIPIENT: Final = UUID(int=2)
WITH_KEY: Final = "try again with the same idempotency key"
Task = asyncio.Task[Receipt]


class Callers:
    """Callers of the bank's client.

    Attributes:
        bank: the fake bank.
        client: the client under test.
        clock: clock of the client's forwarding, which stands still.
    """

    def __init__(self, bank: HeldBank, client: BankClient, clock: ManualClock) -> None:
        self.bank = bank
        self.client = client
        self.clock = clock
        self._keys = count(1)

    def start(self, *names: str, seconds: float | None = None) -> list[Task]:
        """Start a transfer of each caller. The n-th transfer of a test has the idempotency key n.

        Args:
            names: subjects of the callers; an empty name is an anonymous caller.
            seconds: time-out of the requests; None for that of the client.
        """
        return [self._start(name, seconds) for name in names]

    def _start(self, name: str, seconds: float | None) -> Task:
        key = str(next(self._keys))
        deadline = None if seconds is None else time.monotonic() + seconds
        trace = TraceContext(f"{int(key):032x}", "00000000000000aa", 0, "vendor=1")
        context = RequestContext(f"request-{key}", deadline=deadline, trace=trace)
        if name:
            context = context.with_principal(Principal("https://users.test", name, False, 0.0), f"token of {name}")
        reset = current_request.set(context)
        try:
            return asyncio.create_task(self.client.transfer(SENDER, RECIPIENT, Money.parse("1", "RUB"), key))
        finally:
            current_request.reset(reset)

    async def occupy(self, size: int = 2) -> tuple[list[Task], list[HeldCall]]:
        """Start transfers until the bank has enough calls: further transfers wait. Each is sent alone, and at once."""
        tasks, calls = [], []
        for _ in range(size):
            tasks += self.start("occupant")
            calls.append(await self.bank.next_call())
            assert not calls[-1].items
        return tasks, calls

    async def wait_in_queue(self, *names: str, seconds: float | None = None) -> list[Task]:
        """Start transfers, which the client keeps waiting."""
        tasks = self.start(*names, seconds=seconds)
        for _ in range(forwarding._MAX_TURNS + 1):
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        return tasks

    async def send_together(self, *names: str) -> tuple[list[Task], HeldCall]:
        """Return transfers that have been sent together, and their call. No other call is on its way."""
        occupants, calls = await self.occupy()
        tasks = await self.wait_in_queue(*names)
        calls[0].complete()
        batch = await self.bank.next_call()
        calls[1].complete()
        await asyncio.gather(*occupants)
        assert [each.token for each in batch.items] == [f"token of {name}" for name in names]
        return tasks, batch


async def errors_of(tasks: Sequence[Task]) -> list[WalletError | None]:
    """Return the error of each transfer; None for a receipt."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for each in results:
        assert isinstance(each, Receipt | WalletError)
    return [each if isinstance(each, WalletError) else None for each in results]


async def assert_calls_at_once(callers: Callers, calls_at_once: int) -> None:
    """Assert that as many calls are on their way at once, and that further transfers wait and are sent together."""
    occupants, calls = await callers.occupy(calls_at_once)
    waiting = await callers.wait_in_queue("a", "b")
    calls[0].complete()
    batch = await callers.bank.next_call()
    assert len(batch.items) == 2
    batch.complete()
    for call in calls[1:]:
        call.complete()
    await asyncio.gather(*occupants, *waiting)
