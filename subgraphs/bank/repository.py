"""All SQL of the ledger.

Statements go to PostgreSQL through asyncpg as they stand here: a batch takes the same few of them whatever its size.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from subgraphs.bank.domain import (
    Account,
    Decision,
    Entry,
    Key,
    Kind,
    Operation,
    Remembered,
    Status,
    Transfer,
)
from wallet.errors import BY_REASON, Unavailable, WalletError
from wallet.money import Money

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
"""A connection on loan from the pool."""

_CONNECT_SECONDS: Final = 3.0
_STATEMENT_SECONDS: Final = 5.0

_GONE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a COMMIT on a connection that was lost a moment before
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TransactionTimeoutError,
)
"""What a database that is away, or goes away in the middle, fails with."""

_LEADER_LOCK: Final = 7_708_141_928
_LEADER_SILENCE: Final = "10s"

_ACCOUNT: Final = """
    SELECT id, owner_id, currency, status, balance, min_balance, version, created_at, updated_at FROM accounts
"""

_OPERATION: Final = """
    SELECT {columns} t.id, t.kind, t.sender_id, t.recipient_id, t.amount, t.currency, t.created_at,
           t.sender_version, t.recipient_version, t.descriptor,
           s.balance_after AS sender_balance, r.balance_after AS recipient_balance
    FROM {source}
    JOIN entries s ON s.account_id = t.sender_id AND s.version = t.sender_version
    JOIN entries r ON r.account_id = t.recipient_id AND r.version = t.recipient_version
"""

_OPERATIONS_BY_ID: Final = _OPERATION.format(columns="", source="transfers t") + "WHERE t.id = ANY($1)"

_OPERATIONS_OF_ACCOUNT: Final = (
    _OPERATION.format(columns="", source="entries e JOIN transfers t ON t.id = e.transfer_id")
    + "WHERE e.account_id = $1 AND e.version > $2 ORDER BY e.version LIMIT $3"
)

_WAITING: Final = (
    _OPERATION.format(columns="o.id AS row_id,", source="outbox o JOIN transfers t ON t.id = o.transfer_id")
    + "ORDER BY o.id LIMIT $1"
)

_LOCK: Final = f"{_ACCOUNT} WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"

_RECALL: Final = """
    SELECT principal, operation, key, fingerprint, transfer_id, refusal FROM idempotency_keys
    WHERE (principal, operation, key) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
"""

_WRITE: Final = """
    WITH changed AS (
        UPDATE accounts SET balance = new.balance, version = new.version, updated_at = new.updated_at
        FROM unnest($1::uuid[], $2::numeric[], $3::bigint[], $4::timestamptz[])
            AS new (id, balance, version, updated_at)
        WHERE accounts.id = new.id
    ), made AS (
        INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                               sender_version, recipient_version, descriptor)
        SELECT * FROM unnest($5::uuid[], $6::text[], $7::uuid[], $8::uuid[], $9::numeric[], $10::text[],
                             $11::timestamptz[], $12::text[], $13::bigint[], $14::bigint[], $15::jsonb[])
    ), posted AS (
        INSERT INTO entries (account_id, version, transfer_id, amount, balance_after)
        SELECT * FROM unnest($16::uuid[], $17::bigint[], $18::uuid[], $19::numeric[], $20::numeric[])
    ), remembered AS (
        INSERT INTO idempotency_keys (principal, operation, key, fingerprint, transfer_id, refusal)
        SELECT * FROM unnest($21::text[], $22::text[], $23::text[], $24::bytea[], $25::uuid[], $26::jsonb[])
    )
    INSERT INTO outbox (transfer_id) SELECT id FROM unnest($5::uuid[]) WITH ORDINALITY AS o (id, n) ORDER BY n
"""


def open_pool(url: str, *, max_size: int) -> asyncpg.Pool:
    """A pool that connects when first used, so that a service may start before its database.

    The server ends what a frozen process holds: a transaction after its time-out, however the process came to hold it.
    """

    async def prepare(connection: asyncpg.Connection) -> None:
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda value: b"\x01" + orjson.dumps(value),
            decoder=lambda data: orjson.loads(data[1:]),
        )

    return asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_size,
        timeout=_CONNECT_SECONDS,
        command_timeout=_STATEMENT_SECONDS,
        init=prepare,
        server_settings={
            "application_name": "bank",
            "transaction_timeout": "10s",
            "idle_in_transaction_session_timeout": "5s",
        },
    )


@asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """A connection, for as long as the body takes.

    Raises:
        Unavailable: the database is away, or went away in the middle; what was being committed may or may not be.
    """
    try:
        async with pool.acquire(timeout=_CONNECT_SECONDS) as acquired:
            yield acquired
    except _GONE as error:
        raise Unavailable("the ledger's database") from error


class Reader:
    """Reads, each on its own: it sees what is committed."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def ping(self) -> None:
        """Returns when the database answers."""
        async with connection(self._pool) as reading:
            await reading.execute("SELECT 1")

    async def accounts(self, ids: Iterable[UUID]) -> dict[UUID, Account]:
        """Those of the accounts that exist."""
        async with connection(self._pool) as reading:
            rows = await reading.fetch(f"{_ACCOUNT} WHERE id = ANY($1)", list(ids))
        return {row["id"]: _account(row) for row in rows}

    async def operation(self, transfer_id: UUID) -> Operation | None:
        """One transfer with its entries."""
        async with connection(self._pool) as reading:
            row = await reading.fetchrow(_OPERATIONS_BY_ID, [transfer_id])
        return None if row is None else _operation(row)

    async def versions(self, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """The accounts after an id, in id order, with their versions."""
        query = "SELECT id, version FROM accounts WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2"
        async with connection(self._pool) as reading:
            return [(row["id"], row["version"]) for row in await reading.fetch(query, after, limit)]

    async def operations(self, account_id: UUID, after_version: int, limit: int) -> list[Operation]:
        """The account's operations after a version, in version order."""
        async with connection(self._pool) as reading:
            rows = await reading.fetch(_OPERATIONS_OF_ACCOUNT, account_id, after_version, limit)
        return [_operation(row) for row in rows]


class Conflict(Exception):
    """Another transaction was first, and this one is rolled back. Deciding the batch again settles it."""


@asynccontextmanager
async def transaction(pool: asyncpg.Pool) -> AsyncIterator["Batch"]:
    """A batch that is committed when the body ends, and rolled back when it raises.

    Raises:
        Conflict: nothing was done; another transaction used one of the keys first, or a deadlock was broken.
        Unavailable: the database is away; when it was lost at the commit, the outcome is unknown.
    """
    async with connection(pool) as writing:
        try:
            async with writing.transaction():
                yield Batch(writing)
        except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
            raise Conflict from error
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "idempotency_keys_pkey":
                raise
            raise Conflict from error


class Batch:
    """One transaction that decides commands: lock, recall, write, in this order."""

    def __init__(self, transaction: Connection) -> None:
        self._transaction = transaction

    async def lock(self, ids: Iterable[UUID]) -> dict[UUID, Account]:
        """Those of the accounts that exist, locked until the end of the transaction, in the order that all lock in."""
        return {row["id"]: _account(row) for row in await self._transaction.fetch(_LOCK, sorted(set(ids)))}

    async def recall(self, keys: Sequence[Key]) -> dict[Key, Remembered]:
        """Those of the keys that were used before. After `lock`, so that whoever held the accounts has committed."""
        columns = ([key.principal for key in keys], [key.operation for key in keys], [key.key for key in keys])
        rows = await self._transaction.fetch(_RECALL, *columns)
        made = [row["transfer_id"] for row in rows if row["transfer_id"] is not None]
        operations = await self._operations(made) if made else {}
        return {
            Key(row["principal"], row["operation"], row["key"]): Remembered(
                row["fingerprint"],
                operations[row["transfer_id"]] if row["refusal"] is None else _refusal_from(row["refusal"]),
            )
            for row in rows
        }

    async def write(self, decision: Decision, keys: Mapping[UUID, str]) -> None:
        """Everything that a decision leads to, in one statement.

        Args:
            decision: with at least one key to remember.
            keys: the idempotency key of each new operation, by transfer id.
        """
        changed, made = decision.accounts, [operation.transfer for operation in decision.operations]
        posted = [entry for operation in decision.operations for entry in (operation.sender, operation.recipient)]
        remembered = decision.remember.items()
        await self._transaction.execute(
            _WRITE,
            [account.id for account in changed],
            [account.balance.amount for account in changed],
            [account.version for account in changed],
            [account.updated_at for account in changed],
            [transfer.id for transfer in made],
            [transfer.kind for transfer in made],
            [transfer.sender_id for transfer in made],
            [transfer.recipient_id for transfer in made],
            [transfer.amount.amount for transfer in made],
            [transfer.amount.currency for transfer in made],
            [transfer.created_at for transfer in made],
            [keys[transfer.id] for transfer in made],
            [transfer.sender_version for transfer in made],
            [transfer.recipient_version for transfer in made],
            [transfer.descriptor or None for transfer in made],
            [entry.account_id for entry in posted],
            [entry.version for entry in posted],
            [entry.transfer_id for entry in posted],
            [entry.amount.amount for entry in posted],
            [entry.balance_after.amount for entry in posted],
            [key.principal for key, _ in remembered],
            [key.operation for key, _ in remembered],
            [key.key for key, _ in remembered],
            [value.fingerprint for _, value in remembered],
            [value.outcome.transfer.id if isinstance(value.outcome, Operation) else None for _, value in remembered],
            [None if isinstance(value.outcome, Operation) else _refusal_to(value.outcome) for _, value in remembered],
        )

    async def _operations(self, ids: Sequence[UUID]) -> dict[UUID, Operation]:
        rows = await self._transaction.fetch(_OPERATIONS_BY_ID, ids)
        return {row["id"]: _operation(row) for row in rows}


class Outbox:
    """What is committed and not yet published, read by one leader among the replicas.

    It lives on one session of its own. The server ends the session, and with it the leadership, when it hears nothing
    from it for `_LEADER_SILENCE`: a frozen leader does not stop the others.
    """

    def __init__(self, session: Connection) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def lead(cls, pool: asyncpg.Pool) -> AsyncIterator["Outbox | None"]:
        """The outbox, if nobody else leads; its leadership ends with the body.

        Raises:
            Unavailable: the database is away, or the session was ended.
        """
        async with connection(pool) as session:
            await session.execute(f"SET idle_session_timeout = '{_LEADER_SILENCE}'")
            leads = await session.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK)
            yield cls(session) if leads else None

    async def next(self, limit: int) -> list[tuple[int, Operation]]:
        """The oldest rows, in order, with what they are about."""
        rows = await self._session.fetch(_WAITING, limit)
        return [(row["row_id"], _operation(row)) for row in rows]

    async def remove(self, rows: Sequence[int]) -> None:
        """Forgets rows that were delivered."""
        await self._session.execute("DELETE FROM outbox WHERE id = ANY($1)", rows)

    async def backlog(self) -> int:
        """How many rows wait, counted up to 100,000."""
        return int(await self._session.fetchval("SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS waiting"))


def _account(row: asyncpg.Record) -> Account:
    return Account(
        row["id"],
        row["owner_id"],
        Status(row["status"]),
        Money(row["balance"], row["currency"]),
        row["min_balance"],
        row["version"],
        row["created_at"],
        row["updated_at"],
    )


def _operation(row: asyncpg.Record) -> Operation:
    amount = Money(row["amount"], row["currency"])

    def entry(side: str, signed: Money) -> Entry:
        balance = Money(row[f"{side}_balance"], row["currency"])
        return Entry(row[f"{side}_id"], row[f"{side}_version"], row["id"], signed, balance)

    transfer = Transfer(
        row["id"],
        Kind(row["kind"]),
        row["sender_id"],
        row["recipient_id"],
        amount,
        row["created_at"],
        row["sender_version"],
        row["recipient_version"],
        row["descriptor"] or {},
    )
    return Operation(transfer, entry("sender", -amount), entry("recipient", amount))


def _refusal_to(refusal: WalletError) -> dict[str, Any]:
    return {"reason": refusal.reason, "metadata": refusal.metadata()}


def _refusal_from(stored: Mapping[str, Any]) -> WalletError:
    return BY_REASON[stored["reason"]].from_metadata(stored["metadata"])
