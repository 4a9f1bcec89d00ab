"""A history, and what may befall it."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.domain.rows import rows_of
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.world import World

STRANGER = UUID("99999999-9999-4999-8999-999999999999")


@dataclass(frozen=True)
class People:
    """Two accounts, each with five operations: a top-up, then four transfers of 10 from Alice to Bob."""

    alice: UUID
    bob: UUID


async def people(world: World) -> People:
    """All of them stored, as the topic would have it."""
    alice, bob = world.bank.open(), world.bank.open("bob")
    events = [world.bank.transfer(CLEARING, alice, "500.00"), world.bank.transfer(CLEARING, bob, "50.00")]
    events += [world.bank.transfer(alice, bob) for _ in range(4)]
    await world.history.insert([row for event in events for row in rows_of(event)])
    return People(alice, bob)


async def row_of(history: History, account_id: UUID, version: int) -> Row:
    """The row as it is read."""
    (row,) = await history.after(account_id, version - 1, 1)
    return row


async def command(database: Database, statement: str) -> None:
    async with database._connected() as client:
        await client.command(statement, settings={"mutations_sync": 2})


Damage = Callable[[World, People], Awaitable[list[str]]]
"""Does it, and says what a proof should."""


def deleted(version: int) -> Damage:
    async def damage(world: World, people: People) -> list[str]:
        row = await row_of(world.history, people.alice, version)
        where = f"account_id = '{people.alice}' AND account_version = {version}"
        await command(world.database, f"ALTER TABLE operations DELETE WHERE {where}")
        place = f"account_id {people.alice}, version {version}"
        return [f"OPERATION_IS_STORED: {place}: found nothing, expected operation_id {row.operation_id}, "]

    return damage


def updated(column: str, value: str, found: str, expected: str) -> Damage:
    async def damage(world: World, people: People) -> list[str]:
        where = f"account_id = '{people.alice}' AND account_version = 3"
        await command(world.database, f"ALTER TABLE operations UPDATE {column} = {value} WHERE {where}")
        expected_now = expected.format(bob=people.bob)
        return [
            f"COPY_IS_LEDGERS: account_id {people.alice}, version 3: found {found}, expected {expected_now}",
        ]

    return damage


def stored_again(**changes: Any) -> Damage:
    """A second copy, that says something else."""

    async def damage(world: World, people: People) -> list[str]:
        row = await row_of(world.history, people.alice, 3)
        await world.history.insert([replace(row, **changes)])
        return [
            f"COPY_IS_LEDGERS: account_id {people.alice}, version 3: found amount 11, expected amount 10",
        ]

    return damage


async def overtaken_copy(world: World, people: People) -> list[str]:
    """The wrong copy is there, and is not the one that is read."""
    row = await row_of(world.history, people.alice, 3)
    await world.history.insert([replace(row, amount=Decimal(11))])
    await world.history.insert([row])
    return [f"COPY_IS_LEDGERS: account_id {people.alice}, version 3: found amount 11, expected amount 10"]


async def beyond(world: World, people: People) -> list[str]:
    """Rows of another ledger that has the same account."""
    row = await row_of(world.history, people.alice, 5)
    later = [replace(row, account_version=version, operation_id=uuid.uuid4()) for version in (0, 6, 9)]
    await world.history.insert(later)
    return [
        f"VERSION_IS_LEDGERS: account_id {people.alice}, version {row.account_version}: "
        f"found operation_id {row.operation_id}, "
        for row in later
    ]


async def foreign(world: World, people: People) -> list[str]:
    """Rows of another ledger."""
    row = await row_of(world.history, people.alice, 5)
    rows = [replace(row, account_id=STRANGER, account_version=version) for version in (1, 2)]
    await world.history.insert(rows)
    return [
        f"ACCOUNT_IS_LEDGERS: account_id {STRANGER}, version {version}: found operation_id {row.operation_id}, "
        for version in (1, 2)
    ]


async def emptied(world: World, people: People) -> list[str]:
    await command(world.database, "TRUNCATE TABLE operations")
    return [
        f"OPERATION_IS_STORED: account_id {account}, version {version}: found nothing, expected operation_id "
        for account, count in ((people.alice, 5), (people.bob, 5), (CLEARING, 2))
        for version in range(1, count + 1)
    ]


DAMAGES: dict[str, Damage] = {
    "deleted in the middle": deleted(3),
    "deleted at the end": deleted(5),
    "all deleted": emptied,
    "another amount": updated("amount", "11", "amount 11", "amount 10"),
    "another balance": updated("balance_after", "balance_after - 1", "balance_after 479", "balance_after 480"),
    "another counterparty": updated(
        "counterparty_id", f"'{STRANGER}'", f"counterparty_id {STRANGER}", "counterparty_id {bob}"
    ),
    "another in all the rest": updated(
        "currency = 'USD', type = 'TOP_UP', direction = 'IN', occurred_at",
        "toDateTime64('2026-01-02 03:04:08.678902', 6, 'UTC')",
        "type TOP_UP, direction IN, currency USD, occurred_at 2026-01-02T03:04:08.678902+00:00",
        "type TRANSFER, direction OUT, currency RUB, occurred_at 2026-01-02T03:04:08.678901+00:00",
    ),
    "another copy": stored_again(amount=Decimal(11)),
    "another copy that is not read": overtaken_copy,
    "versions beyond the ledger's": beyond,
    "a foreign account": foreign,
}
