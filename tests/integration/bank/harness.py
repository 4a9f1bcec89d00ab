"""Runs the bank as in production, on a real database, with clients and direct database access for tests."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID

import asyncpg
import grpc
import httpx

from kit.auth.principal import Role
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import RequestContext, current_request
from protos.wallet.bank.v1 import bank_pb2_grpc
from stack import probes
from stack.ports import free_ports
from stack.process import Child, Process, module
from subgraphs.bank.client import BankClient
from subgraphs.bank.service import __main__ as bank_main
from subgraphs.bank.service.__main__ import serve
from subgraphs.bank.service.adapters.postgres import outbox
from subgraphs.bank.service.application.outbox_relay import OutboxRelay
from subgraphs.bank.service.settings import Settings
from tests.conftest import SERVICES, USERS, Keys
from tests.waiting import until
from wallet.accounts import clearing_account_id
from wallet.money import Money

Value = TypeVar("Value")


def rub(amount: str) -> Money:
    return Money.parse(amount, "RUB")


class Caller:
    """Caller of the bank with a token: `await alice(bank.client.get_balance(account))`."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def __call__(self, work: Awaitable[Value]) -> Value:
        with self.calling():
            return await work

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Make every call in the block with this caller's token."""
        reset = current_request.set(RequestContext("test", token=self._token))
        try:
            yield
        finally:
            current_request.reset(reset)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """gRPC metadata for calls with the stub."""
        return (("authorization", f"Bearer {self._token}"),)


@dataclass(frozen=True)
class RunningBank:
    """Running bank with a client, a stub and a connection pool of its database."""

    client: BankClient
    stub: "bank_pb2_grpc.BankServiceAsyncStub"
    sql: asyncpg.Pool
    keys: Keys
    target: str
    admin: str

    def user(self, subject: str, *roles: Role) -> Caller:
        return Caller(self.keys.user(subject, *roles))

    def service(self, name: str) -> Caller:
        return Caller(self.keys.service(name))

    async def open(
        self, owner: str | None = "alice", balance: str = "1000.00", currency: str = "RUB", **columns: Any
    ) -> UUID:
        """Insert an account into the database."""
        row = {"owner_id": owner, "balance": Decimal(balance), "currency": currency, **columns}
        names, places = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
        statement = f"INSERT INTO accounts ({names}) VALUES ({places}) RETURNING id"
        opened: UUID = await self.sql.fetchval(statement, *row.values())
        return opened

    async def row(self, account_id: UUID) -> asyncpg.Record:
        row = await self.sql.fetchrow("SELECT * FROM accounts WHERE id = $1", account_id)
        assert row is not None
        return row

    async def balance(self, account_id: UUID) -> Decimal:
        balance: Decimal = (await self.row(account_id))["balance"]
        return balance

    async def count_rows(self) -> dict[str, int]:
        """Count the rows of each table that transfers write to."""
        return await count_rows(self.sql)


def bank_environment(keys: Keys, folder: Path, **overrides: Any) -> dict[str, str]:
    """Return the settings of a bank on free ports that accepts the tests' tokens.

    The keys are the names of the environment variables in lower case.
    """
    files = {}
    for number, issuer in enumerate((USERS, *SERVICES)):
        file = folder / f"{number}.jwks.json"
        file.write_text(keys.jwks(issuer))
        files[issuer] = str(file)
    grpc_port, admin_port, dead_port = free_ports(3)
    settings = {
        "bank_grpc_listen": f"127.0.0.1:{grpc_port}",
        "bank_admin_listen": f"127.0.0.1:{admin_port}",
        "kafka_bootstrap_servers": f"127.0.0.1:{dead_port}",
        "auth_issuer": USERS,
        "auth_jwks": files[USERS],
        "auth_services": json.dumps({service: files[service] for service in SERVICES}),
        **overrides,
    }
    return {name: str(value) for name, value in settings.items()}


@asynccontextmanager
async def run_bank(keys: Keys, folder: Path, database_url: str, **overrides: Any) -> AsyncIterator[RunningBank]:
    """Run the bank in this process. Without `kafka_bootstrap_servers` in `overrides` Kafka is unavailable."""
    environment = bank_environment(keys, folder, bank_database_url=database_url, **overrides)
    parsed = {**environment, "auth_services": json.loads(environment["auth_services"])}
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Settings(**parsed), stop))
    try:
        async with connect_bank(keys, database_url, environment) as bank:
            await until_ready(bank.admin, serving)
            yield bank
    finally:
        stop.set()
        await serving


class _IdleRelay(OutboxRelay):
    """Outbox relay that neither publishes events nor sets gauges."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def measure(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def run_bank_without_relay(keys: Keys, folder: Path, database_url: str) -> AsyncIterator[RunningBank]:
    """Run a bank in this process that does not publish its outbox, and does not set the outbox's gauges.

    All banks of a process share the gauges, which the relay's tests read, and aiokafka's classes, which these tests
    patch. A relay in the bank that many tests share would interfere with them.
    """
    async with AsyncExitStack() as stack:
        with patch.object(bank_main, "OutboxRelay", _IdleRelay):
            bank = await stack.enter_async_context(run_bank(keys, folder, database_url))
        yield bank


def bank_process(
    keys: Keys, folder: Path, database_url: str, *, clock_ahead_seconds: float = 0, **overrides: Any
) -> tuple[Child, dict[str, str]]:
    """Return a bank process that is not started yet, and its settings.

    The clock of the process is ahead by `clock_ahead_seconds`.
    """
    environment = bank_environment(keys, folder, bank_database_url=database_url, **overrides)
    upper = {name.upper(): value for name, value in environment.items()}
    live = probes.http(f"http://{environment['bank_admin_listen']}/health/live")
    name = "subgraphs.bank.service"
    command = module(name, **upper)
    if clock_ahead_seconds:
        clock = {"CLOCK_AHEAD_SECONDS": str(clock_ahead_seconds)}
        command = module("tests.integration.bank.clock_ahead", name, **upper, **clock)
    return Child(Process(name="bank", command=command, ready=live)), environment


@asynccontextmanager
async def connect_bank(keys: Keys, database_url: str, environment: Mapping[str, str]) -> AsyncIterator[RunningBank]:
    """Connect to a bank that runs in this process or in another one."""
    target, admin = environment["bank_grpc_listen"], f"http://{environment['bank_admin_listen']}"
    async with (
        asyncpg.create_pool(database_url, min_size=0, max_size=4) as sql,
        grpc.aio.insecure_channel(target) as channel,
        BankClient.connect(target, limits=ClientLimits(timeout_seconds=20)) as client,
    ):
        yield RunningBank(client, bank_pb2_grpc.BankServiceStub(channel), sql, keys, target, admin)


def admin_client(bank: RunningBank) -> httpx.AsyncClient:
    """Return an HTTP client of the bank's admin interface with an admin's token."""
    headers = {"Authorization": f"Bearer {bank.keys.user('admin', Role.ADMIN)}"}
    return httpx.AsyncClient(trust_env=False, base_url=bank.admin, headers=headers)


async def until_ready(admin: str, serving: "asyncio.Task[None] | None" = None, within: float = 20) -> None:
    """Wait until a service reports ready. If `serving`, the task that runs the service, fails, raise its error."""
    async with httpx.AsyncClient(trust_env=False) as http:

        async def is_ready() -> bool:
            if serving is not None and serving.done():
                serving.result()
            try:
                return (await http.get(f"{admin}/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(is_ready, within=within, every=0.02)


async def count_rows(sql: asyncpg.Pool) -> dict[str, int]:
    """Count the rows of each table that transfers write to."""
    tables = ("transfers", "entries", "idempotency_keys", "outbox")
    return {table: await sql.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def find_lock_waiter(sql: asyncpg.Pool, query: str) -> int | None:
    """Return the process id of a session of the bank that waits for a lock in a statement that contains `query`."""
    pid: int | None = await sql.fetchval(
        """
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'bank' AND wait_event_type = 'Lock'
              AND query LIKE '%' || $1 || '%'
        LIMIT 1
        """,
        query,
    )
    return pid


async def get_leader_pid(sql: asyncpg.Pool) -> int | None:
    """Return the process id of the outbox leader's session."""
    pid: int | None = await sql.fetchval(f"""
        SELECT pid FROM pg_locks
        WHERE {outbox._IS_LEADER_LOCK}
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """)
    return pid


async def assert_ledger_invariants(sql: asyncpg.Pool) -> None:
    """Assert the invariants of a ledger, with SQL that is independent of the bank's integrity check."""
    violations = {
        "a balance is the sum of the opening balance and all entries": """
            SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id
            GROUP BY a.id HAVING a.balance <> a.opening_balance + coalesce(sum(e.amount), 0)
        """,
        "the last entry has the account's balance": """
            SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id AND e.version = a.version
            WHERE a.balance IS DISTINCT FROM coalesce(e.balance_after, a.opening_balance)
        """,
        "each entry's balance is the previous balance plus its amount": """
            SELECT account_id FROM (
                SELECT account_id, balance_after - amount AS before,
                       lag(balance_after) OVER (PARTITION BY account_id ORDER BY version) AS last
                FROM entries
            ) AS e WHERE last IS NOT NULL AND before <> last
        """,
        "versions have no gaps": """
            SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id
            GROUP BY a.id HAVING count(e.version) <> a.version OR coalesce(max(e.version), 0) <> a.version
        """,
        "times do not decrease with versions": """
            SELECT account_id FROM (
                SELECT e.account_id, t.created_at,
                       lag(t.created_at) OVER (PARTITION BY e.account_id ORDER BY e.version) AS last
                FROM entries e JOIN transfers t ON t.id = e.transfer_id
            ) AS e WHERE created_at < last
        """,
        "nothing is dated in the future": """
            SELECT id FROM transfers WHERE created_at > clock_timestamp()
            UNION ALL
            SELECT id FROM accounts WHERE greatest(created_at, updated_at) > clock_timestamp()
        """,
        "every transfer has two entries, which net to zero": """
            SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id
            GROUP BY t.id HAVING count(e.*) <> 2 OR sum(e.amount) <> 0 OR max(e.amount) <> t.amount
        """,
        "the total of each currency is conserved": """
            SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> sum(opening_balance)
        """,
        "every transfer has a key, and every key's transfer exists": """
            SELECT coalesce(t.id, k.transfer_id) FROM transfers t FULL JOIN idempotency_keys k ON k.transfer_id = t.id
            WHERE (t.id IS NULL OR k.transfer_id IS NULL) AND k.refusal IS NULL
        """,
        "no balance is below its minimum": "SELECT id FROM accounts WHERE balance < min_balance",
    }
    for invariant, query in violations.items():
        assert not await sql.fetch(query), invariant


def clearing_account(currency: str = "RUB") -> UUID:
    return clearing_account_id(currency)
