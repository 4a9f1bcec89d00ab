"""Environments of the figures of the complete system, which runs as `make up` runs it."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from math import ceil
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID, uuid4

import asyncpg
import orjson

from benchmarks import http1_client
from benchmarks.accounts import ACCOUNTS, account_id, owner_id
from benchmarks.bank_load import BankLoad
from benchmarks.environment import TOKEN_SECONDS, UNLIMITED_SYSTEM, BenchEnvironment
from benchmarks.figure import BenchError, Options
from benchmarks.http1_client import UNIQUE_KEY, HttpLoad
from benchmarks.ledger import Ledger
from benchmarks.load_generator import LoadResult, LoadWindow, start_generator
from benchmarks.run import Run
from benchmarks.subscribers import SubscribeCommand, SubscriptionResult, SubscriptionTarget
from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from kit.rpc import request_context
from loadtests import account_selection
from loadtests.console import print_progress
from loadtests.plan import Plan
from loadtests.run import Outcome, create_report_folder, run_load
from loadtests.statistics import percentiles
from loadtests.target import Target, temporary_system
from stack.ports import HOST
from stack.system import System
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient, Receipt
from wallet import cursor
from wallet.money import Money

_OWNER: Final = "bench"
_OWNER_ACCOUNTS: Final = 200
_AMOUNT: Final = Money.parse("1.00", "RUB")
_CLOSED_LOOP_CONNECTIONS: Final = 32
_OPEN_LOOP_CONNECTIONS: Final = 256  # many, so that a due request finds a free connection
_REQUESTS: Final = 30_000  # number of different requests; they are repeated with new idempotency keys
_TIMEOUT_SECONDS: Final = 60.0


class SystemEnvironment(BenchEnvironment):
    """The complete system on free ports, without rate limits.

    Attributes:
        system: processes of the system.
        target: addresses of the system.
        ledger: database of the bank.
    """

    system: System
    target: Target
    ledger: Ledger

    _MEASURED_PROCESSES: ClassVar[Sequence[str]]

    async def _start(self) -> None:
        self.system, self.target = await self._exit_stack.enter_async_context(temporary_system(**UNLIMITED_SYSTEM))
        self.ledger = await self._exit_stack.enter_async_context(Ledger.open(self.target.ledger))

    @cached_property
    def signer(self) -> TokenSigner:
        """Issuer of the system's tokens."""
        signer = self.target.signer
        assert signer is not None  # noqa: S101  the embedded stack has its keys
        return signer

    @property
    def gateway(self) -> str:
        """Address of the gateway, as `host:port`."""
        return f"{HOST}:{self.system.ports.gateway}"

    @property
    def subscriptions_url(self) -> str:
        """WebSocket URL of the gateway's GraphQL endpoint."""
        return f"ws://{self.gateway}/graphql"

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Return the process id of each measured process of the system, by its name."""
        return {name: [self.system.pid(name)] for name in self._MEASURED_PROCESSES}


class OneOwnerEnvironment(SystemEnvironment):
    """The complete system with 200 accounts of one owner, and gRPC clients that call as this owner.

    Attributes:
        token: bearer token of the owner.
        accounts: ids of the accounts; all have high balances.
        bank: gRPC client of the bank.
        analytics: gRPC client of analytics.
    """

    token: str
    accounts: Sequence[UUID]
    bank: BankClient
    analytics: AnalyticsClient

    _MEASURED_PROCESSES = ("gateway", "bank", "card", "acquirer", "analytics", "postgres", "kafka", "clickhouse")

    async def _start(self) -> None:
        await super()._start()
        self.token = self.signer.sign(_OWNER, TOKEN_SECONDS, [Role.CUSTOMER])
        self._exit_stack.enter_context(request_context.as_service(lambda: self.token))
        self.accounts = await self._open_accounts()
        self.bank = await self._exit_stack.enter_async_context(BankClient.connect(self.target.bank))
        analytics = f"{HOST}:{self.system.ports.analytics_grpc}"
        self.analytics = await self._exit_stack.enter_async_context(AnalyticsClient.connect(analytics))

    async def transfer_at_rate(
        self, rate: float, seconds: float, on_receipt: Callable[[Receipt], Awaitable[None]] | None = None
    ) -> int:
        """Make transfers between random accounts in an open loop, and verify the ledger afterwards.

        Args:
            rate: transfers per second.
            seconds: duration.
            on_receipt: awaited with the receipt of each transfer.

        Returns:
            The number of transfers; the method waits until all have ended.

        Raises:
            BenchError: the ledger is not consistent.
        """

        async def transfer(sender: UUID, recipient: UUID) -> None:
            receipt = await self.bank.transfer(sender, recipient, _AMOUNT, uuid4().hex)
            if on_receipt:
                await on_receipt(receipt)

        rng = random.Random(1)  # noqa: S311  not used for secrets
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            transfers = ceil(rate * seconds)
            for number in range(transfers):
                await asyncio.sleep(start + number / rate - time.monotonic())
                group.create_task(transfer(*rng.sample(self.accounts, 2)))
        await self.ledger.verify(transfers)
        return transfers

    async def _open_accounts(self) -> list[UUID]:
        connection = await asyncpg.connect(self.target.ledger)
        try:
            statement = (
                "INSERT INTO accounts (owner_id, balance) SELECT $1, 1000000 FROM generate_series(1, $2) RETURNING id"
            )
            return [row["id"] for row in await connection.fetch(statement, _OWNER, _OWNER_ACCOUNTS)]
        finally:
            await connection.close()


class ManyOwnersEnvironment(SystemEnvironment):
    """The complete system with the accounts and owners of `accounts.py`, all with high balances.

    There are as many further accounts; each of them has an owner of its own.
    """

    _MEASURED_PROCESSES = ("gateway", "bank", "postgres", "analytics", "kafka", "clickhouse")

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options

    async def _start(self) -> None:
        await super()._start()
        rows = [(account_id(number), owner_id(number)) for number in range(ACCOUNTS)]
        rows += [(account_id(ACCOUNTS + number), _only_owner(number)) for number in range(ACCOUNTS)]
        connection = await asyncpg.connect(self.target.ledger)
        try:
            await connection.executemany(
                "INSERT INTO accounts (id, owner_id, balance) VALUES ($1::text::uuid, $2, 1000000)", rows
            )
        finally:
            await connection.close()

    @cached_property
    def many_tokens(self) -> Sequence[str]:
        """One token for each account that has an owner of its own."""
        roles = [Role.CUSTOMER]
        return [self.signer.sign(_only_owner(number), TOKEN_SECONDS, roles) for number in range(ACCOUNTS)]

    async def measure_rest(
        self,
        selection: str,
        *,
        rate: float = 0.0,
        seconds: float | None = None,
        connections: int = _CLOSED_LOOP_CONNECTIONS,
        one_owner_each: bool = False,
    ) -> Run:
        """Measure transfers over REST, and verify the ledger afterwards.

        Args:
            selection: how accounts are chosen; a name in `loadtests.account_selection`.
            rate: transfers per second in an open loop; 0: a closed loop.
            seconds: duration of the measurement; by default `Options.seconds` of the environment.
            connections: connections of a closed loop; each has one request in flight.
            one_owner_each: transfer between the accounts that have an owner of their own.

        Raises:
            BenchError: a request failed, or the ledger is not consistent.
        """
        pairs = account_selection.BY_NAME[selection](random.Random(), ACCOUNTS)  # noqa: S311  not used for secrets
        first = ACCOUNTS if one_owner_each else 0
        tokens = self.many_tokens if one_owner_each else self.tokens.customers
        requests = [
            http1_client.post(
                f"/accounts/{account_id(first + sender)}/transfers",
                {
                    "Authorization": f"Bearer {tokens[sender % len(tokens)]}",
                    "Idempotency-Key": UNIQUE_KEY,
                },
                {"recipientId": account_id(first + recipient), "amount": "0.01", "currency": "RUB"},
            )
            for sender, recipient in islice(pairs, _REQUESTS)
        ]
        load = HttpLoad(
            target=self.gateway,
            requests=requests,
            connections=_OPEN_LOOP_CONNECTIONS if rate else connections,
            status=201,
            marker='"createdAt"',
            rate=rate,
        )
        name = f"REST, {selection}, {len(tokens):,} callers, {load.connections} connections"
        return await self._measure(name, "benchmarks.http_load", load, seconds)

    async def measure_grpc(self) -> Run:
        """Measure transfers over the bank's gRPC API, without the gateway, and verify the ledger afterwards.

        Raises:
            BenchError: a call failed, or the ledger is not consistent.
        """
        load = BankLoad(
            targets=[self.target.bank],
            tokens=self.tokens.customers,
            accounts=ACCOUNTS,
            in_flight=_CLOSED_LOOP_CONNECTIONS,
        )
        return await self._measure("the bank alone", "benchmarks.bank_load", load)

    @asynccontextmanager
    async def subscribe(
        self, accounts: int, seconds: float
    ) -> AsyncIterator[Callable[[], Awaitable[SubscriptionResult]]]:
        """Subscribe to the first accounts, with one WebSocket per account.

        Args:
            accounts: number of accounts.
            seconds: duration of the subscriptions.

        Yields:
            A function that waits for the end of the subscriptions and returns their result. It raises `BenchError` if
            a subscription failed or received a message twice, or if no message was received.
        """
        versions = await self._versions(accounts)
        command = SubscribeCommand(
            url=self.subscriptions_url,
            token=self.signer.sign("watcher", TOKEN_SECONDS, [Role.OPERATOR]),
            accounts=list(versions),
            after=[cursor.encode_version(version) for version in versions.values()],
        )
        async with start_generator("benchmarks.subscribers") as subscribers:
            subscribers.send(command)
            await subscribers.receive(_TIMEOUT_SECONDS)
            subscribers.send(SubscriptionTarget(messages=sys.maxsize, timeout_seconds=seconds))

            async def receive_result() -> SubscriptionResult:
                result = SubscriptionResult(**orjson.loads(await subscribers.receive(_TIMEOUT_SECONDS + seconds)))
                if result.error or result.repeats or not result.latencies_ms:
                    raise BenchError(f"{len(result.latencies_ms)} messages, {result.repeats} repeats; {result.error}")
                return result

            yield receive_result

    async def run_load_test(self, rate: float, seconds: float, *scenarios: str, users: int) -> tuple[Outcome, Path]:
        """Run a load test with Locust in an open loop, and check the recorded responses.

        Returns:
            The outcome, and the folder with the report.

        Raises:
            BenchError: the verdict of the load test is not SOUND.
        """
        plan = Plan(
            host=self.target.host,
            bank=self.target.bank,
            scenarios=scenarios,
            users=users,
            rate=rate,
            seconds=seconds,
        )
        folder = create_report_folder("bench")
        outcome = await run_load(self.target, plan, 100, folder)
        await self.ledger.ignore_earlier_transfers()  # the history checker verified them
        print_progress(f"   {outcome}")
        if outcome.verdict != "SOUND":
            raise BenchError(f"the history checker found {len(outcome.violations)} violations: see {folder}")
        return outcome, folder

    async def _measure(
        self, name: str, generator_module: str, load: HttpLoad | BankLoad, seconds: float | None = None
    ) -> Run:
        seconds = seconds or self.options.seconds
        warm_up_seconds = replace(self.options, seconds=seconds).warm_up_seconds
        async with start_generator(generator_module) as generator:
            generator.send(load)
            await generator.receive(_TIMEOUT_SECONDS)
            start = time.monotonic() + warm_up_seconds
            generator.send(LoadWindow(start=start, end=start + seconds))
            read_cpu = self.measure_cpu(load=generator.pid)
            result = LoadResult(**orjson.loads(await generator.receive(_TIMEOUT_SECONDS + seconds)))
            cpu = read_cpu()
        if result.error:
            raise BenchError(f"{name}: a request failed: {result.error}")
        await self.ledger.verify(result.acknowledged)
        measured = Run(
            name=name,
            rate=result.transfers / seconds,
            acknowledged=result.acknowledged,
            details={"latency_ms": percentiles(result.latencies_ms), "cpu_seconds": cpu},
        )
        measured.print_summary()
        return measured

    async def _versions(self, accounts: int) -> dict[str, int]:
        """Return the versions of the first accounts, by account id."""
        connection = await asyncpg.connect(self.target.ledger)
        try:
            ids = [account_id(number) for number in range(accounts)]
            rows = await connection.fetch(
                "SELECT id::text, version FROM accounts WHERE id = ANY($1::text[]::uuid[])", ids
            )
            return {row["id"]: row["version"] for row in rows}
        finally:
            await connection.close()


def _only_owner(number: int) -> str:
    return f"only-owner-{number}"
