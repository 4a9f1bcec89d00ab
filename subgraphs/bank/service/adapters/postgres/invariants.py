"""Invariants of the ledger as SQL.

Each statement except `_TOTALS` reads one page of a table and returns the violations on this page.

Concurrent commits cause no false alarms. One transaction writes a transfer with its accounts, entries, key and outbox
row. One statement sees one snapshot (READ COMMITTED), which has all of these rows or none. Each invariant compares rows
of one statement only. The exception is `TRANSFER_HAS_ONE_KEY`, which is checked only for transfers that were committed
before the check began.

A violation identifies its row without secrets: it shows no principal of an idempotency key.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import asyncpg

from kit.db.pool import Connection
from kit.db.postgres import MAX_CLOCK_SKEW_SECONDS
from kit.integrity.check import Violation
from subgraphs.bank.service.adapters.postgres.database import LABEL, connection
from wallet.errors import Unavailable

_PAGE_SECONDS: Final = 8
_TOTALS_SECONDS: Final = 60
_GRACE_SECONDS: Final = 1  # so that the server's own time-out comes first, with its error message


class Invariant(StrEnum):
    """Statements that are always true for a ledger.

    Together they prove that an account's balance is the sum of its opening balance and its entries: the first entry
    continues the opening balance, each entry continues the previous one, none is missing, and the last one has the
    account's balance.
    """

    BALANCE_IS_LAST_ENTRY = "BALANCE_IS_LAST_ENTRY"
    """An account's balance is the balance after its last entry; without entries, its opening balance."""
    VERSION_IS_LAST_ENTRY = "VERSION_IS_LAST_ENTRY"
    """An account's version is the version of its last entry; without entries, 0."""
    BALANCE_ABOVE_FLOOR = "BALANCE_ABOVE_FLOOR"
    """No balance is below the account's `min_balance`."""
    CLOSED_IS_EMPTY = "CLOSED_IS_EMPTY"
    """A closed account has balance 0."""

    REVISION_IS_LAST_CHANGE = "REVISION_IS_LAST_CHANGE"
    """An account's revision is that of its last recorded change; without one, 0. So no change is unrecorded."""
    ACCOUNT_IS_LAST_CHANGE = "ACCOUNT_IS_LAST_CHANGE"
    """An account has the state that its last recorded change has left."""
    FLOOR_IS_LAST_CHANGE = "FLOOR_IS_LAST_CHANGE"
    """An account has the floor that its last recorded change has left."""

    ENTRY_HAS_ACCOUNT = "ENTRY_HAS_ACCOUNT"
    """The account of every entry exists."""
    VERSIONS_HAVE_NO_GAP = "VERSIONS_HAVE_NO_GAP"
    """An account's entries have the versions 1, 2, 3, …"""
    BALANCE_ADDS_UP = "BALANCE_ADDS_UP"
    """An entry's balance is its amount plus the previous entry's balance, or plus the opening balance for version 1."""
    ENTRY_HAS_TRANSFER = "ENTRY_HAS_TRANSFER"
    """The transfer of every entry exists."""
    ENTRY_IS_OF_TRANSFER = "ENTRY_IS_OF_TRANSFER"
    """The transfer names the entry's account and version: as the sender's for a debit, else as the recipient's."""
    CURRENCY_IS_ACCOUNTS = "CURRENCY_IS_ACCOUNTS"
    """A transfer has the currency of both of its accounts."""
    TIME_FOLLOWS_VERSION = "TIME_FOLLOWS_VERSION"
    """An entry's transfer is not dated before the transfer of the account's previous entry."""
    ACCOUNT_NOT_IN_FUTURE = "ACCOUNT_NOT_IN_FUTURE"
    """No account was opened or changed later than now, by the clock of the database with a tolerance of 5 s."""
    TRANSFER_NOT_IN_FUTURE = "TRANSFER_NOT_IN_FUTURE"
    """No transfer is dated later than now, by the clock of the database with a tolerance of 5 s."""

    TRANSFER_HAS_ENTRIES = "TRANSFER_HAS_ENTRIES"
    """Both entries that a transfer names exist and belong to it."""
    TRANSFER_NETS_TO_ZERO = "TRANSFER_NETS_TO_ZERO"
    """The entries debit the sender and credit the recipient with the transfer's amount."""

    KEY_HAS_TRANSFER = "KEY_HAS_TRANSFER"
    """The transfer of an idempotency key exists."""
    KEY_IS_OF_TRANSFER = "KEY_IS_OF_TRANSFER"
    """The transfer of an idempotency key was made with this key."""
    TRANSFER_HAS_ONE_KEY = "TRANSFER_HAS_ONE_KEY"
    """Every transfer belongs to exactly one idempotency key."""

    WORDS_HAVE_TRANSFER = "WORDS_HAVE_TRANSFER"
    """The transfer of every row of words exists, and is from the row's account."""
    REFERENCE_IS_UNIQUE = "REFERENCE_IS_UNIQUE"
    """No earlier transfer from the account has the reference of a transfer that asked for a unique one."""

    OUTBOX_HAS_TRANSFER = "OUTBOX_HAS_TRANSFER"
    """The transfer of every outbox row exists."""
    TOTAL_IS_CONSERVED = "TOTAL_IS_CONSERVED"
    """The balances of a currency sum to the opening balances of its accounts."""


@dataclass(frozen=True, slots=True)
class TableScan:
    """Scan of one table in primary-key order, which checks the invariants of the rows.

    Attributes:
        table: name of the table.
        key: columns of its primary key.
        shown: columns of the key that reports may show.
        columns: columns that the invariants need.
        source: FROM clause that reads the columns; with `returns_transfer_ids`, the transfers' alias is `t`.
        violations: query that finds violations on the page. A comparison with a missing row is null and finds
            nothing: a missing row violates another invariant.
        returns_transfer_ids: whether a page returns the ids of its rows' transfers.
    """

    table: str
    key: str
    shown: str
    columns: str
    source: str
    violations: str
    returns_transfer_ids: bool = False

    def statement(self, *, first: bool) -> str:
        """Return the SQL of one page.

        `$1` is the page size; with transfer ids, `$2` is the fence (see `_TRANSFER_ID`). The other parameters are the
        primary key of the previous page's last row; the first page has none.
        """
        first_parameter = 3 if self.returns_transfer_ids else 2
        mark = ", ".join(f"${number}" for number, _ in enumerate(self.key.split(","), start=first_parameter))
        return _PAGE.format(
            columns=f"{self.columns}, {_TRANSFER_ID}" if self.returns_transfer_ids else self.columns,
            source=self.source,
            after="" if first else f"WHERE ({self.key}) > ({mark})",
            key=self.key,
            shown=self.shown,
            violations=self.violations,
            tolerance=f"{MAX_CLOCK_SKEW_SECONDS} s",
            transfer_ids="array_agg(checked_transfer_id) FILTER (WHERE checked_transfer_id IS NOT NULL)"
            if self.returns_transfer_ids
            else "NULL::uuid[]",
        )


# `present.latest` is the latest valid date. Without the tolerance, a server that replaces the primary and whose clock
# is a little behind would cause violations for a moment.
_PAGE: Final = """
    WITH page AS MATERIALIZED (
        SELECT {columns} FROM {source} {after} ORDER BY {key} LIMIT $1
    ), last AS (
        SELECT jsonb_build_array({key}) AS mark, concat_ws('/', {shown}) AS shown
        FROM page ORDER BY ({key}) DESC LIMIT 1
    ), present AS MATERIALIZED (
        SELECT clock_timestamp() + interval '{tolerance}' AS latest
    ), violation AS (
        {violations}
    )
    SELECT count(*) AS rows, (SELECT mark FROM last), (SELECT shown FROM last),
           (SELECT jsonb_agg(violation) FROM violation) AS violations, {transfer_ids} AS transfer_ids
    FROM page HAVING count(*) > 0
"""

# Keys and transfers have no common order, so each table is scanned on its own. The transfer ids of both tables are
# compared afterwards (`application.integrity`). Both scans must count the same transfers, even if commits happen
# between the scans.
# Whether a transfer counts depends on the transaction that wrote the sender's entry, because no statement updates an
# entry. The transfer's own row can be updated later, when its date is corrected, and this changes the row's `xmin`.
# The fence is the oldest transaction that was running when the check began. A transfer counts unless its entry was
# written by one of the 2**28 transactions (`_FENCED`) whose ids start at the fence. `age(xid)` grows with each new
# transaction, but the difference of two ages is the difference of the two ids, which never changes.
# Transaction ids have 32 bits and are used again. If an old transaction has an id in this range, its transfer does not
# count now; a later check, which has another fence, counts it.
_FENCED: Final = 2**28
_IS_FENCED: Final = f"((age($2::xid)::bigint - age({{xmin}})) & 4294967295) < {_FENCED}"
_WRITTEN_BY: Final = """
    coalesce((SELECT xmin FROM entries WHERE account_id = t.sender_id AND version = t.sender_version), t.xmin)
"""
_TRANSFER_ID: Final = f"CASE WHEN {_IS_FENCED.format(xmin=_WRITTEN_BY)} THEN NULL ELSE t.id END AS checked_transfer_id"

_ACCOUNTS: Final = TableScan(
    table="accounts",
    key="id",
    shown="id",
    columns="id, status, frozen, opening_balance, balance, min_balance, version, revision, created_at, updated_at",
    source="accounts",
    violations="""
        SELECT violated.*, jsonb_build_object('account_id', a.id) AS row
        FROM page a
        LEFT JOIN LATERAL (
            SELECT version, balance_after FROM entries WHERE account_id = a.id ORDER BY version DESC LIMIT 1
        ) AS last ON true
        LEFT JOIN LATERAL (
            SELECT revision, after FROM account_changes WHERE account_id = a.id ORDER BY revision DESC LIMIT 1
        ) AS change ON true
        CROSS JOIN LATERAL (
            SELECT 'BALANCE_IS_LAST_ENTRY', a.balance::text, coalesce(last.balance_after, a.opening_balance)::text
            WHERE a.balance <> coalesce(last.balance_after, a.opening_balance)
            UNION ALL
            SELECT 'VERSION_IS_LAST_ENTRY', a.version::text, coalesce(last.version, 0)::text
            WHERE a.version <> coalesce(last.version, 0)
            UNION ALL
            SELECT 'BALANCE_ABOVE_FLOOR', a.balance::text, 'at least ' || a.min_balance
            WHERE a.balance < a.min_balance
            UNION ALL
            SELECT 'CLOSED_IS_EMPTY', a.balance::text, '0'
            WHERE a.status = 'CLOSED' AND a.balance <> 0
            UNION ALL
            SELECT 'REVISION_IS_LAST_CHANGE', a.revision::text, coalesce(change.revision, 0)::text
            WHERE a.revision <> coalesce(change.revision, 0)
            UNION ALL
            SELECT 'ACCOUNT_IS_LAST_CHANGE', concat_ws(' ', a.status, a.frozen),
                   concat_ws(' ', change.after ->> 'status', change.after ->> 'frozen')
            WHERE (a.status, a.frozen) IS DISTINCT FROM (change.after ->> 'status', change.after ->> 'frozen')
                AND change.revision IS NOT NULL
            UNION ALL
            -- Changes by earlier releases recorded no floor.
            SELECT 'FLOOR_IS_LAST_CHANGE', a.min_balance::text, change.after ->> 'floor'
            WHERE change.after ? 'floor' AND a.min_balance IS DISTINCT FROM (change.after ->> 'floor')::numeric
            UNION ALL
            SELECT 'ACCOUNT_NOT_IN_FUTURE', greatest(a.created_at, a.updated_at)::text, 'not after ' || present.latest
            FROM present WHERE greatest(a.created_at, a.updated_at) > present.latest
        ) AS violated (invariant, found, expected)
    """,
)

# The statement looks up the previous entry of each row by version, so a page does not depend on the page before.
_ENTRIES: Final = TableScan(
    table="entries",
    key="account_id, version",
    shown="account_id, version",
    columns="account_id, version, transfer_id, amount, balance_after",
    source="entries",
    violations="""
        SELECT violated.*,
               jsonb_build_object('account_id', e.account_id, 'version', e.version, 'transfer_id', e.transfer_id) AS row
        FROM page e
        LEFT JOIN accounts a ON a.id = e.account_id
        LEFT JOIN transfers t ON t.id = e.transfer_id
        LEFT JOIN entries last ON last.account_id = e.account_id AND last.version = e.version - 1
        LEFT JOIN transfers earlier ON earlier.id = last.transfer_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN e.version = 1 THEN a.opening_balance ELSE last.balance_after END + e.amount AS balance
        ) AS due
        CROSS JOIN LATERAL (
            SELECT 'ENTRY_HAS_ACCOUNT', 'no account', 'the account'
            WHERE a.id IS NULL
            UNION ALL
            SELECT 'VERSIONS_HAVE_NO_GAP', 'no version ' || e.version - 1, 'version ' || e.version - 1
            WHERE e.version <> 1 AND last.version IS NULL
            UNION ALL
            SELECT 'BALANCE_ADDS_UP', e.balance_after::text, due.balance::text
            WHERE e.balance_after <> due.balance
            UNION ALL
            SELECT 'ENTRY_HAS_TRANSFER', 'no transfer', 'the transfer'
            WHERE t.id IS NULL
            UNION ALL
            SELECT 'ENTRY_IS_OF_TRANSFER',
                   format('%s %s/%s', CASE WHEN e.amount < 0 THEN 'from' ELSE 'to' END, e.account_id, e.version),
                   format('from %s/%s to %s/%s', t.sender_id, t.sender_version, t.recipient_id, t.recipient_version)
            WHERE (e.account_id, e.version, sign(e.amount))
                NOT IN ((t.sender_id, t.sender_version, -1), (t.recipient_id, t.recipient_version, 1))
            UNION ALL
            SELECT 'CURRENCY_IS_ACCOUNTS', t.currency, a.currency
            WHERE t.currency <> a.currency
            UNION ALL
            SELECT 'TIME_FOLLOWS_VERSION', t.created_at::text, 'not before ' || earlier.created_at
            WHERE t.created_at < earlier.created_at
        ) AS violated (invariant, found, expected)
    """,
)

TRANSFERS: Final = TableScan(
    table="transfers",
    key="id",
    shown="id",
    columns="id, sender_id, sender_version, recipient_id, recipient_version, amount, created_at",
    source="transfers t",
    violations="""
        SELECT violated.*, jsonb_build_object('transfer_id', t.id) AS row
        FROM page t
        CROSS JOIN LATERAL (
            VALUES (t.sender_id, t.sender_version, -t.amount), (t.recipient_id, t.recipient_version, t.amount)
        ) AS side (account_id, version, amount)
        LEFT JOIN entries e ON e.account_id = side.account_id AND e.version = side.version
        CROSS JOIN LATERAL (
            SELECT 'TRANSFER_HAS_ENTRIES', coalesce('an entry of ' || e.transfer_id, 'no entry'),
                   format('its entry %s/%s', side.account_id, side.version)
            WHERE e.transfer_id IS DISTINCT FROM t.id
            UNION ALL
            SELECT 'TRANSFER_NETS_TO_ZERO', format('%s on %s/%s', e.amount, e.account_id, e.version), side.amount::text
            WHERE e.transfer_id = t.id AND e.amount <> side.amount
        ) AS violated (invariant, found, expected)
        UNION ALL
        SELECT 'TRANSFER_NOT_IN_FUTURE', t.created_at::text, 'not after ' || present.latest,
               jsonb_build_object('transfer_id', t.id)
        FROM page t JOIN present ON t.created_at > present.latest
    """,
    returns_transfer_ids=True,
)

KEYS: Final = TableScan(
    table="idempotency_keys",
    key="principal, operation, key",
    shown="operation, key",
    columns="principal, operation, key, transfer_id, t.id AS existing_transfer_id, idempotency_key",
    source="idempotency_keys LEFT JOIN transfers t ON t.id = transfer_id",
    violations="""
        SELECT violated.*, jsonb_build_object('operation', operation, 'key', key, 'transfer_id', transfer_id) AS row
        FROM page
        CROSS JOIN LATERAL (
            SELECT 'KEY_HAS_TRANSFER', 'no transfer', 'the transfer'
            WHERE transfer_id IS NOT NULL AND existing_transfer_id IS NULL
            UNION ALL
            SELECT 'KEY_IS_OF_TRANSFER', key, idempotency_key
            WHERE key <> idempotency_key
        ) AS violated (invariant, found, expected)
    """,
    returns_transfer_ids=True,
)

_WORDS: Final = TableScan(
    table="transfer_words",
    key="transfer_id",
    shown="transfer_id",
    columns="transfer_id, sender_id, reference, is_reference_unique",
    source="transfer_words",
    violations="""
        SELECT violated.*, jsonb_build_object('transfer_id', w.transfer_id) AS row
        FROM page w
        LEFT JOIN transfers t ON t.id = w.transfer_id
        CROSS JOIN LATERAL (
            SELECT 'WORDS_HAVE_TRANSFER', coalesce('a transfer from ' || t.sender_id, 'no transfer'),
                   'a transfer from ' || w.sender_id
            WHERE t.sender_id IS DISTINCT FROM w.sender_id
            UNION ALL
            SELECT 'REFERENCE_IS_UNIQUE', 'also on the transfer ' || earlier.id, 'on no earlier transfer'
            FROM transfer_words AS other JOIN transfers AS earlier ON earlier.id = other.transfer_id
            WHERE w.is_reference_unique AND other.sender_id = w.sender_id AND other.reference = w.reference
                AND other.reference IS NOT NULL AND earlier.sender_version < t.sender_version
        ) AS violated (invariant, found, expected)
    """,
)

_OUTBOX: Final = TableScan(
    table="outbox",
    key="id",
    shown="id",
    columns="id, transfer_id",
    source="outbox",
    violations="""
        SELECT 'OUTBOX_HAS_TRANSFER' AS invariant, 'no transfer' AS found, 'the transfer' AS expected,
               jsonb_build_object('outbox_id', o.id, 'transfer_id', o.transfer_id) AS row
        FROM page o LEFT JOIN transfers t ON t.id = o.transfer_id
        WHERE t.id IS NULL
    """,
)

SCANS: Final = (_ACCOUNTS, _ENTRIES, TRANSFERS, KEYS, _WORDS, _OUTBOX)

# Not paged: between two pages, money could move from an account that is not read yet to one that was read, and would be
# missing in the sum. This is the only statement that takes longer with more accounts.
_TOTALS: Final = """
    SELECT 'TOTAL_IS_CONSERVED' AS invariant, jsonb_build_object('currency', currency) AS row,
           sum(balance)::text AS found, sum(opening_balance)::text AS expected
    FROM accounts GROUP BY currency HAVING sum(balance) <> sum(opening_balance) ORDER BY currency
"""

Mark = Sequence[str | int]
"""Values of a primary key."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of checked rows; at least one row.

    Attributes:
        rows: number of rows.
        mark: primary key of the last row; the next page continues after it.
        verified_up_to: the key in `mark` as text, without secret columns.
        violations: violations on the page.
        transfer_ids: ids of the rows' transfers that were committed before the check began; see `_TRANSFER_ID`.
    """

    rows: int
    mark: Mark
    verified_up_to: str
    violations: Sequence[Violation]
    transfer_ids: Sequence[UUID]


class InvariantReader:
    """Checks invariants on a separate session. Between two statements it holds no lock and no snapshot."""

    def __init__(self, session: Connection, fence: int) -> None:
        self._session = session
        self._fence = fence

    @classmethod
    @asynccontextmanager
    async def begin(cls, pool: asyncpg.Pool) -> AsyncIterator["InvariantReader"]:
        """Open a session. The reader's checks cover all rows that are committed now, and some that are committed later.

        Raises:
            Unavailable: the database is unreachable, the connection was lost, or a statement failed or timed out.
        """
        async with connection(pool) as session:
            try:
                # Use one core at most. The statement time-out makes a transaction time-out unnecessary.
                await session.execute(f"""
                    SET default_transaction_read_only = on;
                    SET max_parallel_workers_per_gather = 0;
                    SET transaction_timeout = 0;
                    SET statement_timeout = '{_PAGE_SECONDS}s';
                """)
                yield cls(session, await session.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::xid"))
            except asyncpg.PostgresError as error:
                raise Unavailable(LABEL) from error
            finally:
                session.terminate()  # with these settings it must not return to the pool

    async def check_page(self, scan: TableScan, after: Mark | None, limit: int) -> Page | None:
        """Check the rows after the primary key `after`, or the first rows. Return None if there are no more rows."""
        row = await self._session.fetchrow(
            scan.statement(first=after is None),
            *(limit, *((self._fence,) if scan.returns_transfer_ids else ()), *(after or ())),
            timeout=_PAGE_SECONDS + _GRACE_SECONDS,
        )
        if row is None:
            return None
        violations = [_violation_from_row(violation) for violation in row["violations"] or ()]
        return Page(row["rows"], row["mark"], row["shown"], violations, row["transfer_ids"] or ())

    async def check_fence(self) -> None:
        """Check that the fence is valid for all pages until now: fewer than `_FENCED` transactions began after it.

        Raises:
            Unavailable: the fence is not valid.
        """
        followed = await self._session.fetchval("SELECT age($1::xid)::bigint & 4294967295", self._fence)
        if followed >= _FENCED:
            raise Unavailable(LABEL) from OverflowError(f"{followed} transactions in one check")

    async def check_totals(self) -> list[Violation]:
        """Check `TOTAL_IS_CONSERVED` and return one violation for each currency that violates it."""
        await self._session.execute(f"SET statement_timeout = '{_TOTALS_SECONDS}s'; SET enable_seqscan = on")
        rows = await self._session.fetch(_TOTALS, timeout=_TOTALS_SECONDS + _GRACE_SECONDS)
        await self._session.execute(f"SET statement_timeout = '{_PAGE_SECONDS}s'; SET enable_seqscan = off")
        return [_violation_from_row(dict(row)) for row in rows]


def _violation_from_row(row: Mapping[str, Any]) -> Violation:
    return Violation(Invariant(row["invariant"]), row["row"], row["found"], row["expected"])
