"""The ledger's laws as SQL: a statement reads one page of rows and answers with what breaks a law.

Commits beside it are no false alarm. A transfer is written with its accounts, entries, key and outbox row in one
transaction; a statement sees one snapshot (READ COMMITTED), so all of it or nothing; and whatever a law compares is
read by one statement. The one law that cannot be, `TRANSFER_HAS_ONE_KEY`, is held to what was there before the proof.

A row that breaks a law is identified without a secret: of a key's scope, the caller is left out.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import asyncpg

from kit.integrity.check import Violation
from subgraphs.bank.service.adapters.postgres.database import Connection, connection
from wallet.errors import Unavailable

_PAGE_SECONDS: Final = 8
_TOTALS_SECONDS: Final = 60
_GRACE_SECONDS: Final = 1  # the server ends a statement first, and says so


class Law(StrEnum):
    """What holds of every ledger at every moment.

    Together they prove that an account's balance is its opening balance and all its entries: the first entry starts
    from the opening balance, each continues the one before it, none is missing, and the last one is the account's.
    """

    BALANCE_IS_LAST_ENTRY = "BALANCE_IS_LAST_ENTRY"
    """An account holds what its last entry left; without entries, its opening balance."""
    VERSION_IS_LAST_ENTRY = "VERSION_IS_LAST_ENTRY"
    """An account's version is its last entry's; without entries, 0."""
    BALANCE_ABOVE_FLOOR = "BALANCE_ABOVE_FLOOR"
    """No balance is below the account's `min_balance`."""
    CLOSED_IS_EMPTY = "CLOSED_IS_EMPTY"
    """A closed account holds nothing."""

    ENTRY_HAS_ACCOUNT = "ENTRY_HAS_ACCOUNT"
    """The account of every entry is there."""
    VERSIONS_HAVE_NO_GAP = "VERSIONS_HAVE_NO_GAP"
    """An account's entries are versions 1, 2, 3, …"""
    BALANCE_ADDS_UP = "BALANCE_ADDS_UP"
    """An entry leaves what the one before it left and its amount; the first one starts from the opening balance."""
    ENTRY_HAS_TRANSFER = "ENTRY_HAS_TRANSFER"
    """The transfer of every entry is there."""
    ENTRY_IS_OF_TRANSFER = "ENTRY_IS_OF_TRANSFER"
    """The transfer names the entry's account and version: as the sender's if it debits, else as the recipient's."""
    CURRENCY_IS_ACCOUNTS = "CURRENCY_IS_ACCOUNTS"
    """A transfer is in the currency of both of its accounts."""
    TIME_FOLLOWS_VERSION = "TIME_FOLLOWS_VERSION"
    """No transfer of an account is dated before the one of the version before."""

    TRANSFER_HAS_ENTRIES = "TRANSFER_HAS_ENTRIES"
    """Both entries that a transfer names are there and its own."""
    TRANSFER_NETS_TO_ZERO = "TRANSFER_NETS_TO_ZERO"
    """They take its amount from the sender and give it to the recipient."""

    KEY_HAS_TRANSFER = "KEY_HAS_TRANSFER"
    """The transfer that an idempotency key led to is there."""
    KEY_IS_OF_TRANSFER = "KEY_IS_OF_TRANSFER"
    """And was made with this key."""
    TRANSFER_HAS_ONE_KEY = "TRANSFER_HAS_ONE_KEY"
    """Every transfer is what one key led to."""

    OUTBOX_HAS_TRANSFER = "OUTBOX_HAS_TRANSFER"
    """What waits to be published is there."""
    TOTAL_IS_CONSERVED = "TOTAL_IS_CONSERVED"
    """The balances of a currency add up to what its accounts opened with."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A table, from its first row to its last by primary key, with the laws that each of its rows must keep.

    Attributes:
        table: what is walked.
        key: the columns of its primary key.
        shown: those of them that anybody may see.
        columns: what the laws need.
        source: the table, and what its rows need to be read with; where `pairs` is set, transfers are `t`.
        broken: finds what breaks a law on the page. A comparison with a row that is missing is null, and so no finding:
            that the row is missing is a law of its own.
        pairs: whether the page tells the transfers that its rows stand for.
    """

    table: str
    key: str
    shown: str
    columns: str
    source: str
    broken: str
    pairs: bool = False

    def statement(self, *, first: bool) -> str:
        """One page, of at most `$1` rows; with pairs, `$2` is the fence. The other parameters are the primary key of
        the row to go on after; the first page has none.
        """
        mark = ", ".join(f"${place}" for place, _ in enumerate(self.key.split(","), start=3 if self.pairs else 2))
        return _PAGE.format(
            columns=f"{self.columns}, {_PAIR}" if self.pairs else self.columns,
            source=self.source,
            after="" if first else f"WHERE ({self.key}) > ({mark})",
            key=self.key,
            shown=self.shown,
            broken=self.broken,
            pairs="array_agg(pair) FILTER (WHERE pair IS NOT NULL)" if self.pairs else "NULL::uuid[]",
        )


_PAGE: Final = """
    WITH page AS MATERIALIZED (
        SELECT {columns} FROM {source} {after} ORDER BY {key} LIMIT $1
    ), last AS (
        SELECT jsonb_build_array({key}) AS mark, concat_ws('/', {shown}) AS shown
        FROM page ORDER BY ({key}) DESC LIMIT 1
    ), broken AS (
        {broken}
    )
    SELECT count(*) AS rows, (SELECT mark FROM last), (SELECT shown FROM last),
           (SELECT jsonb_agg(broken) FROM broken) AS broken, {pairs} AS pairs
    FROM page HAVING count(*) > 0
"""

# Keys and transfers have no order in common, so each side is walked on its own and tallied (see `integrity`). Both must
# count the same transfers, whatever is committed between them. So what decides is in the transfer's row alone: whether
# the transaction that wrote it, with its key, had ended when the proof began. It had if it is older than the fence, the
# oldest transaction that was running then; a negative age is a full turn of the transaction counter ago.
_PAIR: Final = "CASE WHEN age(t.xmin) NOT BETWEEN 0 AND age($2::xid) THEN t.id END AS pair"

_ACCOUNTS: Final = Walk(
    table="accounts",
    key="id",
    shown="id",
    columns="id, status, opening_balance, balance, min_balance, version",
    source="accounts",
    broken="""
        SELECT law.*, jsonb_build_object('account_id', a.id) AS row
        FROM page a
        LEFT JOIN LATERAL (
            SELECT version, balance_after FROM entries WHERE account_id = a.id ORDER BY version DESC LIMIT 1
        ) AS last ON true
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
        ) AS law (law, found, expected)
    """,
)

# The one before is looked up by its version rather than carried from row to row: no page leans on another.
_ENTRIES: Final = Walk(
    table="entries",
    key="account_id, version",
    shown="account_id, version",
    columns="account_id, version, transfer_id, amount, balance_after",
    source="entries",
    broken="""
        SELECT law.*,
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
        ) AS law (law, found, expected)
    """,
)

TRANSFERS: Final = Walk(
    table="transfers",
    key="id",
    shown="id",
    columns="id, sender_id, sender_version, recipient_id, recipient_version, amount",
    source="transfers t",
    broken="""
        SELECT law.*, jsonb_build_object('transfer_id', t.id) AS row
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
        ) AS law (law, found, expected)
    """,
    pairs=True,
)

KEYS: Final = Walk(
    table="idempotency_keys",
    key="principal, operation, key",
    shown="operation, key",
    columns="principal, operation, key, transfer_id, t.id AS made, idempotency_key",
    source="idempotency_keys LEFT JOIN transfers t ON t.id = transfer_id",
    broken="""
        SELECT law.*, jsonb_build_object('operation', operation, 'key', key, 'transfer_id', transfer_id) AS row
        FROM page
        CROSS JOIN LATERAL (
            SELECT 'KEY_HAS_TRANSFER', 'no transfer', 'the transfer'
            WHERE transfer_id IS NOT NULL AND made IS NULL
            UNION ALL
            SELECT 'KEY_IS_OF_TRANSFER', key, idempotency_key
            WHERE key <> idempotency_key
        ) AS law (law, found, expected)
    """,
    pairs=True,
)

_OUTBOX: Final = Walk(
    table="outbox",
    key="id",
    shown="id",
    columns="id, transfer_id",
    source="outbox",
    broken="""
        SELECT 'OUTBOX_HAS_TRANSFER' AS law, 'no transfer' AS found, 'the transfer' AS expected,
               jsonb_build_object('outbox_id', o.id, 'transfer_id', o.transfer_id) AS row
        FROM page o LEFT JOIN transfers t ON t.id = o.transfer_id
        WHERE t.id IS NULL
    """,
)

WALKS: Final = (_ACCOUNTS, _ENTRIES, TRANSFERS, KEYS, _OUTBOX)

# Not by pages: between two of them money moves from an account that is not yet read to one that was. It is the one
# statement that grows, with the number of accounts.
_TOTALS: Final = """
    SELECT 'TOTAL_IS_CONSERVED' AS law, jsonb_build_object('currency', currency) AS row,
           sum(balance)::text AS found, sum(opening_balance)::text AS expected
    FROM accounts GROUP BY currency HAVING sum(balance) <> sum(opening_balance) ORDER BY currency
"""

Mark = Sequence[str | int]
"""A primary key."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows that were checked; at least one.

    Attributes:
        rows: how many.
        mark: the last of them, which the next page goes on after.
        verified_up_to: the same, to be shown.
        violations: of the page's rows.
        pairs: the transfers that the rows stand for, of those that were there before the proof.
    """

    rows: int
    mark: Mark
    verified_up_to: str
    violations: Sequence[Violation]
    pairs: Sequence[UUID]


class Proof:
    """Reads the ledger on one session of its own. Between two statements it holds no lock and no snapshot."""

    def __init__(self, session: Connection, fence: int) -> None:
        self._session = session
        self._fence = fence

    @classmethod
    @asynccontextmanager
    async def begin(cls, pool: asyncpg.Pool) -> AsyncIterator["Proof"]:
        """A proof of all that is committed now; of what is committed later it sees some.

        Raises:
            Unavailable: the database is away, or goes away in the middle, or cannot run a statement in time or at all.
        """
        async with connection(pool) as session:
            try:
                # It takes one core at most, and no compiler. The statement's time-out does for the transaction's.
                await session.execute(f"""
                    SET default_transaction_read_only = on;
                    SET max_parallel_workers_per_gather = 0;
                    SET jit = off;
                    SET transaction_timeout = 0;
                    SET statement_timeout = '{_PAGE_SECONDS}s';
                """)
                yield cls(session, await session.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::xid"))
            except asyncpg.PostgresError as error:
                raise Unavailable("the ledger's database") from error
            finally:
                session.terminate()  # nobody else may get it like this

    async def page(self, walk: Walk, after: Mark | None, limit: int) -> Page | None:
        """The rows after a mark, or the first ones, checked; None: there are no more."""
        row = await self._session.fetchrow(
            walk.statement(first=after is None),
            *(limit, *((self._fence,) if walk.pairs else ()), *(after or ())),
            timeout=_PAGE_SECONDS + _GRACE_SECONDS,
        )
        if row is None:
            return None
        violations = [_violation_of(broken) for broken in row["broken"] or ()]
        return Page(row["rows"], row["mark"], row["shown"], violations, row["pairs"] or ())

    async def totals(self) -> list[Violation]:
        """The currencies whose accounts do not add up."""
        await self._session.execute(f"SET statement_timeout = '{_TOTALS_SECONDS}s'; SET enable_seqscan = on")
        rows = await self._session.fetch(_TOTALS, timeout=_TOTALS_SECONDS + _GRACE_SECONDS)
        await self._session.execute(f"SET statement_timeout = '{_PAGE_SECONDS}s'; SET enable_seqscan = off")
        return [_violation_of(dict(row)) for row in rows]


def _violation_of(row: Mapping[str, Any]) -> Violation:
    return Violation(Law(row["law"]), row["row"], row["found"], row["expected"])
