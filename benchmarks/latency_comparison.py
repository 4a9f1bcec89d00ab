"""Latency of single transfers: through the bank, and through plain SQL that writes the same kinds of rows.

`python -m benchmarks.latency_comparison` reads a `LatencyComparison` from standard input, as one line of JSON, and
writes `ComparedLatencies`. Blocks of half a second alternate between the bank and SQL, so that interference affects
both equally.
"""

import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

import asyncpg
import orjson
import uvloop
from uuid_utils.compat import uuid7

from benchmarks import http2_client
from benchmarks.accounts import account_id, owner_id
from benchmarks.bank_load import BankLoad, prepare_requests
from benchmarks.load_generator import write_line
from loadtests.account_selection import zipf_pairs

_BLOCK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyComparison:
    """Input of this process.

    Attributes:
        target: gRPC target of the bank.
        tokens: one token per owner, in the order of `accounts.owner_id`.
        database_url: database of the bank, for SQL.
        accounts: number of accounts.
        seconds: duration of the comparison, without the first block of each side.
    """

    target: str
    tokens: Sequence[str]
    database_url: str
    accounts: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedLatencies:
    """Latencies in milliseconds of all transfers except those of the first block of each side.

    Attributes:
        bank_ms: latencies of transfers through the bank.
        sql_ms: latencies of transfers through SQL.
        acknowledged: number of transfers of both sides, including the first blocks.
    """

    bank_ms: Sequence[float]
    sql_ms: Sequence[float]
    acknowledged: int


async def transfer_by_sql(sql: asyncpg.Connection, sender: int, recipient: int) -> None:
    """Write one transfer with the statements of `pgbench.sql`, one after the other.

    asyncpg prepares each statement once.
    """
    ids = UUID(account_id(sender)), UUID(account_id(recipient))
    principal, key, transfer_id = f"bench|{owner_id(sender)}", secrets.token_hex(16), uuid7()
    await sql.execute("BEGIN")
    await sql.fetch(
        """
        SELECT id, owner_id, currency, status, balance, min_balance, version, updated_at FROM accounts
        WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE
        """,
        ids,
    )
    await sql.fetchrow(
        """
        SELECT fingerprint, transfer_id, refusal FROM idempotency_keys
        WHERE principal = $1 AND operation = 'transfer' AND key = $2
        """,
        principal,
        key,
    )
    update = """
        UPDATE accounts SET balance = balance + $2, version = version + 1, updated_at = now() WHERE id = $1
        RETURNING version, balance
    """
    ((sender_version, sender_balance),) = await sql.fetch(update, ids[0], -1)
    ((recipient_version, recipient_balance),) = await sql.fetch(update, ids[1], 1)
    await sql.execute(
        """
        INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                               sender_version, recipient_version)
        VALUES ($1, 'TRANSFER', $2, $3, 1, 'RUB', now(), $4, $5, $6)
        """,
        transfer_id,
        *ids,
        key,
        sender_version,
        recipient_version,
    )
    await sql.execute(
        """
        INSERT INTO entries (account_id, version, transfer_id, amount, balance_after)
        VALUES ($1, $2, $5, -1, $3), ($4, $6, $5, 1, $7)
        """,
        ids[0],
        sender_version,
        sender_balance,
        ids[1],
        transfer_id,
        recipient_version,
        recipient_balance,
    )
    await sql.execute(
        """
        INSERT INTO idempotency_keys (principal, operation, key, fingerprint, transfer_id)
        VALUES ($1, 'transfer', $2, $3, $4)
        """,
        principal,
        key,
        secrets.token_bytes(32),
        transfer_id,
    )
    await sql.execute("INSERT INTO outbox (transfer_id) VALUES ($1)", transfer_id)
    await sql.execute("COMMIT")


async def compare_latencies(comparison: LatencyComparison) -> ComparedLatencies:
    """Measure both sides in alternating blocks."""
    load = BankLoad(targets=[comparison.target], tokens=comparison.tokens, accounts=comparison.accounts, in_flight=1)
    requests = prepare_requests(load)
    pairs = zipf_pairs(random.Random(), comparison.accounts, skew=0.0)  # noqa: S311  not used for secrets
    sql = await asyncpg.connect(comparison.database_url)

    async def measure_bank() -> list[float]:
        deadline = time.monotonic() + _BLOCK_SECONDS
        calls = await http2_client.call_repeatedly(comparison.target, requests, 1, deadline)
        return [(call.ended - call.started) * 1_000 for call in calls]

    async def measure_sql() -> list[float]:
        latencies = []
        deadline = time.perf_counter() + _BLOCK_SECONDS
        while (started := time.perf_counter()) < deadline:
            await transfer_by_sql(sql, *next(pairs))
            latencies.append((time.perf_counter() - started) * 1_000)
        return latencies

    warm_up_transfers = len(await measure_bank()) + len(await measure_sql())
    bank_ms: list[float] = []
    sql_ms: list[float] = []
    deadline = time.monotonic() + comparison.seconds
    while time.monotonic() < deadline:
        bank_ms += await measure_bank()
        sql_ms += await measure_sql()
    await sql.close()
    return ComparedLatencies(
        bank_ms=bank_ms, sql_ms=sql_ms, acknowledged=len(bank_ms) + len(sql_ms) + warm_up_transfers
    )


def main() -> None:
    """Read the comparison from standard input and write its result."""
    comparison = LatencyComparison(**orjson.loads(sys.stdin.readline()))
    write_line(orjson.dumps(asdict(uvloop.run(compare_latencies(comparison)))))


if __name__ == "__main__":
    main()
