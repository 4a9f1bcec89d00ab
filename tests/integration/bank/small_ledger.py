"""Small ledger that tests of the integrity check corrupt with SQL."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from kit.integrity.check import IntegrityCheck, Report, Verdict, Violation
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.application.ledger import Ledger
from subgraphs.bank.service.domain.model import Command, IdempotencyKey, Transfer, TransferKind
from tests.integration.bank.harness import clearing_account, rub
from wallet.errors import InsufficientFunds
from wallet.money import Money

ALICE, BOB, CAROL, DAVE = UUID(int=0), UUID(int=2**128 - 1), UUID(int=3), UUID(int=4)
_ACCOUNTS = {
    "alice": ALICE,
    "bob": BOB,
    "carol": CAROL,
    "dave": DAVE,
    "rub": clearing_account("RUB"),
    "usd": clearing_account("USD"),
}
STRAY = UUID(int=9)
_TABLES = ("accounts", "transfers", "entries", "idempotency_keys", "transfer_words", "account_changes", "outbox")
_PRINCIPAL = "https://users.test|a-secret"


@dataclass(frozen=True)
class SmallLedger:
    """Small ledger and a copy of its rows. Alice, Bob and Dave have roubles, Carol has dollars.

    Transfers by key: k1 and k2 from Alice to Bob, k3 from Bob to Alice; k4 is a deposit to Alice, k5 one to Carol.
    The key `refused` (Alice → Bob) has a refusal and no transfer.
    """

    pool: asyncpg.Pool
    names: dict[str, str]

    async def corrupt(self, *statements: str) -> asyncpg.Pool:
        """Restore the rows, execute the statements as superuser, and return the ledger's pool."""
        async with self.pool.acquire() as superuser, superuser.transaction():
            await superuser.execute("SET session_replication_role = replica")  # disables triggers
            for table in _TABLES:
                await superuser.execute(f"DELETE FROM {table}")
                await superuser.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM pristine.{table}")
            for statement in statements:
                await superuser.execute(statement.format(**{name: f"'{id_}'" for name, id_ in _ACCOUNTS.items()}))
        return self.pool

    def describe(self, violation: Violation) -> str:
        """Return the invariant and a readable name of the row."""
        row = {name: self.names.get(str(value), str(value)) for name, value in violation.row.items()}
        match row:
            case {"account_id": account, "version": version}:
                return f"{violation.invariant} {account}/{version}"
            case {"key": key}:
                return f"{violation.invariant} {key}"
            case {"transfer_id": transfer}:
                return f"{violation.invariant} {transfer}"
            case _:
                (value,) = row.values()
                return f"{violation.invariant} {value}"


@asynccontextmanager
async def create_small_ledger(url: str) -> AsyncIterator[SmallLedger]:
    """Create the small ledger in an empty database."""
    async with open_pool(url, max_size=2) as pool:
        await pool.execute("""
            DELETE FROM accounts WHERE currency NOT IN ('RUB', 'USD');
            ALTER TABLE accounts DROP CONSTRAINT accounts_min_balance, DROP CONSTRAINT accounts_closed_empty;
        """)
        await pool.executemany(
            "INSERT INTO accounts (id, owner_id, currency, balance) VALUES ($1, 'a-secret', $2, $3)",
            [(ALICE, "RUB", 100), (BOB, "RUB", 50), (CAROL, "USD", 0), (DAVE, "RUB", 0)],
        )
        ledger = Ledger(pool, on_commit=lambda: None)
        names = {str(STRAY): "stray"} | {str(id_): name for name, id_ in _ACCOUNTS.items()}
        for key, sender, recipient, amount in (
            ("k1", ALICE, BOB, rub("10")),
            ("k2", ALICE, BOB, rub("20")),
            ("k3", BOB, ALICE, rub("5")),
            ("k4", clearing_account("RUB"), ALICE, rub("7")),
            ("k5", clearing_account("USD"), CAROL, Money.parse("3", "USD")),
        ):
            (outcome,) = await ledger.commit([_command(key, sender, recipient, amount)])
            assert isinstance(outcome, Transfer)
            names[str(outcome.id)] = key
        (refused,) = await ledger.commit([_command("refused", ALICE, BOB, rub("10000"))])
        assert isinstance(refused, InsufficientFunds)
        await pool.execute("CREATE SCHEMA pristine")
        for table in _TABLES:
            await pool.execute(f"CREATE TABLE pristine.{table} AS TABLE {table}")
        yield SmallLedger(pool, names)


def _command(key: str, sender: UUID, recipient: UUID, amount: Money) -> Command:
    kind = (
        TransferKind.DEPOSIT if sender in {clearing_account("RUB"), clearing_account("USD")} else TransferKind.TRANSFER
    )
    scope = IdempotencyKey(_PRINCIPAL, kind.lower(), key)
    return Command(uuid7(), kind, sender, recipient, amount, scope, None, {})


async def collect_reports(check: IntegrityCheck) -> list[Report]:
    async with aclosing(check.run()) as running_check:
        return [report async for report in running_check]


async def run_to_verdict(check: IntegrityCheck) -> Verdict:
    last = (await collect_reports(check))[-1]
    assert isinstance(last, Verdict)
    return last
