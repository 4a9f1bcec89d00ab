"""One caller at a time: the bank, and the same rows by hand; `python -m benchmarks.latency_comparison`.

It reads a `Duel` from its standard input, one line of JSON, and writes a `Latencies`. Blocks of the one and of the
other take turns, so that whatever the machine does meanwhile is done to both.
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

from benchmarks import http2_client, load_generator
from benchmarks.accounts import account_id, owner_id
from benchmarks.bank_load import Load, prepare
from loadtests.account_selection import zipf_pairs

_BLOCK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """What is compared: a bank at a gRPC target, by its customers' tokens, and SQL on the same database."""

    target: str
    tokens: Sequence[str]
    database_url: str
    accounts: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Of every transfer but those of the first block of each side."""

    bank_ms: Sequence[float]
    plain_ms: Sequence[float]
    acknowledged: int


async def plain(sql: asyncpg.Connection, sender: int, recipient: int) -> None:
    """One transfer, as `pgbench.sql` makes it: a statement after the other, each prepared once by asyncpg."""
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
    move = """
        UPDATE accounts SET balance = balance + $2, version = version + 1, updated_at = now() WHERE id = $1
        RETURNING version, balance
    """
    ((sender_version, sender_balance),) = await sql.fetch(move, ids[0], -1)
    ((recipient_version, recipient_balance),) = await sql.fetch(move, ids[1], 1)
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


async def duel(between: Duel) -> Latencies:
    """Both sides in turns."""
    load = Load(targets=[between.target], tokens=between.tokens, accounts=between.accounts, in_flight=1)
    requests = prepare(load)
    chance = zipf_pairs(random.Random(), between.accounts, skew=0.0)  # noqa: S311  chance, no secret
    sql = await asyncpg.connect(between.database_url)

    async def ask() -> list[float]:
        calls = await http2_client.keep_calling(between.target, requests, 1, time.monotonic() + _BLOCK_SECONDS)
        return [(call.ended - call.began) * 1_000 for call in calls]

    async def write() -> list[float]:
        took = []
        until = time.perf_counter() + _BLOCK_SECONDS
        while (began := time.perf_counter()) < until:
            await plain(sql, *next(chance))
            took.append((time.perf_counter() - began) * 1_000)
        return took

    warmed = len(await ask()) + len(await write())
    banks: list[float] = []
    plains: list[float] = []
    until = time.monotonic() + between.seconds
    while time.monotonic() < until:
        banks += await ask()
        plains += await write()
    await sql.close()
    return Latencies(bank_ms=banks, plain_ms=plains, acknowledged=len(banks) + len(plains) + warmed)


def main() -> None:
    """One conversation with whoever started it."""
    line = sys.stdin.readline()
    latencies = uvloop.run(duel(Duel(**orjson.loads(line))))
    load_generator.answer(orjson.dumps(asdict(latencies)))


if __name__ == "__main__":
    main()
