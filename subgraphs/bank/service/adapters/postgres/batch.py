"""Transactions that move money. The number of statements does not depend on the size of the batch."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from kit.db.pool import Connection, transaction
from kit.db.postgres import CONFIRM_COMMITS, READ_ONLY_ERRORS, REFUSED_ERRORS
from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.adapters.postgres.rows import (
    ACCOUNT,
    ACCOUNT_COLUMNS,
    TRANSFERS_BY_ID,
    account_from_row,
    transfer_from_row,
)
from subgraphs.bank.service.domain.model import (
    Account,
    Command,
    Decision,
    IdempotencyKey,
    IdempotencyRecord,
    Transfer,
)
from subgraphs.bank.service.domain.words import Words
from wallet.errors import ERRORS_BY_REASON, Unavailable, WalletError

# A locking read returns the state of the accounts at the time when all of them are locked. It returns the state of the
# keys at the start of the statement. If another transaction has inserted a key since then, our insert of the key fails,
# which is a `Conflict`.
# The last row has the server's time, which is read after the accounts are locked.
_READ: Final = """
    WITH named AS MATERIALIZED ({accounts} WHERE id = ANY($1) ORDER BY id {lock})
    SELECT named.*, NULL AS principal, NULL AS operation, NULL AS key,
           NULL::bytea AS fingerprint, NULL::uuid AS transfer_id, NULL::jsonb AS refusal, NULL::timestamptz AS now
    FROM named
    UNION ALL
    SELECT {no_account}, used.*, NULL
    FROM unnest($2::text[], $3::text[], $4::text[]) AS wanted (principal, operation, key),
    LATERAL (
        SELECT principal, operation, key, fingerprint, transfer_id, refusal FROM idempotency_keys AS k
        WHERE (k.principal, k.operation, k.key) = (wanted.principal, wanted.operation, wanted.key)
        OFFSET 0  -- one index look-up per key, also with a plan that was made while the table was small
    ) AS used
    UNION ALL
    SELECT {no_account}, NULL, NULL, NULL, NULL, NULL, NULL, clock_timestamp()
"""
_NO_ACCOUNT: Final = ", ".join(["NULL"] * ACCOUNT_COLUMNS)
_READ_ONLY: Final = _READ.format(accounts=ACCOUNT, lock="", no_account=_NO_ACCOUNT)
_READ_AND_LOCK: Final = _READ.format(accounts=ACCOUNT, lock="FOR NO KEY UPDATE", no_account=_NO_ACCOUNT)

# Amounts are sent as text: asyncpg encodes a Decimal five times slower than a str.
_WRITE: Final = """
    WITH precondition AS MATERIALIZED ({precondition}), changed AS (
        UPDATE accounts SET balance = new.balance, version = new.version, updated_at = new.updated_at
        FROM unnest($1::uuid[], $2::text[]::numeric[], $3::bigint[], $4::timestamptz[])
            AS new (id, balance, version, updated_at)
        WHERE accounts.id = new.id AND (SELECT holds FROM precondition)
    ), new AS (
        SELECT * FROM unnest($5::uuid[], $6::text[], $7::text[]::numeric[], $8::text[], $9::timestamptz[], $10::text[],
                             $11::uuid[], $12::bigint[], $13::text[]::numeric[],
                             $14::uuid[], $15::bigint[], $16::text[]::numeric[], $17::jsonb[], $18::text[])
            WITH ORDINALITY
            AS new (id, kind, amount, currency, created_at, idempotency_key,
                    sender_id, sender_version, sender_balance,
                    recipient_id, recipient_version, recipient_balance, descriptor, traceparent, place)
        WHERE (SELECT holds FROM precondition)
    ), inserted AS (
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
    ), recorded AS (
        INSERT INTO idempotency_keys (principal, operation, key, fingerprint, transfer_id, refusal)
        SELECT * FROM unnest($19::text[], $20::text[], $21::text[], $22::bytea[], $23::uuid[], $24::jsonb[])
        WHERE (SELECT holds FROM precondition)
    ), announced AS (
        INSERT INTO outbox (transfer_id, traceparent) SELECT id, traceparent FROM new ORDER BY place
    ){words}
    SELECT holds FROM precondition
"""

# Only the statements of batches with words have this part, so that other batches pay nothing for it.
_WORDS: Final = """, worded AS (
        INSERT INTO transfer_words (transfer_id, sender_id, description, reference, is_reference_unique, metadata,
                                    created_by)
        SELECT * FROM unnest({parameters}) WHERE (SELECT holds FROM precondition)
    )"""
_WORD_TYPES: Final = ("uuid", "uuid", "text", "text", "boolean", "jsonb", "text")


def _words_part(first: int) -> str:
    """Return the part of the statement that writes words. Its first parameter has the number `first`."""
    parameters = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(_WORD_TYPES, first))
    return _WORDS.format(parameters=parameters)


_ALWAYS: Final = "SELECT true AS holds"
_WRITE_LOCKED: Final = _WRITE.format(precondition=_ALWAYS, words="")
_WRITE_LOCKED_WITH_WORDS: Final = _WRITE.format(precondition=_ALWAYS, words=_words_part(25))

# Optimistic write: locks the accounts that were read without locks, and writes only if they did not change. Operations
# change the version, other changes the revision. `updated_at` is compared, too, because a redating (a correction of
# dates) changes the dates of accounts only.
_UNCHANGED: Final = """
        SELECT count(*) = cardinality($25::uuid[]) AS holds
        FROM (
            SELECT id, version, revision, updated_at FROM accounts WHERE id = ANY($25) ORDER BY id FOR NO KEY UPDATE
        ) AS locked
        JOIN unnest($25::uuid[], $26::bigint[], $27::bigint[], $28::timestamptz[])
            AS wanted (id, version, revision, updated_at) USING (id, version, revision, updated_at)
    """
_WRITE_IF_UNCHANGED: Final = _WRITE.format(precondition=_UNCHANGED, words="")
_WRITE_IF_UNCHANGED_WITH_WORDS: Final = _WRITE.format(precondition=_UNCHANGED, words=_words_part(29))

# Executed after the accounts are read. In a locking batch, no other batch can add a transfer from these accounts then.
# In an optimistic batch, such a transfer changes the sender's version, which the write compares.
_USED_REFERENCES: Final = """
    SELECT wanted.sender_id, wanted.reference
    FROM unnest($1::uuid[], $2::text[]) AS wanted (sender_id, reference),
    LATERAL (
        SELECT FROM transfer_words AS w
        WHERE w.sender_id = wanted.sender_id AND w.reference = wanted.reference AND w.reference IS NOT NULL
        LIMIT 1
    ) AS used
"""


class Conflict(Exception):
    """Nothing was committed; decide the batch again.

    A concurrent transaction changed the same accounts or keys, or the session refused writes.
    """


class CommitOutcomeUnknown(Exception):
    """The connection was lost during the transaction, which may still commit.

    Deciding the batch again is safe: the new transaction waits for the old one, which holds the locks of the accounts
    and of the keys.
    """


@asynccontextmanager
async def locking_batch(pool: asyncpg.Pool) -> AsyncIterator["Batch"]:
    """Open a batch that locks the accounts it reads. It commits at the end of the body and rolls back on an error.

    Raises:
        Conflict: nothing was committed; a concurrent transaction used one of the keys, there was a deadlock, or the
            session refused writes.
        CommitOutcomeUnknown: the connection was lost after the transaction began.
        Unavailable: nothing was committed; the database is unreachable, or its disk is full.
    """
    begun = False
    with _conflicts():
        try:
            async with connection(pool) as session, transaction(session):
                begun = True
                yield Batch(session, locks=True)
        except Unavailable as error:
            if begun and not _is_refused(error):
                raise CommitOutcomeUnknown from error
            raise


@asynccontextmanager
async def optimistic_batch(pool: asyncpg.Pool) -> AsyncIterator["Batch"]:
    """Open a batch that reads without locks. Its write commits only if the accounts did not change since the read.

    It takes two round trips instead of the four of `locking_batch`. Use it for a single command: with many commands,
    some account usually changes between read and write.

    Raises:
        Conflict: as for `locking_batch`, or an account changed since the read.
        CommitOutcomeUnknown: the connection was lost after `Batch.write` or `Batch.confirm` began.
        Unavailable: nothing was committed; the database is unreachable, or its disk is full.
    """
    batch = None
    with _conflicts():
        try:
            async with connection(pool) as session:
                batch = Batch(session, locks=False)
                yield batch
        except Unavailable as error:
            if batch is not None and batch.is_writing and not _is_refused(error):
                raise CommitOutcomeUnknown from error
            raise


@contextmanager
def _conflicts() -> Iterator[None]:
    """Convert PostgreSQL's errors for concurrent changes, and for a session that refuses writes, to `Conflict`."""
    try:
        yield
    except Unavailable as error:
        if isinstance(error.__cause__, READ_ONLY_ERRORS):  # the next session may accept the write
            raise Conflict from error
        raise
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
        raise Conflict from error
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name not in {"idempotency_keys_pkey", "transfer_words_unique_reference"}:
            raise
        raise Conflict from error


def _is_refused(error: Unavailable) -> bool:
    """Return whether the server refused the write, so that the outcome is known: nothing was committed."""
    return isinstance(error.__cause__, READ_ONLY_ERRORS + REFUSED_ERRORS)


class LedgerState(NamedTuple):
    """State of the ledger that a batch decides on.

    Attributes:
        accounts: existing accounts that the commands name.
        records: records of the keys that were used before.
        now: time of the database's clock, read after the accounts. No earlier operation on these accounts is dated
            later than `now`, unless the clock was set back or an account changes before the commit.
        references: senders and references of the commands that need a unique reference, as far as a transfer has them.
    """

    accounts: dict[UUID, Account]
    records: dict[IdempotencyKey, IdempotencyRecord]
    now: datetime
    references: AbstractSet[tuple[UUID, str]] = frozenset()


class Batch:
    """One batch of commands on a session: `read` once, then `write` or `confirm` once."""

    def __init__(self, session: Connection, *, locks: bool) -> None:
        self._session = session
        self._locks = locks
        self._accounts_read: Sequence[Account] = ()
        self._traceparents: dict[UUID, str] = {}
        self.is_writing = False

    async def read(self, commands: Sequence[Command]) -> LedgerState:
        """Return the accounts that the commands name, the records of their keys, and the database's time.

        A locking batch locks the accounts until the end of the transaction, in id order, so that batches cannot
        deadlock.
        """
        ids = {id_ for command in commands for id_ in (command.sender_id, command.recipient_id)}
        keys = [key for command in commands for key in command.stored_keys if key is not None]
        self._traceparents = {each.transfer_id: each.traceparent for each in commands if each.traceparent is not None}
        rows = await self._session.fetch(
            _READ_AND_LOCK if self._locks else _READ_ONLY,
            sorted(ids),
            [key.principal for key in keys],
            [key.operation for key in keys],
            [key.key for key in keys],
        )
        now = rows.pop()["now"]
        accounts = {row["id"]: account_from_row(row) for row in rows if row["key"] is None}
        self._accounts_read = list(accounts.values())
        records = await self._records_from_rows(rows[len(accounts) :]) if len(rows) > len(accounts) else {}
        unique = [
            (each.sender_id, each.words.reference)
            for each in commands
            if each.words is not None and each.words.is_reference_unique
        ]
        references = await self._find_used_references(unique) if unique else frozenset()
        return LedgerState(accounts, records, now, references)

    async def _find_used_references(self, wanted: Sequence[tuple[UUID, str]]) -> AbstractSet[tuple[UUID, str]]:
        ids, references = zip(*wanted, strict=True)
        rows = await self._session.fetch(_USED_REFERENCES, ids, references)
        return {(row["sender_id"], row["reference"]) for row in rows}

    async def _records_from_rows(self, rows: Sequence[asyncpg.Record]) -> dict[IdempotencyKey, IdempotencyRecord]:
        ids = [row["transfer_id"] for row in rows if row["transfer_id"] is not None]
        transfer_rows = await self._session.fetch(TRANSFERS_BY_ID, ids) if ids else ()
        transfers = {row["id"]: transfer_from_row(row) for row in transfer_rows}
        return {
            IdempotencyKey(row["principal"], row["operation"], row["key"]): IdempotencyRecord(
                row["fingerprint"], transfers[row["transfer_id"]], row["transfer_id"]
            )
            if row["refusal"] is None
            else _refused_record_from_json(row["fingerprint"], row["refusal"])
            for row in rows
        }

    async def write(self, decision: Decision) -> None:
        """Write a decision that has new records, in one statement.

        The statement inserts the keys in a fixed order, so that two batches with common keys cannot deadlock.

        Raises:
            Conflict: an account changed since an optimistic read; nothing was written.
        """
        changed, transfers = decision.accounts, decision.transfers
        keys = sorted(decision.new_records, key=attrgetter("principal", "operation", "key"))
        records = [decision.new_records[key] for key in keys]
        words = [(transfer, transfer.words) for transfer in transfers if transfer.words is not None]
        if words:
            statement = _WRITE_LOCKED_WITH_WORDS if self._locks else _WRITE_IF_UNCHANGED_WITH_WORDS
        else:
            statement = _WRITE_LOCKED if self._locks else _WRITE_IF_UNCHANGED
        self.is_writing = True
        holds = await self._session.fetchval(
            statement,
            [account.id for account in changed],
            [str(account.balance) for account in changed],
            [account.version for account in changed],
            [account.updated_at for account in changed],
            [transfer.id for transfer in transfers],
            [transfer.kind for transfer in transfers],
            [str(transfer.amount) for transfer in transfers],
            [transfer.amount.currency for transfer in transfers],
            [transfer.created_at for transfer in transfers],
            [transfer.idempotency_key for transfer in transfers],
            [transfer.sender.account_id for transfer in transfers],
            [transfer.sender.version for transfer in transfers],
            [str(transfer.sender.balance_after) for transfer in transfers],
            [transfer.recipient.account_id for transfer in transfers],
            [transfer.recipient.version for transfer in transfers],
            [str(transfer.recipient.balance_after) for transfer in transfers],
            [transfer.descriptor or None for transfer in transfers],
            [self._traceparents.get(transfer.id) for transfer in transfers],
            [key.principal for key in keys],
            [key.operation for key in keys],
            [key.key for key in keys],
            [record.fingerprint for record in records],
            [record.outcome.id if isinstance(record.outcome, Transfer) else None for record in records],
            [None if isinstance(record.outcome, Transfer) else _refusal_to_json(record) for record in records],
            *(() if self._locks else _precondition(self._accounts_read)),
            *(_word_columns(words) if words else ()),
        )
        if not holds:
            raise Conflict

    async def confirm(self) -> None:
        """Wait until the synchronous standbys, if there are any, have the records that `read` returned.

        Call it for a decision without new records. A decision with new records needs no such wait: its own commit waits
        for the standbys, which then also have the records that were committed before.
        """
        self.is_writing = True
        await self._session.execute(CONFIRM_COMMITS)


def _word_columns(words: Sequence[tuple[Transfer, Words]]) -> tuple[list[Any], ...]:
    """Return the parameters of `_WORDS`."""
    return (
        [transfer.id for transfer, _ in words],
        [transfer.sender.account_id for transfer, _ in words],
        [each.description or None for _, each in words],
        [each.reference or None for _, each in words],
        [each.is_reference_unique for _, each in words],
        [dict(each.metadata) or None for _, each in words],
        [each.created_by for _, each in words],
    )


def _precondition(read: Sequence[Account]) -> tuple[list[Any], ...]:
    """Return the last parameters of `_WRITE_IF_UNCHANGED`."""
    return [a.id for a in read], [a.version for a in read], [a.revision for a in read], [a.updated_at for a in read]


def _refusal_to_json(record: IdempotencyRecord) -> dict[str, Any]:
    assert isinstance(record.outcome, WalletError)  # noqa: S101  the other outcome is a transfer
    refusal = record.outcome
    return {"reason": refusal.reason, "metadata": refusal.metadata(), "transfer_id": str(record.transfer_id)}


def _refused_record_from_json(fingerprint: bytes, stored: Mapping[str, Any]) -> IdempotencyRecord:
    refusal = ERRORS_BY_REASON[stored["reason"]].from_metadata(stored["metadata"])
    transfer_id = stored.get("transfer_id")  # earlier releases did not store it
    return IdempotencyRecord(fingerprint, refusal, None if transfer_id is None else UUID(transfer_id))
