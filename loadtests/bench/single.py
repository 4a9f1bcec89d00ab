"""One caller at a time: the bank, and the same rows by hand; `python -m loadtests.bench.single`.

It reads a `Duel` from its standard input, one line of JSON, and writes a `Latencies`. Blocks of the one and of the
other take turns, so that whatever the machine does meanwhile is done to both.
"""

import random
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import grpc
import orjson
import uvloop
from google.type.money_pb2 import Money
from uuid_utils.compat import uuid7

from loadtests.bench.accounts import account_id, owner_id, pairs
from loadtests.bench.load import TIMEOUT_SECONDS
from protos.bank.v1 import bank_pb2, bank_pb2_grpc

_BLOCK_SECONDS: Final = 0.5
_ONE: Final = Money(currency_code="RUB", units=1)


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
    """One transfer, as `reference.sql` makes it: a statement after the other, each prepared once by asyncpg."""
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
    chance = pairs(random.Random(), between.accounts, skew=0.0)  # noqa: S311  chance, no secret
    metadata = [(("authorization", f"Bearer {token}"),) for token in between.tokens]
    sql = await asyncpg.connect(between.database_url)
    async with grpc.aio.insecure_channel(between.target) as channel:
        stub: Any = bank_pb2_grpc.BankServiceStub(channel)

        async def ask(sender: int, recipient: int) -> None:
            request = bank_pb2.TransferMoneyRequest(
                sender_id=account_id(sender),
                recipient_id=account_id(recipient),
                amount=_ONE,
                idempotency_key=secrets.token_hex(16),
            )
            await stub.TransferMoney(request, metadata=metadata[sender % len(metadata)], timeout=TIMEOUT_SECONDS)

        async def write(sender: int, recipient: int) -> None:
            await plain(sql, sender, recipient)

        warmed = [len(await _block(transfer, chance)) for transfer in (ask, write)]
        banks: list[float] = []
        plains: list[float] = []
        until = time.monotonic() + between.seconds
        while time.monotonic() < until:
            banks += await _block(ask, chance)
            plains += await _block(write, chance)
    await sql.close()
    return Latencies(bank_ms=banks, plain_ms=plains, acknowledged=len(banks) + len(plains) + sum(warmed))


async def _block(transfer: Callable[[int, int], Awaitable[None]], chance: Iterator[tuple[int, int]]) -> list[float]:
    """Milliseconds of each transfer."""
    took = []
    until = time.perf_counter() + _BLOCK_SECONDS
    while (began := time.perf_counter()) < until:
        await transfer(*next(chance))
        took.append((time.perf_counter() - began) * 1_000)
    return took


def main() -> None:
    """One conversation with whoever started it."""
    line = sys.stdin.readline()
    latencies = uvloop.run(duel(Duel(**orjson.loads(line))))
    sys.stdout.write(orjson.dumps(asdict(latencies)).decode() + "\n")


if __name__ == "__main__":
    main()
