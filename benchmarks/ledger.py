"""Ledger databases for the bank's figures, and the check of a ledger after each run of any figure."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from benchmarks.accounts import ACCOUNTS, OWNERS
from benchmarks.figure import BenchError
from kit.db.migrations import upgrade
from stack.engines.postgres import Postgres

_TEMPLATE: Final = "bench_template"
_TABLES: Final = ("accounts", "transfers", "entries", "idempotency_keys", "outbox")

_OPEN_ACCOUNTS: Final = """
    INSERT INTO accounts (id, owner_id, balance)
    SELECT ('a1b2c3d4-e5f6-4a7b-8c9d-' || lpad(to_hex(n), 12, '0'))::uuid, 'owner-' || n % $2, 1000000000
    FROM generate_series(0, $1 - 1) AS n
"""
"""The ids are those that `benchmarks.accounts.account_id` and `benchmarks.accounts.owner_id` return."""

# Each ledger starts with rows in all tables except the outbox: for empty tables the planner chooses sequential scans,
# and keeps this choice long after the tables have grown.
_HISTORY: Final = """
    WITH created AS (
        INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                               sender_version, recipient_version)
        SELECT uuidv7(), 'TRANSFER', id, coalesce(lead(id) OVER by_id, first_value(id) OVER by_id), 1, 'RUB', now(),
               md5(random()::text), 1, 2
        FROM accounts WHERE owner_id IS NOT NULL WINDOW by_id AS (ORDER BY id)
        RETURNING *
    ), posted AS (
        INSERT INTO entries (account_id, version, transfer_id, amount, balance_after)
        SELECT sender_id, sender_version, id, -amount, 1000000000 - amount FROM created
        UNION ALL SELECT recipient_id, recipient_version, id, amount, 1000000000 FROM created
    ), recorded AS (
        INSERT INTO idempotency_keys (principal, operation, key, fingerprint, transfer_id)
        SELECT 'bench', 'transfer', idempotency_key, sha256(id::text::bytea), id FROM created
    )
    UPDATE accounts SET version = 2 WHERE owner_id IS NOT NULL
"""
"""Each account has sent one transfer to the next account, and received one from the previous account."""

_ROWS: Final = """
    SELECT (SELECT sum(version) FROM accounts) AS "rows.accounts",
           (SELECT count(*) FROM transfers) AS "rows.transfers",
           (SELECT count(*) FROM entries) AS "rows.entries",
           (SELECT count(*) FROM idempotency_keys) AS "rows.idempotency_keys",
           (SELECT count(*) FROM outbox) AS "rows.outbox"
"""
"""Rows that transfers have written to each table. Each write of an account's row increments the account's version."""

_SUMS: Final = """
    SELECT sum(balance) = sum(opening_balance) AS conserved, sum(version)::bigint AS versions,
           (SELECT count(*) FROM entries) AS entries, (SELECT count(*) FROM transfers) AS transfers,
           (SELECT count(*) FROM idempotency_keys) AS keys
    FROM accounts
"""

_TOTALS_PER_TRANSFER: Final = {"versions": 2, "entries": 2, "transfers": 1, "keys": 1}
"""Growth of the columns of `_SUMS` by one transfer, or by one deposit."""

_INVARIANTS: Final = {
    "balance = opening balance + entries, and versions have no gaps": """
        SELECT count(*) FROM (
            SELECT FROM accounts a LEFT JOIN entries e ON e.account_id = a.id GROUP BY a.id
            HAVING a.balance <> a.opening_balance + coalesce(sum(e.amount), 0)
                OR a.version <> count(e.version) OR a.version <> coalesce(max(e.version), 0)
        ) AS broken
    """,
    "each entry continues from the one before, and the last one has the account's balance": """
        SELECT count(*) FROM (
            SELECT e.*, a.opening_balance, a.version AS newest, a.balance,
                   lag(balance_after) OVER (PARTITION BY account_id ORDER BY e.version) AS before
            FROM entries e LEFT JOIN accounts a ON a.id = e.account_id
        ) AS e
        WHERE (balance_after - amount = coalesce(before, opening_balance)) IS NOT TRUE
            OR (version = newest AND balance_after <> balance)
    """,
    "creation times do not decrease with versions": """
        SELECT count(*) FROM (
            SELECT created_at, lag(created_at) OVER (PARTITION BY e.account_id ORDER BY e.version) AS before
            FROM entries e JOIN transfers t ON t.id = e.transfer_id
        ) AS e WHERE created_at < before
    """,
    "each transfer has two entries, and their sum is zero": """
        SELECT count(*) FROM (
            SELECT FROM transfers t FULL JOIN entries e ON e.transfer_id = t.id GROUP BY t.id
            HAVING t.id IS NULL OR count(e.*) <> 2 OR sum(e.amount) <> 0 OR max(e.amount) <> t.amount
        ) AS broken
    """,
    "each transfer has an idempotency key, and each key has a transfer or a refusal": """
        SELECT count(*) FROM transfers t FULL JOIN idempotency_keys k ON k.transfer_id = t.id
        WHERE (t.id IS NULL OR k.transfer_id IS NULL) AND k.refusal IS NULL
    """,
    "no balance is below its minimum": "SELECT count(*) FROM accounts WHERE balance < min_balance",
    "the total of all balances is unchanged": """
        SELECT count(*) FROM (
            SELECT FROM accounts GROUP BY currency HAVING sum(balance) <> sum(opening_balance)
        ) AS broken
    """,
}


class Footprint(dict[str, float]):
    """Rows and bytes (with indexes) by table, and bytes of WAL. `later - earlier` is the growth."""

    def __sub__(self, earlier: "Footprint") -> "Footprint":
        return Footprint({name: value - earlier[name] for name, value in self.items()})

    def per_transfer(self, transfers: int) -> dict[str, float]:
        """Divide by the number of transfers."""
        return {name: value / transfers for name, value in self.items()} if transfers else {}


class Ledger:
    """One database with a ledger.

    Attributes:
        url: URL of the database.
    """

    def __init__(self, url: str, sql: asyncpg.Connection) -> None:
        self.url = url
        self._sql = sql
        self._totals: Mapping[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Ledger"]:
        """Connect to a ledger. The first `verify` counts only the transfers that are made after this."""
        sql = await asyncpg.connect(url)
        try:
            ledger = cls(url, sql)
            await ledger.ignore_earlier_transfers()
            yield ledger
        finally:
            await sql.close()

    @property
    def name(self) -> str:
        """Name of the database."""
        return urlsplit(self.url).path.removeprefix("/")

    async def ignore_earlier_transfers(self) -> None:
        """Let the next `verify` count only the transfers that are made from now on."""
        self._totals = await self._sum_rows()

    async def vacuum(self) -> None:
        """Vacuum and write a checkpoint, so that no run pays for the deferred work of an earlier one."""
        await self._sql.execute("VACUUM ANALYZE")
        await self._sql.execute("CHECKPOINT")

    async def verify(self, acknowledged: int) -> None:
        """Check that money is conserved and that the ledger has exactly the acknowledged transfers.

        A transfer that was executed twice is an error, and so is a replay that was counted as a transfer.

        Args:
            acknowledged: number of transfers, or of deposits, since the last check.

        Raises:
            BenchError: the ledger is not consistent.
        """
        growth = {name: acknowledged * count for name, count in _TOTALS_PER_TRANSFER.items()}
        expected = {"conserved": True} | {name: self._totals[name] + count for name, count in growth.items()}
        actual = await self._sum_rows()
        if actual != expected:
            raise BenchError(f"the ledger is not consistent: it has {actual}, expected {expected}")
        self._totals = actual

    async def count_violations(self) -> dict[str, int]:
        """Check all rows and return the number of violations of each invariant."""
        return {name: await self._sql.fetchval(query) for name, query in _INVARIANTS.items()}

    async def footprint(self) -> Footprint:
        """Return the current numbers of rows and bytes."""
        (rows,) = await self._sql.fetch(_ROWS)
        sizes = {
            f"bytes.{table}": await self._sql.fetchval("SELECT pg_total_relation_size($1::regclass)", table)
            for table in _TABLES
        }
        wal = await self._sql.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
        measured = {**dict(rows), **sizes, "bytes.wal": wal}
        return Footprint({name: float(value) for name, value in measured.items()})

    async def _sum_rows(self) -> dict[str, int]:
        (sums,) = await self._sql.fetch(_SUMS)
        return dict(sums)


class LedgerFactory:
    """Creates ledger databases on one PostgreSQL server, as copies of one template."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._numbers = itertools.count(1)

    async def create_template(self) -> str:
        """Create the template. Call it once, before the first ledger.

        Returns:
            The version of PostgreSQL.

        Raises:
            BenchError: the server does not make commits durable, so its figures would not be comparable.
        """
        async with self._connect("postgres") as sql:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                if await sql.fetchval("SELECT current_setting($1)", setting) != "on":
                    raise BenchError(f"PostgreSQL runs without {setting}: turn it on to measure")
            version: str = await sql.fetchval("SHOW server_version")
            await sql.execute(f"CREATE DATABASE {_TEMPLATE}")
        await asyncio.to_thread(upgrade, "subgraphs.bank.service.migrations", self._postgres.dsn("postgres", _TEMPLATE))
        async with self._connect(_TEMPLATE) as sql:
            await sql.execute(_OPEN_ACCOUNTS, ACCOUNTS, OWNERS)
            await sql.execute(_HISTORY)
            await sql.execute("VACUUM ANALYZE")
        return version

    @asynccontextmanager
    async def create(self) -> AsyncIterator[Ledger]:
        """Create a ledger with high balances and a short history, and drop it on exit."""
        name = f"bench_{next(self._numbers)}"
        async with self._connect("postgres") as admin:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
            try:
                async with Ledger.open(self._postgres.dsn("postgres", name)) as ledger:
                    yield ledger
            finally:
                await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def _connect(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._postgres.dsn("postgres", database))
        try:
            yield connection
        finally:
            await connection.close()
