"""Random workload: clients transfer money, send duplicates and conflicting requests, and retry unknown outcomes."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, TypeAlias
from uuid import UUID

from loadtests.history.calls import (
    DEPOSIT_PRINCIPAL,
    Answer,
    History,
    IdempotencyKey,
    LedgerRequest,
    RequestBody,
    is_final,
)
from subgraphs.bank import client
from wallet.errors import WalletError

Send: TypeAlias = Callable[[Sequence[LedgerRequest]], Awaitable[Sequence[client.Receipt | WalletError]]]
"""Calls the bank with one request, or with several transfers of one principal as a batch.

Returns the outcomes in the order of the requests, or raises a `WalletError` for all of them.
"""

_MAX_BATCH: Final = 6
_MAX_CONCURRENT_RETRIES: Final = 50
_MAX_AMOUNT: Final = 60
_WORDS_SHARE: Final = 0.3  # share of transfers with a description and a reference
_REFERENCES: Final = 50
"""Number of different references. Half of the transfers with a reference ask for a unique one, and many are refused."""
_RETRY_DELAY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class WorkloadAccount:
    """Account that takes part in the workload. `principal` is the scope of its owner's idempotency keys."""

    account_id: UUID
    owner_id: str
    principal: str


class Workload:
    """Transfers between a few accounts.

    With the same seed, each client sends the same requests in the same order until an outcome is unknown.
    """

    def __init__(
        self, history: History, send: Send, accounts: Sequence[WorkloadAccount], clearing: UUID, seed: int
    ) -> None:
        """Args:
        history: records every call.
        send: makes the calls.
        accounts: at least two, of one currency.
        clearing: account that deposits come from.
        seed: seed of all random choices.
        """
        self._history = history
        self._send = send
        self._accounts = accounts
        self._clearing = clearing
        self._seed = seed

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        """Run a closed loop of clients while the block runs.

        When the block ends, each client finishes its calls in flight, retries at most one of them, and stops.
        """
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._run_client(number, stop))
            try:
                yield
            finally:
                stop.set()

    async def resolve(self) -> None:
        """Retry all requests with an unknown outcome, with the same keys. Return when all outcomes are known."""
        while unresolved := self._history.unresolved():
            await asyncio.gather(*(self._record([request]) for request in unresolved[:_MAX_CONCURRENT_RETRIES]))

    async def _run_client(self, number: int, stop: asyncio.Event) -> None:
        rng = random.Random(f"{self._seed}.{number}")  # noqa: S311  reproducible, no secret
        for turn in itertools.count():
            if stop.is_set():
                return
            calls = self._plan_turn(rng, f"{number}.{turn}")
            answers = await asyncio.gather(*map(self._record, calls))
            unresolved = [
                call for call, received in zip(calls, answers, strict=True) if not all(map(is_final, received))
            ]
            if unresolved:
                # The bank may be unavailable, so do not retry in a tight loop.
                await asyncio.sleep(rng.uniform(0, _RETRY_DELAY_SECONDS))
                await self._record(rng.choice(unresolved))

    def _plan_turn(self, rng: random.Random, name: str) -> list[list[LedgerRequest]]:
        """Return the calls that a client makes concurrently in one turn.

        Half of all turns have duplicates, and a tenth of all turns have a conflicting request.
        """
        kind = rng.choices(("transfer", "deposit", "batch"), (6, 1, 2))[0]
        if kind == "deposit":
            requests = [self._deposit(rng, name)]
        else:
            sender, size = rng.choice(self._accounts), rng.randint(2, _MAX_BATCH) if kind == "batch" else 1
            requests = [self._transfer(rng, sender, f"{name}.{item}") for item in range(size)]
        calls = [requests]
        if rng.random() < 0.5:  # noqa: PLR2004
            again = rng.sample(requests, rng.randint(1, len(requests)))
            calls += [again] if rng.random() < 0.5 else [[request] for request in again]  # noqa: PLR2004
        if rng.random() < 0.1:  # noqa: PLR2004
            request = rng.choice(requests)
            calls.append([replace(request, body=replace(request.body, amount=request.body.amount + 1))])
        rng.shuffle(calls)
        return calls

    def _transfer(self, rng: random.Random, sender: WorkloadAccount, key: str) -> LedgerRequest:
        """Return a transfer to another account. The recipient may belong to the same owner."""
        recipient = rng.choice([account for account in self._accounts if account is not sender])
        body = RequestBody(sender.account_id, recipient.account_id, _random_amount(rng))
        if rng.random() < _WORDS_SHARE:
            body = replace(
                body,
                description=f"for {key}",
                reference=str(rng.randint(1, _REFERENCES)),
                is_reference_unique=rng.random() < 0.5,  # noqa: PLR2004
            )
        return LedgerRequest(IdempotencyKey(sender.principal, "transfer", key), body, sender.owner_id)

    def _deposit(self, rng: random.Random, key: str) -> LedgerRequest:
        body = RequestBody(self._clearing, rng.choice(self._accounts).account_id, _random_amount(rng))
        return LedgerRequest(IdempotencyKey(DEPOSIT_PRINCIPAL, "deposit", key), body, None)

    async def _record(self, requests: Sequence[LedgerRequest]) -> list[Answer]:
        return await self._history.record(requests, self._send(requests))


def _random_amount(rng: random.Random) -> Decimal:
    """Return an amount in whole kopecks."""
    return Decimal(rng.randint(1, 100 * _MAX_AMOUNT)) / 100
