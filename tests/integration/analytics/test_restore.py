"""The history after a real restore of the ledger: to a point in time, from a copy of the server, or by a promotion."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from kit.auth.principal import Role
from kit.auth.tokens import ServiceTokenProvider
from stack.engines.postgres import Postgres
from stack.ports import HOST
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.epochs import EpochTables
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application.epoch import EpochChanged, EpochFollower
from subgraphs.analytics.service.application.repair import Repair
from tests.conftest import Keys
from tests.integration.analytics.server_copy import ServerCopy
from tests.integration.bank.harness import RunningBank, rub, run_bank
from tests.ledger_servers import LedgerServers

pytestmark = pytest.mark.slow

_GUIDE = Path(__file__).parents[3] / "docs/how-to/restore-the-ledger.md"


def read_start_options() -> dict[str, str]:
    """Return the settings with which the guide starts the copy, and settings that make it listen on loopback only."""
    (options,) = re.findall(r"^pg_ctl -D /restore -o '-p 5433(.*)' -w start$", _GUIDE.read_text(), re.MULTILINE)
    settings = re.findall(r" -c ([a-z_]+)=(\S+)", options)
    return {"listen_addresses": HOST, "unix_socket_directories": ""} | dict(settings)


@pytest.fixture
async def primary(ledger_servers: LedgerServers) -> AsyncIterator[Postgres]:
    async with ledger_servers.one() as postgres:
        yield postgres


class Customers:
    """Two customers who pay each other, and the history of their operations."""

    def __init__(self, database: Database, keys: Keys, folder: Path) -> None:
        self.history = History(database)
        self._tables = EpochTables(database)
        self._keys = keys
        self._folder = folder
        self.accounts: tuple[UUID, UUID]

    async def open(self, bank: RunningBank) -> None:
        self.accounts = await bank.open("alice"), await bank.open("bob")

    async def pay(self, bank: RunningBank, amounts: list[str]) -> None:
        for amount in amounts:
            await bank.user("alice")(bank.client.transfer(*self.accounts, rub(amount), str(uuid4())))

    def follower(self, bank: RunningBank) -> tuple[EpochFollower, Repair]:
        """Return the epoch follower and the repair of analytics for this bank."""
        ledger = BankLedger(bank.client, ServiceTokenProvider(bank.keys.signers["analytics"], "analytics"))
        epochs = EpochFollower(self._tables, ledger)
        return epochs, Repair(self.history, ledger, epochs, grace_seconds=0)

    async def begin_epoch(self, bank: RunningBank) -> str:
        """Begin a new epoch, as `wallet ledger restored` does, and return its id."""
        before = await read_epoch(bank)
        headers = {"Authorization": f"Bearer {bank.keys.user('root', Role.ADMIN)}"}
        async with httpx.AsyncClient(base_url=bank.admin, trust_env=False, headers=headers) as http:
            epoch: str = (await http.post("/restored", params={"epoch": before})).json()["epoch"]
        return epoch

    def run(self, url: str) -> AbstractAsyncContextManager[RunningBank]:
        return run_bank(self._keys, self._folder, url)

    async def assert_history_equals(self, sql: asyncpg.Pool) -> None:
        entries = await sql.fetch("SELECT account_id, version, transfer_id, balance_after FROM entries")
        stored = [row for account in self.accounts for row in await self.history.list_after(account, 0, 1_000)]
        assert {(row.account_id, row.account_version, row.operation_id, row.balance_after) for row in stored} == {
            tuple(entry) for entry in entries
        }


@pytest.fixture
def customers(database: Database, keys: Keys, tmp_path: Path) -> Customers:
    return Customers(database, keys, tmp_path)


async def read_epoch(bank: RunningBank) -> str:
    epoch: str = await bank.sql.fetchval("SELECT epoch FROM ledger_epoch")
    return epoch


@pytest.mark.parametrize(
    ("is_point_in_time", "later"),
    [(False, 0), (False, 3), (True, 1)],
    ids=["base backup, ledger behind", "base backup, ledger ahead", "point in time, ledger behind"],
)
async def test_restored_server_begins_an_epoch_and_the_history_is_rebuilt(
    primary: Postgres, customers: Customers, later: int, *, is_point_in_time: bool
) -> None:
    backup = ServerCopy(primary, read_start_options())
    async with customers.run(primary.dsn("bank")) as bank:
        await customers.open(bank)
        await customers.pay(bank, ["1.00"])
        await backup.take()
        if is_point_in_time:
            await customers.pay(bank, ["2.00"])
            admin = await asyncpg.connect(primary.admin_dsn)
            await admin.execute("SELECT pg_create_restore_point('before')")
            await admin.close()
            backup.recover_to("before")
        await customers.pay(bank, ["3.00", "4.00"])
        _, repair = customers.follower(bank)
        await repair.repair_all(grace_seconds=0)
        await customers.assert_history_equals(bank.sql)
    await primary.stop()
    async with backup, customers.run(backup.url("bank")) as bank:
        kept = 2 if is_point_in_time else 1
        assert await bank.sql.fetchval("SELECT count(*) FROM transfers") == kept
        await customers.pay(bank, ["5.00"] * later)
        epochs, repair = customers.follower(bank)
        with pytest.raises(EpochChanged):
            await repair.repair_all(grace_seconds=0)
        epoch = await read_epoch(bank)
        assert epoch
        await epochs.rebuild()
        await repair.repair_all(grace_seconds=0)
        await customers.assert_history_equals(bank.sql)
        assert (await epochs.current(), await read_epoch(bank)) == (epoch, epoch)


async def test_restore_of_a_past_epoch_is_found_after_the_history_was_lost_and_rebuilt(
    primary: Postgres, customers: Customers, database: Database
) -> None:
    """The backup is of the second epoch. The third epoch has operations that only the rebuilt history shows."""
    backup = ServerCopy(primary, read_start_options())
    async with customers.run(primary.dsn("bank")) as bank:
        await customers.open(bank)
        epochs, _ = customers.follower(bank)
        second = await customers.begin_epoch(bank)
        await epochs.rebuild()
        await backup.take()
        third = await customers.begin_epoch(bank)
        await epochs.rebuild()
        await customers.pay(bank, ["2.00"])
        await database.command("TRUNCATE TABLE operations", {})
        await database.command("ALTER TABLE operations MODIFY COMMENT ''", {})
        await epochs.rebuild()
        await customers.assert_history_equals(bank.sql)
    await primary.stop()
    async with backup, customers.run(backup.url("bank")) as bank:
        assert await read_epoch(bank) == second
        await customers.pay(bank, ["5.00", "6.00"])
        epochs, repair = customers.follower(bank)
        with pytest.raises(EpochChanged):
            await repair.repair_all(grace_seconds=0)
        assert await read_epoch(bank) not in {"", second, third}
        await epochs.rebuild()
        await customers.assert_history_equals(bank.sql)


async def test_database_from_a_copy_is_restored_as_in_the_guide_and_its_query_lists_the_lost_operations(
    primary: Postgres, customers: Customers, database: Database, tmp_path: Path
) -> None:
    backup, guide = ServerCopy(primary), _GUIDE.read_text()
    statements = re.findall(r"-c '((?:ALTER|CREATE|REVOKE) .*)'", guide)
    assert len(statements) == 3
    async with customers.run(primary.dsn("bank")) as bank:
        await customers.open(bank)
        await customers.pay(bank, ["1.00"])
        await backup.take()
        await customers.pay(bank, ["3.00", "4.00"])
        _, repair = customers.follower(bank)
        await repair.repair_all(grace_seconds=0)
    async with backup:
        await backup.replace_database("bank", statements, tmp_path / "bank.dump")
    async with customers.run(primary.dsn("bank")) as bank:
        assert await bank.sql.fetchval("SELECT count(*) FROM transfers") == 1
        epochs, repair = customers.follower(bank)
        with pytest.raises(EpochChanged):
            await repair.repair_all(grace_seconds=0)
        await epochs.rebuild()
        await customers.assert_history_equals(bank.sql)
        (query,) = re.findall(r"```sql\n(.*?)```", guide, re.DOTALL)
        kept_table = f"operations_before_{(await read_epoch(bank)).replace('-', '_')}"
        lost = await database.query(query.replace("operations_before_019ad2b0_…", kept_table), {})
        sender, recipient = customers.accounts
        assert [row[1:5] for row in lost] == [("TRANSFER", sender, recipient, Decimal(amount)) for amount in (3, 4)]


async def test_promotion_without_a_loss_keeps_the_epoch(primary: Postgres, customers: Customers) -> None:
    standby, comparisons = ServerCopy(primary), list[str]()
    async with customers.run(primary.dsn("bank")) as bank:
        await customers.open(bank)
        await standby.take("-R")
        async with standby:
            await customers.pay(bank, ["1.00", "2.00"])
            epochs, repair = customers.follower(bank)
            await repair.repair_all(grace_seconds=0)
            await standby.promote()
            async with customers.run(standby.url("bank")) as promoted:
                await customers.pay(promoted, ["3.00"])
                new_epochs, new_repair = customers.follower(promoted)
                new_epochs._incarnation = epochs._incarnation  # as in a process that has used both PostgreSQL servers
                new_epochs.on_new_incarnation.append(lambda: comparisons.append("all"))
                await new_repair.repair_all(grace_seconds=0)
                assert (await read_epoch(promoted), await new_epochs.current(), comparisons) == ("", "", ["all"])
                await customers.assert_history_equals(promoted.sql)
