"""Fault trial: run bank processes on one ledger under load and faults.

The history checker then compares the recorded calls with the ledger's rows.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, Self
from uuid import UUID

import asyncpg

from kit.auth.principal import Role
from kit.rpc.channel import ClientLimits
from kit.runtime import process
from loadtests.history import rows
from loadtests.history.calls import (
    DEPOSIT_PRINCIPAL,
    FloorChange,
    FrozenPeriod,
    History,
    LedgerRequest,
    Refusal,
    is_final,
)
from loadtests.history.checker import check_history
from loadtests.history.model import Violation
from loadtests.history.workload import Workload, WorkloadAccount
from stack import probes
from stack.process import Child, Process, module
from subgraphs.bank.client import Account, BankClient, Receipt, TransferRequest, Words
from tests.conftest import USERS, Keys
from tests.integration.bank.harness import Caller, bank_environment, clearing_account
from wallet.errors import FloorAboveBalance, WalletError
from wallet.money import Money

Fault = Callable[[], Coroutine[Any, Any, None]]
"""Function that causes a fault, and returns when the fault has ended."""

_OWNERS = ("alice", "bob")
_DIRECTIONS: Final[tuple[Literal["OUTGOING", "INCOMING", "ALL"], ...]] = ("OUTGOING", "INCOMING", "ALL")
_CLIENTS = 16
# The circuit breakers never open, so clients keep calling a bank that does not respond.
_LIMITS = ClientLimits(timeout_seconds=3.0, circuit_failures=1_000_000)
_RESOLVE_TIMEOUT_SECONDS = 60.0  # time to resolve the unknown outcomes after the last fault
_DAY = 24 * 3600.0
_UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class BankReplica:
    """One bank process. It runs inside `async with`, except while a fault stops it."""

    def __init__(self, keys: Keys, folder: Path, database_url: str) -> None:
        folder.mkdir()
        environment = bank_environment(keys, folder, bank_database_url=database_url)
        upper = {name.upper(): value for name, value in environment.items()}
        self.target = environment["bank_grpc_listen"]
        ready = probes.http(f"http://{environment['bank_admin_listen']}/health/ready")
        self._child = Child(Process(name="bank", command=module("subgraphs.bank.service", **upper), ready=ready))

    async def __aenter__(self) -> Self:
        await self._child.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.thaw()
        await self._child.stop()

    async def kill(self) -> None:
        """Kill the process with SIGKILL and start another on the same ports."""
        self._child.kill()
        await self._child.wait()
        await self._child.start()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP; it keeps its locks."""
        self._child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process."""
        self._child.send(signal.SIGCONT)


class FaultTrial:
    """Load and faults on bank replicas, with the recorded history.

    `seed` decides the random choices; the timing depends on the machine.
    """

    def __init__(
        self, seed: int, keys: Keys, database_url: str, replicas: Sequence[BankReplica], clients: Sequence[BankClient]
    ) -> None:
        self.history = History()
        self.faults: Counter[str] = Counter()
        self._seed = seed
        self._rng = random.Random(seed)
        # Not `_rng`: how often that one is used depends on timing, and the seed alone must decide the order of faults.
        self._schedule = random.Random(seed)
        self._database_url = database_url
        self.replicas = replicas
        self.clients = clients
        self._callers = {f"{USERS}|{owner}": Caller(keys.user(owner, lifetime_seconds=_DAY)) for owner in _OWNERS}
        self._operator = Caller(keys.user("operator", Role.OPERATOR, lifetime_seconds=_DAY))
        self._admin = Caller(keys.user("admin", Role.ADMIN, lifetime_seconds=_DAY))
        self._callers[DEPOSIT_PRINCIPAL] = Caller(keys.signers["card"].sign("card", _DAY))

    async def run(self, accounts: int, schedule: Iterable[Fault], seconds: float) -> str:
        """Run load and faults, resolve unknown outcomes, and assert that the history is consistent.

        Args:
            accounts: number of accounts.
            schedule: faults, one after the other.
            seconds: time after which no fault starts. The load ends after the last fault.

        Returns:
            A summary in one line.
        """
        print(f"seed {self._seed}")  # noqa: T201  shown when the trial fails
        violations = await self.find_violations(accounts, schedule, seconds)
        assert not violations, "\n".join([f"{len(violations)} violations", *map(str, violations[:20])])
        return self.summary

    async def find_violations(self, accounts: int, schedule: Iterable[Fault], seconds: float) -> list[Violation]:
        """Run load and faults as `run` does, and return the violations that the history checker finds."""
        load = Workload(self.history, self.send, await self.insert_accounts(accounts), clearing_account(), self._seed)
        async with process.background_task(self._record_sums(), "balance sums"), load.running(_CLIENTS):
            await self._cause_faults(schedule, seconds)
        async with asyncio.timeout(_RESOLVE_TIMEOUT_SECONDS):
            await load.resolve()
        async with self.sql() as connection:
            ledger = await rows.read_rows(connection)
        history = self.history
        return check_history(ledger, history.calls, history.snapshots, history.frozen, history.floors)

    async def send(self, requests: Sequence[LedgerRequest]) -> Sequence[Receipt | WalletError]:
        """Send the requests in one call to a random replica."""
        client, request = self._rng.choice(self.clients), requests[0]
        body, caller = request.body, self._callers[request.key.principal]
        amount = Money(body.amount, body.currency)
        if request.key.operation == "deposit":
            return [await caller(client.deposit(body.recipient_id, amount, request.key.key, {}))]
        if len(requests) == 1:
            transfer = client.transfer(
                body.sender_id, body.recipient_id, amount, request.key.key, words=_words(request)
            )
            return [await caller(transfer)]
        return await caller(client.batch_transfer([_transfer_request(request) for request in requests]))

    def random_schedule(self, *faults: Fault) -> Iterator[Fault]:
        """Yield faults without end: first each fault once in random order, then random ones."""
        yield from self._schedule.sample(faults, len(faults))
        while True:
            yield self._schedule.choice(faults)

    async def kill_bank(self) -> None:
        """Kill and restart a random replica."""
        await self._rng.choice(self.replicas).kill()

    async def freeze_bank(self) -> None:
        """Freeze a random replica, for less or more than PostgreSQL's time-out of idle transactions."""
        replica = self._rng.choice(self.replicas)
        replica.freeze()
        await asyncio.sleep(self._rng.choice((0.2, 1.0, 3.0, 7.0)))
        replica.thaw()

    async def freeze_account(self) -> None:
        """Freeze a random account for a while. An account whose calls once had no response is not frozen again."""
        async with self.sql() as connection:
            accounts = await connection.fetch("SELECT id FROM accounts WHERE purpose = 'CUSTOMER' ORDER BY id")
        uncertain = {each.account_id for each in self.history.frozen if each.ended == inf}
        certain = [row["id"] for row in accounts if row["id"] not in uncertain]
        if not certain:
            return
        account, directions = self._rng.choice(certain), self._rng.choice(_DIRECTIONS)
        began, certain_from, is_frozen = await self._control(
            lambda client: client.freeze_account(account, directions, "fault trial")
        )
        await asyncio.sleep(self._rng.choice((0.1, 0.5)))
        thawing, ended, is_thawed = await self._control(lambda client: client.thaw_account(account, "fault trial"))
        if not (is_frozen and is_thawed):
            ended, thawing = inf, certain_from
        self.history.frozen.append(FrozenPeriod(account, directions, began, certain_from, thawing, ended))

    async def change_floor(self) -> None:
        """Give a random account a credit line, and end it later, unless the account is in debt then."""
        async with self.sql() as connection:
            accounts = await connection.fetch("""
                SELECT id, min_balance, currency FROM accounts WHERE purpose = 'CUSTOMER' AND status = 'OPEN'
                ORDER BY id
            """)
        chosen = self._rng.choice(accounts)
        if not any(each.account_id == chosen["id"] for each in self.history.floors):
            self.history.floors.append(FloorChange(chosen["id"], chosen["min_balance"], -inf, -inf))
        for amount in (Decimal(-self._rng.randint(1, 500)), Decimal(0)):
            await self._set_floor(chosen["id"], Money(amount, chosen["currency"]))
            await asyncio.sleep(self._rng.choice((0.1, 0.5)))

    async def _set_floor(self, account_id: UUID, floor: Money) -> None:
        began, ended = time.monotonic(), inf
        is_certain = True  # whether no earlier attempt may have an effect later
        while True:
            try:
                await self._admin(self._rng.choice(self.clients).set_account_floor(account_id, floor, "fault trial"))
            except FloorAboveBalance:
                if is_certain:
                    return
            except WalletError:
                is_certain = False
                await asyncio.sleep(0.1)
                continue
            if is_certain:
                ended = time.monotonic()
            self.history.floors.append(FloorChange(account_id, floor.amount, began, ended))
            return

    async def _control(self, call: Callable[[BankClient], Awaitable[Account]]) -> tuple[float, float, bool]:
        """Repeat a call until it succeeds. Return its start, its end, and whether the first attempt succeeded."""
        began, attempts = time.monotonic(), 0
        while True:
            attempts += 1
            with suppress(WalletError):
                await self._operator(call(self._rng.choice(self.clients)))
                return began, time.monotonic(), attempts == 1
            await asyncio.sleep(0.1)

    async def terminate_sessions(self) -> None:
        """Terminate some of the banks' database sessions."""
        async with self.sql() as connection:
            sessions = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bank'"
            )
            for row in self._rng.sample(sessions, min(len(sessions), self._rng.randint(1, 5))):
                await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[asyncpg.Connection]:
        """Connect to the ledger's database."""
        connection = await asyncpg.connect(self._database_url)
        try:
            yield connection
        finally:
            await connection.close()

    @property
    def summary(self) -> str:
        """Summary of the trial in one line."""
        calls = self.history.calls
        tally = Counter(type(call.answer).__name__.lower() for call in calls)
        answered = sorted(call.ended for call in calls if is_final(call.answer))
        stall = max((later - earlier for earlier, later in pairwise(answered)), default=0.0)
        names = {"receipt": "acknowledged", "refusal": "refused", "unknownoutcome": "unknown", "noeffect": "shed"}
        return (
            f"seed {self._seed}: {len(calls)} calls, "
            + ", ".join(f"{tally[kind]} {name}" for kind, name in names.items())
            + f"; {len(self.history.snapshots)} sums; "
            + (", ".join(f"{count} x {fault}" for fault, count in sorted(self.faults.items())) or "no faults")
            + f"; longest stall {stall:.1f} s"
        )

    @property
    def refusal_reasons(self) -> set[str]:
        """Reasons of all refusals."""
        return {call.answer.reason for call in self.history.calls if isinstance(call.answer, Refusal)}

    async def insert_accounts(self, accounts: int) -> list[WorkloadAccount]:
        """Insert accounts with 100 roubles each, owned by Alice and Bob in turn."""
        async with self.sql() as connection:
            return [
                WorkloadAccount(
                    await connection.fetchval(
                        "INSERT INTO accounts (owner_id, balance) VALUES ($1, 100) RETURNING id", owner
                    ),
                    owner,
                    f"{USERS}|{owner}",
                )
                for owner in (_OWNERS[number % len(_OWNERS)] for number in range(accounts))
            ]

    async def _cause_faults(self, schedule: Iterable[Fault], seconds: float) -> None:
        """Cause the faults one after the other, with random pauses."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        for fault in schedule:
            await asyncio.sleep(self._schedule.uniform(0.1, 1.5))
            if loop.time() > end:
                return
            self.faults[fault.__name__.replace("_", " ")] += 1
            await fault()

    async def _record_sums(self) -> None:
        """Record balance snapshots repeatedly."""
        while True:
            with suppress(*_UNREACHABLE):
                async with self.sql() as connection:
                    while True:
                        self.history.record_snapshot(await rows.sum_balance_changes(connection))
                        await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def run_trial(
    keys: Keys, folder: Path, database_url: str, *, replicas: int, seed: int
) -> AsyncIterator[FaultTrial]:
    """Run replicas on a migrated ledger that no other test uses."""
    async with AsyncExitStack() as stack:
        banks = [BankReplica(keys, folder / f"bank{number}", database_url) for number in range(replicas)]
        for bank in banks:
            await stack.enter_async_context(bank)
        clients = [await stack.enter_async_context(BankClient.connect(bank.target, limits=_LIMITS)) for bank in banks]
        yield FaultTrial(seed, keys, database_url, banks, clients)


def _transfer_request(request: LedgerRequest) -> TransferRequest:
    body = request.body
    amount = Money(body.amount, body.currency)
    return TransferRequest(body.sender_id, body.recipient_id, amount, request.key.key, words=_words(request))


def _words(request: LedgerRequest) -> Words:
    body = request.body
    return Words(body.description, body.reference, is_reference_unique=body.is_reference_unique)
