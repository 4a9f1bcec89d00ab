"""The whole system, as `make up` runs it, with rich accounts of one owner."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID, uuid4

import asyncpg

from benchmarks.gateway_environment import UNLIMITED
from benchmarks.run import cpu_meter
from kit.auth.principal import Role
from kit.rpc import request_context
from loadtests.target import temporary_system
from stack.ports import HOST
from stack.system import System
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient, Receipt
from wallet.money import Money

_OWNER: Final = "bench"
_TOKEN_SECONDS: Final = 3_600.0
_ACCOUNTS: Final = 200
_ONE: Final = Money.parse("1.00", "RUB")


@dataclass(frozen=True, slots=True)
class Scene:
    """The system, with rich accounts of one owner."""

    system: System
    token: str
    accounts: Sequence[UUID]
    bank: BankClient
    analytics: AnalyticsClient

    @classmethod
    @asynccontextmanager
    async def set(cls) -> AsyncIterator[Self]:
        """A system of its own on free ports; it is gone afterwards."""
        async with AsyncExitStack() as stack:
            system, target = await stack.enter_async_context(temporary_system(**UNLIMITED))
            signer = target.signer
            assert signer is not None  # noqa: S101  an embedded stack has its keys
            token = signer.sign(_OWNER, _TOKEN_SECONDS, [Role.CUSTOMER])
            stack.enter_context(request_context.as_service(lambda: token))
            ports = system.ports
            yield cls(
                system,
                token,
                await _opened(target.ledger),
                await stack.enter_async_context(BankClient.connect(target.bank)),
                await stack.enter_async_context(AnalyticsClient.connect(f"{HOST}:{ports.analytics_grpc}")),
            )

    async def transfers(self, rate: float, seconds: float, made: Callable[[int, Receipt], Awaitable[None]]) -> int:
        """So many transfers a second between random accounts.

        Args:
            rate: transfers a second.
            seconds: for how long.
            made: is awaited with the number and the receipt of each.

        Returns:
            How many there were; all are done.
        """
        chance = random.Random(1)  # noqa: S311  chance, no secret
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = number / rate
                if due >= seconds:
                    return number
                await asyncio.sleep(began + due - time.monotonic())
                sender, recipient = chance.sample(self.accounts, 2)
                group.create_task(self._transfer(number, sender, recipient, made))
        raise AssertionError

    async def _transfer(
        self, number: int, sender: UUID, recipient: UUID, made: Callable[[int, Receipt], Awaitable[None]]
    ) -> None:
        await made(number, await self.bank.transfer(sender, recipient, _ONE, uuid4().hex))

    def cpu(self, **others: int) -> Callable[[], dict[str, float]]:
        """See `cpu_meter`: of each of the system's processes, and of others by their pids."""
        parts = ("gateway", "bank", "card", "acquirer", "analytics", "postgres", "kafka", "clickhouse")
        return cpu_meter({name: [self.system.pid(name)] for name in parts} | {k: [pid] for k, pid in others.items()})


async def _opened(dsn: str) -> list[UUID]:
    connection = await asyncpg.connect(dsn)
    try:
        statement = (
            "INSERT INTO accounts (owner_id, balance) SELECT $1, 1000000 FROM generate_series(1, $2) RETURNING id"
        )
        return [row["id"] for row in await connection.fetch(statement, _OWNER, _ACCOUNTS)]
    finally:
        await connection.close()
