"""Streams of a top-up: the periodic check that the subscriber may still read the account."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast
from uuid import UUID

import pytest
from pydantic import SecretStr

from kit.auth.principal import Principal
from subgraphs.card.service.application.service import TopUpOptions, TopUps
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import TopUp
from tests.unit.card.top_ups import top_up
from wallet.errors import (
    AccountNotFound,
    DeadlineExceeded,
    RateLimited,
    ResourceExhausted,
    Unavailable,
    WalletError,
)

ALICE = Principal("issuer", "alice", is_service=False, expires_at=0)


class FailingBank:
    """Bank whose calls all fail."""

    def __init__(self, error: WalletError) -> None:
        self._error = error
        self.calls = 0

    async def get_account(self, _: UUID) -> None:
        self.calls += 1
        raise self._error


class Hub:
    """Hub with two states of one top-up."""

    async def watch(self, _: UUID, check: Callable[[TopUp], Awaitable[None]]) -> AsyncGenerator[TopUp, None]:
        for version in (1, 2):
            state = top_up(version=version)
            await check(state)
            yield state


async def watch_versions(bank: FailingBank) -> list[int]:
    """Return the versions that Alice receives. Her access is checked before each of them."""
    options = TopUpOptions(cast("Limits", None), SecretStr("secret"), access_seconds=0)
    unused: Any = None
    top_ups = TopUps(unused, unused, unused, cast("Any", bank), unused, cast("Any", Hub()), options)
    return [state.version async for state in top_ups.watch(ALICE, top_up().id)]


@pytest.mark.parametrize(
    "error", [Unavailable("the bank"), DeadlineExceeded("the bank"), ResourceExhausted(), RateLimited("calls", "1")]
)
async def test_outage_of_the_bank_does_not_end_the_stream(error: WalletError) -> None:
    bank = FailingBank(error)
    assert (await watch_versions(bank), bank.calls) == ([1, 2], 2)


async def test_lost_access_ends_the_stream() -> None:
    with pytest.raises(AccountNotFound):
        await watch_versions(FailingBank(AccountNotFound("a1")))
