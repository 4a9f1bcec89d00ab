"""Fixtures: callers of a client that is connected with a fake bank."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from kit.rpc.channel import ClientLimits
from subgraphs.bank.client import BankClient, forwarding
from tests.clock import ManualClock
from tests.unit.bank.forwarding.callers import GATEWAY_TOKEN, Callers
from tests.unit.bank.forwarding.held_bank import serve_held_bank


@pytest.fixture(autouse=True)
def no_late_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine makes no call late, and lets no small second call pass."""
    monkeypatch.setattr(forwarding, "_COLLECT_SECONDS", 1_800)
    monkeypatch.setattr(forwarding, "_LATE_SECONDS", 3_600)


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Callers]]:
    """Function that returns callers of a new client with the given limits."""
    clock = ManualClock()
    monkeypatch.setattr(forwarding, "time", clock)
    async with serve_held_bank() as (bank, stub, _):

        def connect(gateway_token: Callable[[], str] = lambda: GATEWAY_TOKEN, **limits: Any) -> Callers:
            return Callers(bank, BankClient(stub, ClientLimits(**limits), gateway_token), clock)

        yield connect


@pytest.fixture
def callers(connect: Callable[..., Callers]) -> Callers:
    return connect()
