"""The transaction that moves money: the same few statements whatever the size of the batch."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import asyncpg

from subgraphs.bank.service.adapters.postgres.database import Connection, connection
from subgraphs.bank.service.adapters.postgres.rows import ACCOUNT, TRANSFERS_BY_ID, account_of, transfer_of
from subgraphs.bank.service.domain.model import Account, Command, Decision, Key, Remembered, Transfer
from wallet.errors import ERRORS_BY_REASON, Unavailable, WalletError

# Where it locks, accounts come as they are when all of them are locked. Keys come as they were when the statement
# began: one that another transaction has used since is found when it is inserted, and that is a `Conflict`.
_READ: Final = """
    WITH named AS MATERIALIZED ({accounts} WHERE id = ANY($1) ORDER BY id {lock})
    SELECT named.*, NULL AS principal, NULL AS operation, NULL AS key,
           NULL::bytea AS fingerprint, NULL::uuid AS transfer_id, NULL::jsonb AS refusal
    FROM named
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, used.*
    FROM unnest($2::text[], $3::text[], $4::text[]) AS mine (principal, operation, key),
    LATERAL (
        SELECT principal, operation, key, fingerprint, transfer_id, refusal FROM idempotency_keys AS k
        WHERE (k.principal, k.operation, k.key) = (mine.principal, mine.operation, mine.key)
        OFFSET 0  -- key by key, never the other way round: no plan made while the table was small may scan it
    ) AS used
"""
_READ_ONLY: Final = _READ.format(accounts=ACCOUNT, lock="")
_READ_AND_LOCK: Final = _READ.format(accounts=ACCOUNT, lock="FOR NO KEY UPDATE")

# Amounts travel as text: asyncpg encodes a Decimal five times slower than a str.
_WRITE: Final = """
    WITH still AS MATERIALIZED ({still}), changed AS (
        UPDATE accounts SET balance = new.balance, version = new.version, updated_at = new.updated_at
        FROM unnest($1::uuid[], $2::text[]::numeric[], $3::bigint[], $4::timestamptz[])
            AS new (id, balance, version, updated_at)
        WHERE accounts.id = new.id AND (SELECT holds FROM still)
    ), new AS (
        SELECT * FROM unnest($5::uuid[], $6::text[], $7::text[]::numeric[], $8::text[], $9::timestamptz[], $10::text[],
                             $11::uuid[], $12::bigint[], $13::text[]::numeric[],
                             $14::uuid[], $15::bigint[], $16::text[]::numeric[], $17::jsonb[], $18::text[])
            WITH ORDINALITY
            AS new (id, kind, amount, currency, created_at, idempotency_key,
                    sender_id, sender_version, sender_balance,
                    recipient_id, recipient_version, recipient_balance, descriptor, traceparent, place)
        WHERE (SELECT holds FROM still)
    ), made AS (
        INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                               sender_version, recipient_version, descriptor)
        SELECT id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
               sender_version, recipient_version, descriptor
        FROM new
    ), posted AS (
        INSERT INTO entries (account_id, version, transfer_id, amount, balance_after)
        SELECT sender_id, sender_version, id, -amount, sender_balance FROM new
        UNION ALL
        SELECT recipient_id, recipient_version, id, amount, recipient_balance FROM new
    ), remembered AS (
        INSERT INTO idempotency_keys (principal, operation, key, fingerprint, transfer_id, refusal)
        SELECT * FROM unnest($19::text[], $20::text[], $21::text[], $22::bytea[], $23::uuid[], $24::jsonb[])
        WHERE (SELECT holds FROM still)
    ), announced AS (
        INSERT INTO outbox (transfer_id, traceparent) SELECT id, traceparent FROM new ORDER BY place
    )
    SELECT holds FROM still
"""
_WRITE_LOCKED: Final = _WRITE.format(still="SELECT true AS holds")

# For accounts that were only read: locks them, and writes if they are as they were.
_WRITE_IF_UNCHANGED: Final = _WRITE.format(
    still="""
        SELECT count(*) = cardinality($25::uuid[]) AS holds
        FROM (SELECT id, version, status FROM accounts WHERE id = ANY($25) ORDER BY id FOR NO KEY UPDATE) AS now
        JOIN unnest($25::uuid[], $26::bigint[], $27::text[]) AS seen (id, version, status) USING (id, version, status)
    """
)


class Conflict(Exception):
    """Another transaction was first, and this one is rolled back. Deciding the batch again settles it."""


class Lost(Exception):
    """The connection was lost in the middle, and the transaction may yet turn out to be committed. Deciding the batch
    again waits for that: the old transaction still holds the accounts and the keys, until it is gone.
    """


@asynccontextmanager
async def transaction(pool: asyncpg.Pool) -> AsyncIterator["Batch"]:
    """A batch that locks what it reads, is committed when the body ends, and rolled back when it raises.

    Raises:
        Conflict: nothing was done; another transaction used one of the keys first, or a deadlock was broken.
        Lost: it is not known what was done.
        Unavailable: nothing was done; the database is away.
    """
    begun = False
    with _failures():
        try:
            async with connection(pool) as session, session.transaction():
                begun = True
                yield Batch(session, locks=True)
        except Unavailable as error:
            if begun:
                raise Lost from error
            raise


@asynccontextmanager
async def attempt(pool: asyncpg.Pool) -> AsyncIterator["Batch"]:
    """A batch that reads without locks, and is committed by its write if what it has read is still so. It takes two
    round trips where `transaction` takes four, and is for a lone command: where there are many, what was read is soon
    old.

    Raises:
        Conflict, Lost, Unavailable: as `transaction`; what was read being old is a conflict, too.
    """
    batch = None
    with _failures():
        try:
            async with connection(pool) as session:
                batch = Batch(session, locks=False)
                yield batch
        except Unavailable as error:
            if batch is not None and batch.is_writing:
                raise Lost from error
            raise


@contextmanager
def _failures() -> Iterator[None]:
    """What PostgreSQL says when another transaction was first, as `Conflict`."""
    try:
        yield
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
        raise Conflict from error
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "idempotency_keys_pkey":
            raise
        raise Conflict from error


class Batch:
    """Decides commands: read, then write."""

    def __init__(self, session: Connection, *, locks: bool) -> None:
        self._session = session
        self._locks = locks
        self._seen: Sequence[Account] = ()
        self._traceparents: dict[UUID, str] = {}
        self.is_writing = False

    async def read(self, commands: Sequence[Command]) -> tuple[dict[UUID, Account], dict[Key, Remembered]]:
        """The accounts that the commands name and that exist; locked, if at all, until the end of the transaction, in
        the order that all lock in. And what is remembered of those of the keys that were used before.
        """
        ids = {id_ for command in commands for id_ in (command.sender_id, command.recipient_id)}
        keys = [command.key for command in commands]
        self._traceparents = {each.transfer_id: each.traceparent for each in commands if each.traceparent is not None}
        rows = await self._session.fetch(
            _READ_AND_LOCK if self._locks else _READ_ONLY,
            sorted(ids),
            [key.principal for key in keys],
            [key.operation for key in keys],
            [key.key for key in keys],
        )
        accounts = {row["id"]: account_of(row) for row in rows if row["key"] is None}
        self._seen = list(accounts.values())
        return accounts, await self._remembered(rows[len(accounts) :]) if len(rows) > len(accounts) else {}

    async def _remembered(self, rows: Sequence[asyncpg.Record]) -> dict[Key, Remembered]:
        made = [row["transfer_id"] for row in rows if row["transfer_id"] is not None]
        found = await self._session.fetch(TRANSFERS_BY_ID, made) if made else ()
        transfers = {row["id"]: transfer_of(row) for row in found}
        return {
            Key(row["principal"], row["operation"], row["key"]): Remembered(
                row["fingerprint"],
                transfers[row["transfer_id"]] if row["refusal"] is None else _refusal_from(row["refusal"]),
            )
            for row in rows
        }

    async def write(self, decision: Decision) -> None:
        """Everything that a decision with something to remember leads to, in one statement.

        Keys go in in one order, as accounts are locked in one: of two batches that share keys one waits for the other,
        and never both.
        """
        changed, made = decision.accounts, decision.transfers
        keys = sorted(decision.remember, key=attrgetter("principal", "operation", "key"))
        remembered = [decision.remember[key] for key in keys]
        seen = self._seen
        self.is_writing = True
        holds = await self._session.fetchval(
            _WRITE_LOCKED if self._locks else _WRITE_IF_UNCHANGED,
            [account.id for account in changed],
            [str(account.balance) for account in changed],
            [account.version for account in changed],
            [account.updated_at for account in changed],
            [transfer.id for transfer in made],
            [transfer.kind for transfer in made],
            [str(transfer.amount) for transfer in made],
            [transfer.amount.currency for transfer in made],
            [transfer.created_at for transfer in made],
            [transfer.idempotency_key for transfer in made],
            [transfer.sender.account_id for transfer in made],
            [transfer.sender.version for transfer in made],
            [str(transfer.sender.balance_after) for transfer in made],
            [transfer.recipient.account_id for transfer in made],
            [transfer.recipient.version for transfer in made],
            [str(transfer.recipient.balance_after) for transfer in made],
            [transfer.descriptor or None for transfer in made],
            [self._traceparents.get(transfer.id) for transfer in made],
            [key.principal for key in keys],
            [key.operation for key in keys],
            [key.key for key in keys],
            [each.fingerprint for each in remembered],
            [each.outcome.id if isinstance(each.outcome, Transfer) else None for each in remembered],
            [None if isinstance(each.outcome, Transfer) else _refusal_to(each.outcome) for each in remembered],
            *(() if self._locks else ([a.id for a in seen], [a.version for a in seen], [a.status for a in seen])),
        )
        if not holds:
            raise Conflict


def _refusal_to(refusal: WalletError) -> dict[str, Any]:
    return {"reason": refusal.reason, "metadata": refusal.metadata()}


def _refusal_from(stored: Mapping[str, Any]) -> WalletError:
    return ERRORS_BY_REASON[stored["reason"]].from_metadata(stored["metadata"])
