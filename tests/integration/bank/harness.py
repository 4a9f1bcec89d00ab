"""A bank that runs as in production, over a real database, and what a test needs to use it and to look behind it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import grpc
import httpx

from kit.auth.principal import Role
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import RequestContext, current_request
from protos.wallet.bank.v1 import bank_pb2_grpc
from stack import probes
from stack.engines.postgres import Postgres
from stack.ports import free_ports
from stack.process import Child, Process, module
from subgraphs.bank.client import BankClient
from subgraphs.bank.service.__main__ import serve
from subgraphs.bank.service.settings import Settings
from tests.conftest import SERVICES, USERS, Keys
from tests.waiting import until
from wallet.accounts import clearing_account_id
from wallet.money import Money

Value = TypeVar("Value")


def rub(amount: str) -> Money:
    return Money.parse(amount, "RUB")


class Caller:
    """Somebody who calls the bank: `await alice(bank.client.get_balance(account))`."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def __call__(self, work: Awaitable[Value]) -> Value:
        with self.calling():
            return await work

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Every call in the block is this caller's."""
        reset = current_request.set(RequestContext("test", token=self._token))
        try:
            yield
        finally:
            current_request.reset(reset)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """For a call with the bare stub."""
        return (("authorization", f"Bearer {self._token}"),)


@dataclass(frozen=True)
class RunningBank:
    """A bank, a client of it, and its database seen from behind."""

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
        """A new account, put where accounts are kept."""
        row = {"owner_id": owner, "balance": Decimal(balance), "currency": currency, **columns}
        names, places = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
        statement = f"INSERT INTO accounts ({names}) VALUES ({places}) RETURNING id"
        opened: UUID = await self.sql.fetchval(statement, *row.values())
        return opened

    async def row(self, account_id: UUID) -> asyncpg.Record:
        found = await self.sql.fetchrow("SELECT * FROM accounts WHERE id = $1", account_id)
        assert found is not None
        return found

    async def balance(self, account_id: UUID) -> Decimal:
        balance: Decimal = (await self.row(account_id))["balance"]
        return balance

    async def written(self) -> dict[str, int]:
        """How many rows each table has that an operation writes to."""
        return await written(self.sql)


@asynccontextmanager
async def cloned(postgres: Postgres, template: str) -> AsyncIterator[str]:
    """The URL of a database of several tests' own; the fixture `ledger_url` is for one test."""
    name = f"shared_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(postgres.admin_dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield postgres.dsn("postgres", name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


def settings_of(keys: Keys, folder: Path, **given: Any) -> dict[str, str]:
    """What a bank that believes the tests' tokens must be told, as environment variables; free ports unless given."""
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
        **given,
    }
    return {name: str(value) for name, value in settings.items()}


@asynccontextmanager
async def running(keys: Keys, folder: Path, database_url: str, **given: Any) -> AsyncIterator[RunningBank]:
    """The bank's own composition, in this process. Without a broker given it has none, as in an outage."""
    environment = settings_of(keys, folder, bank_database_url=database_url, **given)
    parsed = {**environment, "auth_services": json.loads(environment["auth_services"])}
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Settings(**parsed), stop))
    try:
        async with using(keys, database_url, environment) as bank:
            await until_ready(bank.admin, serving)
            yield bank
    finally:
        stop.set()
        await serving


def process(keys: Keys, folder: Path, database_url: str, **given: Any) -> tuple[Child, dict[str, str]]:
    """The bank as a process of its own, which can be killed, and what it is told. It does not run yet."""
    environment = settings_of(keys, folder, bank_database_url=database_url, **given)
    upper = {name.upper(): value for name, value in environment.items()}
    live = probes.http(f"http://{environment['bank_admin_listen']}/health/live")
    return Child(Process(name="bank", command=module("subgraphs.bank.service", **upper), ready=live)), environment


@asynccontextmanager
async def using(keys: Keys, database_url: str, environment: Mapping[str, str]) -> AsyncIterator[RunningBank]:
    """A running bank, wherever it runs."""
    target, admin = environment["bank_grpc_listen"], f"http://{environment['bank_admin_listen']}"
    async with (
        asyncpg.create_pool(database_url, min_size=0, max_size=4) as sql,
        grpc.aio.insecure_channel(target) as channel,
        BankClient.connect(target, limits=ClientLimits(timeout_seconds=20)) as client,
    ):
        yield RunningBank(client, bank_pb2_grpc.BankServiceStub(channel), sql, keys, target, admin)


async def until_ready(admin: str, serving: "asyncio.Task[None] | None" = None, within: float = 20) -> None:
    """Returns when the bank says so itself. Fails with what ended it, if it ended."""
    async with httpx.AsyncClient(trust_env=False) as http:

        async def is_ready() -> bool:
            if serving is not None and serving.done():
                serving.result()
            try:
                return (await http.get(f"{admin}/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(is_ready, within=within, every=0.02)


async def written(sql: asyncpg.Pool) -> dict[str, int]:
    """How many rows each table has that an operation writes to."""
    tables = ("transfers", "entries", "idempotency_keys", "outbox")
    return {table: await sql.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def waiting(sql: asyncpg.Pool, query: str) -> int | None:
    """A session of the bank's that waits for a lock in a query like this."""
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


async def prove(sql: asyncpg.Pool) -> None:
    """What must hold of every ledger at every moment."""
    broken = {
        "a balance is what was there at first and every entry since": """
            SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id
            GROUP BY a.id HAVING a.balance <> a.opening_balance + coalesce(sum(e.amount), 0)
        """,
        "the last entry left the balance that the account has": """
            SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id AND e.version = a.version
            WHERE a.balance IS DISTINCT FROM coalesce(e.balance_after, a.opening_balance)
        """,
        "each entry's balance is the one before it and its amount": """
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
        "time does not run against versions": """
            SELECT account_id FROM (
                SELECT e.account_id, t.created_at,
                       lag(t.created_at) OVER (PARTITION BY e.account_id ORDER BY e.version) AS last
                FROM entries e JOIN transfers t ON t.id = e.transfer_id
            ) AS e WHERE created_at < last
        """,
        "every transfer has two entries, which net to zero": """
            SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id
            GROUP BY t.id HAVING count(e.*) <> 2 OR sum(e.amount) <> 0 OR max(e.amount) <> t.amount
        """,
        "no money is made or lost in any currency": """
            SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> sum(opening_balance)
        """,
        "every transfer is some key's, and every key's transfer is there": """
            SELECT coalesce(t.id, k.transfer_id) FROM transfers t FULL JOIN idempotency_keys k ON k.transfer_id = t.id
            WHERE (t.id IS NULL OR k.transfer_id IS NULL) AND k.refusal IS NULL
        """,
        "no balance is below its floor": "SELECT id FROM accounts WHERE balance < min_balance",
    }
    for law, query in broken.items():
        assert not await sql.fetch(query), law


def clearing(currency: str = "RUB") -> UUID:
    return clearing_account_id(currency)
