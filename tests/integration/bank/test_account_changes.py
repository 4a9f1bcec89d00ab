"""Changes of an account that are not operations, between the read and the write of a single transfer."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from subgraphs.bank.service.adapters.postgres.batch import Conflict, optimistic_batch
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.domain import rules
from subgraphs.bank.service.domain.model import Command, IdempotencyKey, TransferKind
from tests.databases import CleanDatabases
from tests.integration.bank.harness import RunningBank, count_rows, rub

CHANGES = {
    "closed": "UPDATE accounts SET status = 'CLOSED' WHERE id = $1",
    "closed and opened again": "UPDATE accounts SET status = status WHERE id = $1",
    "floor": "UPDATE accounts SET min_balance = -1 WHERE id = $1",
    "no floor": "UPDATE accounts SET min_balance = NULL WHERE id = $1",
    "owner": "UPDATE accounts SET owner_id = 'mallory' WHERE id = $1",
    "currency": "UPDATE accounts SET currency = 'USD' WHERE id = $1",
}
"""A change of each column that the rules of transfers read, apart from those that an operation changes."""


@pytest.fixture(scope="module")
async def pool(ledgers: CleanDatabases) -> AsyncIterator[asyncpg.Pool]:
    async with ledgers.one() as url, open_pool(url, max_size=2) as pool:
        yield pool


async def open_account(pool: asyncpg.Pool, owner: str, min_balance: int) -> UUID:
    statement = "INSERT INTO accounts (owner_id, min_balance) VALUES ($1, $2) RETURNING id"
    opened: UUID = await pool.fetchval(statement, owner, min_balance)
    return opened


async def commit_with_change(pool: asyncpg.Pool, command: Command, change: str, account_id: UUID) -> None:
    """Commit a transfer as a single command, and change an account between its read and its write."""
    async with optimistic_batch(pool) as batch:
        state = await batch.read([command])
        decision = rules.decide(state.accounts, state.records, [command], state.now)
        assert decision.transfers
        await pool.execute(change, account_id)
        await batch.write(decision)


class TestRevision:
    @pytest.mark.parametrize("changed", ["sender", "recipient"])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_change_between_read_and_write_is_a_conflict(
        self, pool: asyncpg.Pool, change: str, changed: str
    ) -> None:
        accounts = {
            "sender": await open_account(pool, "alice", -10),
            "recipient": await open_account(pool, "bob", 0),
        }
        command = Command(
            uuid7(),
            TransferKind.TRANSFER,
            accounts["sender"],
            accounts["recipient"],
            rub("1"),
            IdempotencyKey("alice", "transfer", str(uuid4())),
            "alice",
            {},
        )
        before = await count_rows(pool)
        with pytest.raises(Conflict):
            await commit_with_change(pool, command, CHANGES[change], accounts[changed])
        assert await count_rows(pool) == before

    async def test_operation_does_not_change_the_revision(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        await bank.user("alice")(bank.client.transfer(sender, recipient, rub("1"), str(uuid4())))
        assert [(await bank.row(each))["revision"] for each in (sender, recipient)] == [0, 0]

    async def test_closing_raises_the_revision(self, bank: RunningBank) -> None:
        account = await bank.open("alice", "0")
        await bank.user("alice")(bank.client.close_account(account))
        await bank.user("alice")(bank.client.close_account(account))
        assert (await bank.row(account))["revision"] == 1
