"""A stored history, and ways to damage it."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.clickhouse.table import COLUMNS, columns_from_rows
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.domain.rows import rows_from_event
from tests.integration.analytics.environment import AnalyticsEnvironment
from tests.integration.analytics.fake_bank import CLEARING

UNKNOWN_ACCOUNT = UUID("99999999-9999-4999-8999-999999999999")


@dataclass(frozen=True)
class Accounts:
    """Two accounts, each with five operations: a top-up, then four transfers of 10 from Alice to Bob."""

    alice: UUID
    bob: UUID


async def open_accounts(env: AnalyticsEnvironment) -> Accounts:
    """Make operations of two accounts, and store their rows."""
    alice, bob = env.bank.open(), env.bank.open("bob")
    events = [env.bank.transfer(CLEARING, alice, "500.00"), env.bank.transfer(CLEARING, bob, "50.00")]
    events += [env.bank.transfer(alice, bob) for _ in range(4)]
    await env.history.insert([row for event in events for row in rows_from_event(event)])
    return Accounts(alice, bob)


async def read_row(history: History, account_id: UUID, version: int) -> Row:
    """Return the row that reads of the history return for a version."""
    (row,) = await history.list_after(account_id, version - 1, 1)
    return row


async def command(database: Database, statement: str) -> None:
    async with database._connected() as client:
        await client.command(statement, settings={"mutations_sync": 2})


async def insert_in_one_part(database: Database, rows: Sequence[Row]) -> None:
    """Insert rows as one part of the table. All of them stay stored until a merge, although some replace others."""
    async with database._connected() as client:
        await client.insert(
            "operations",
            columns_from_rows(rows),
            column_names=list(COLUMNS),
            column_oriented=True,
            settings={"async_insert": 0, "optimize_on_insert": 0},
        )


Damage = Callable[[AnalyticsEnvironment, Accounts], Awaitable[list[str]]]
"""Function that damages the history, and returns the violations that the integrity check must report."""


def delete_version(version: int) -> Damage:
    async def damage(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
        row = await read_row(env.history, accounts.alice, version)
        where = f"account_id = '{accounts.alice}' AND account_version = {version}"
        await command(env.database, f"ALTER TABLE operations DELETE WHERE {where}")
        place = f"account_id {accounts.alice}, version {version}"
        return [f"OPERATION_IS_STORED: {place}: found nothing, expected operation_id {row.operation_id}, "]

    return damage


def update_version_3(column: str, value: str, found: str, expected: str) -> Damage:
    async def damage(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
        where = f"account_id = '{accounts.alice}' AND account_version = 3"
        await command(env.database, f"ALTER TABLE operations UPDATE {column} = {value} WHERE {where}")
        expected_now = expected.format(bob=accounts.bob)
        return [
            f"COPY_IS_LEDGERS: account_id {accounts.alice}, version 3: found {found}, expected {expected_now}",
        ]

    return damage


def insert_another_copy(**changes: Any) -> Damage:
    """Return a function that inserts a second copy of a row with other values."""

    async def damage(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
        row = await read_row(env.history, accounts.alice, 3)
        await env.history.insert([replace(row, **changes)])
        return [
            f"COPY_IS_LEDGERS: account_id {accounts.alice}, version 3: found amount 11, expected amount 10",
        ]

    return damage


async def insert_wrong_and_correct_copy(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
    """Insert a wrong copy, then the correct copy, which reads return."""
    row = await read_row(env.history, accounts.alice, 3)
    await env.history.insert([replace(row, amount=Decimal(11))])
    await env.history.insert([row])
    return [f"COPY_IS_LEDGERS: account_id {accounts.alice}, version 3: found amount 11, expected amount 10"]


async def insert_versions_beyond_the_ledger(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
    """Insert versions that the ledger does not have."""
    row = await read_row(env.history, accounts.alice, 5)
    later = [replace(row, account_version=version, operation_id=uuid.uuid4()) for version in (0, 6, 9)]
    await env.history.insert(later)
    return [
        f"VERSION_IS_LEDGERS: account_id {accounts.alice}, version {row.account_version}: "
        f"found operation_id {row.operation_id}, "
        for row in later
    ]


async def insert_rows_of_an_unknown_account(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
    """Insert rows of an account that the ledger does not have."""
    row = await read_row(env.history, accounts.alice, 5)
    rows = [replace(row, account_id=UNKNOWN_ACCOUNT, account_version=version) for version in (1, 2)]
    await env.history.insert(rows)
    return [
        f"ACCOUNT_IS_LEDGERS: account_id {UNKNOWN_ACCOUNT}, version {version}: found operation_id {row.operation_id}, "
        for version in (1, 2)
    ]


async def delete_all(env: AnalyticsEnvironment, accounts: Accounts) -> list[str]:
    await command(env.database, "TRUNCATE TABLE operations")
    return [
        f"OPERATION_IS_STORED: account_id {account}, version {version}: found nothing, expected operation_id "
        for account, count in ((accounts.alice, 5), (accounts.bob, 5), (CLEARING, 2))
        for version in range(1, count + 1)
    ]


DAMAGES: dict[str, Damage] = {
    "deleted in the middle": delete_version(3),
    "deleted at the end": delete_version(5),
    "all deleted": delete_all,
    "another amount": update_version_3("amount", "11", "amount 11", "amount 10"),
    "another balance": update_version_3("balance_after", "balance_after - 1", "balance_after 479", "balance_after 480"),
    "another counterparty": update_version_3(
        "counterparty_id", f"'{UNKNOWN_ACCOUNT}'", f"counterparty_id {UNKNOWN_ACCOUNT}", "counterparty_id {bob}"
    ),
    "other values in all other columns": update_version_3(
        "currency = 'USD', type = 'TOP_UP', direction = 'IN', occurred_at",
        "toDateTime64('2026-01-02 03:04:08.678902', 6, 'UTC')",
        "type TOP_UP, direction IN, currency USD, occurred_at 2026-01-02T03:04:08.678902+00:00",
        "type TRANSFER, direction OUT, currency RUB, occurred_at 2026-01-02T03:04:08.678901+00:00",
    ),
    "another copy": insert_another_copy(amount=Decimal(11)),
    "another copy that is not read": insert_wrong_and_correct_copy,
    "versions beyond the ledger's": insert_versions_beyond_the_ledger,
    "an account that the ledger does not have": insert_rows_of_an_unknown_account,
}
