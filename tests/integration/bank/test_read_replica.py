"""The bank with a real read replica: a streaming standby of PostgreSQL."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from stack.engines.postgres import SETTINGS, Postgres
from stack.ports import free_ports
from stack.process import Child, Command, Process
from subgraphs.bank.client import Receipt, Transfer
from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres import replica as replicas
from tests.conftest import Keys
from tests.integration.bank.future import dates_transfers_in_the_future
from tests.integration.bank.harness import RunningBank, admin_client, rub, run_bank
from tests.waiting import until
from wallet.errors import TransferNotFound, Unavailable


class Standby(Child):
    """Streaming standby of a running PostgreSQL, on another port."""

    def __init__(self, primary: Postgres) -> None:
        self.port = free_ports(1)[0]
        self._cluster = primary.cluster
        self._primary = primary
        self._data = primary.cluster.data.with_name("standby")
        process = Process(
            name="standby",
            command=self._command,
            ready=self._accepts_connections,
            stop_signal=primary.process.stop_signal,
        )
        super().__init__(process)

    def url(self, primary: str) -> str:
        """Return the URL of a database on the standby, given its URL on the primary."""
        return primary.replace(f":{self._primary.port}/", f":{self.port}/")

    async def _accepts_connections(self) -> bool:
        try:
            await (await asyncpg.connect(self.url(self._primary.admin_dsn), timeout=5)).close()
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        return True

    async def _command(self) -> Command:
        cluster = self._cluster
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            if cluster.user is not None and cluster.group is not None:
                os.chown(self._data, cluster.user, cluster.group)
            copy = (str(cluster.binaries / "pg_basebackup"), "-D", str(self._data), "-R", "-c", "fast")
            await Child(Process(name="copy", command=self._as_its_user(*copy, "-d", self._primary.admin_dsn))).start()
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = (str(cluster.binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *settings)
        return await self._as_its_user(*argv)()

    def _as_its_user(self, *argv: str) -> Callable[[], Awaitable[Command]]:
        async def command() -> Command:
            environment = {"PATH": os.defpath, "LC_ALL": "C"}
            return Command(argv, environment, self._data, self._cluster.user, self._cluster.group)

        return command

    def remove(self) -> None:
        """Remove the data of a stopped standby."""
        shutil.rmtree(self._data)


@pytest.fixture(scope="module")
async def standby(postgres: Postgres) -> AsyncIterator[Standby]:
    async with Standby(postgres) as standby:
        yield standby
    standby.remove()


class StandbyLedger:
    """Direct access to the standby's copy of the test's ledger."""

    def __init__(self, standby: asyncpg.Connection, ledger: asyncpg.Pool) -> None:
        self._standby = standby
        self._ledger = ledger

    async def catch_up(self) -> None:
        """Wait until the standby has replayed everything that is committed now."""
        # The tests' server does not flush WAL at a commit. It flushes this message at once, with all WAL before it.
        written = await self._ledger.fetchval("SELECT pg_logical_emit_message(false, 'test', '', true)")

        async def has_replayed() -> bool:
            has: bool = await self._standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", written)
            return has

        await until(has_replayed)

    @asynccontextmanager
    async def pause_replay(self) -> AsyncIterator[None]:
        """Pause the standby's replay of WAL until the end of the block."""
        await self._standby.execute("SELECT pg_wal_replay_pause()")
        try:

            async def is_paused() -> bool:
                state: str = await self._standby.fetchval("SELECT pg_get_wal_replay_pause_state()")
                return state == "paused"

            await until(is_paused)
            yield
        finally:
            await self._standby.execute("SELECT pg_wal_replay_resume()")

    async def last_queries(self) -> str:
        """Return the last queries of the bank's sessions on the standby."""
        query = "SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE application_name = 'bank'"
        return await self._standby.fetchval(query) or ""


@pytest.fixture
async def bank(
    standby: Standby, ledger_url: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningBank]:
    monkeypatch.setattr(replicas, "_READ_TIMEOUT_SECONDS", 5.0)  # test machines may be slow
    monkeypatch.setattr(replicas, "_PAUSE_SECONDS", 0.2)
    async with run_bank(keys, tmp_path, ledger_url, bank_database_read_url=standby.url(ledger_url)) as bank:
        yield bank


@pytest.fixture
async def standby_ledger(standby: Standby, ledger_url: str, bank: RunningBank) -> AsyncIterator[StandbyLedger]:
    async def connected() -> asyncpg.Connection | None:
        with suppress(asyncpg.InvalidCatalogNameError):  # the database is not replicated yet
            return await asyncpg.connect(standby.url(ledger_url))
        return None

    connection = await until(connected)
    assert connection is not None
    yield StandbyLedger(connection, bank.sql)
    await connection.close()


async def pay(bank: RunningBank, sender: UUID, recipient: UUID, count: int) -> list[UUID]:
    """Make `count` transfers of one rouble and return their ids.

    While the standby is copied, the disk is busy and the bank may be unavailable. The transfer is then repeated with
    its key.
    """
    alice = bank.user("alice")

    async def receipt(key: str) -> Receipt | None:
        with suppress(Unavailable):
            return await alice(bank.client.transfer(sender, recipient, rub("1"), key))
        return None

    receipts = [await until(partial(receipt, str(uuid4()))) for _ in range(count)]
    return [each.transfer.id for each in receipts if each]


async def restore_without(bank: RunningBank, ids: list[UUID]) -> None:
    """Remove transfers from the primary as a restore from a backup does, and begin an epoch."""
    async with bank.sql.acquire() as sql, sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")  # switches off append-only triggers
        await sql.execute("DELETE FROM entries WHERE transfer_id = ANY($1)", ids)
        await sql.execute("DELETE FROM transfers WHERE id = ANY($1)", ids)
    epoch = await bank.sql.fetchval("SELECT epoch FROM ledger_epoch")
    async with admin_client(bank) as http:
        assert (await http.post("/restored", params={"epoch": epoch})).status_code == 200


async def test_replica_is_read_for_transfers_and_not_for_accounts(
    bank: RunningBank, standby_ledger: StandbyLedger
) -> None:
    alice, (sender, recipient) = bank.user("alice"), [await bank.open("alice") for _ in range(2)]
    (id_,) = await pay(bank, sender, recipient, 1)
    await standby_ledger.catch_up()
    assert (await alice(bank.client.get_transfer(id_))).id == id_
    await alice(bank.client.get_balance(sender))
    queries = await standby_ledger.last_queries()
    assert "FROM transfers" in queries
    assert "FROM accounts" not in queries


async def test_lagging_replica_hides_no_transfers(bank: RunningBank, standby_ledger: StandbyLedger) -> None:
    alice, analytics = bank.user("alice"), bank.service("analytics")
    sender, recipient = await bank.open("alice"), await bank.open("alice")
    ids = await pay(bank, sender, recipient, 2)
    await standby_ledger.catch_up()
    async with standby_ledger.pause_replay():
        ids += await pay(bank, sender, recipient, 3)
        assert [(await alice(bank.client.get_transfer(id_))).id for id_ in ids] == ids
        results = await alice(bank.client.batch_get_transfers(ids))
        assert all(isinstance(results[id_], Transfer) for id_ in ids), results
        assert [each.transfer.id for each in await analytics(bank.client.list_events(sender, 0))] == ids
        page = await analytics(bank.client.list_events(sender, 1, page_size=2))
        assert [each.transfer.id for each in page] == ids[1:3]
        assert (await alice(bank.client.get_balance(sender))).amount == rub("995")


async def test_stopped_replica_is_replaced_by_the_primary_and_used_again_later(
    standby: Standby, bank: RunningBank
) -> None:
    alice, (sender, recipient) = bank.user("alice"), [await bank.open("alice") for _ in range(2)]
    (id_,) = await pay(bank, sender, recipient, 1)

    async def is_read_from_replica() -> bool:
        before: float = metrics.REPLICA_READS.labels("answered")._value.get()
        assert (await alice(bank.client.get_transfer(id_))).id == id_
        after: float = metrics.REPLICA_READS.labels("answered")._value.get()
        return after > before

    await until(is_read_from_replica)
    await standby.stop()
    try:
        assert not await is_read_from_replica()
    finally:
        await standby.start()
    await until(is_read_from_replica)


async def test_replica_of_an_earlier_epoch_shows_no_lost_transfers(
    bank: RunningBank, standby_ledger: StandbyLedger
) -> None:
    alice, analytics = bank.user("alice"), bank.service("analytics")
    sender, recipient = await bank.open("alice"), await bank.open("alice")
    ids = await pay(bank, sender, recipient, 3)
    await standby_ledger.catch_up()
    async with standby_ledger.pause_replay():
        await restore_without(bank, ids[1:])
        for id_ in ids[1:]:
            with pytest.raises(TransferNotFound):
                await alice(bank.client.get_transfer(id_))
        results = await alice(bank.client.batch_get_transfers(ids))
        assert [id_ for id_ in ids if isinstance(results[id_], Transfer)] == ids[:1]
        events = await analytics(bank.client.list_events(sender, 0, page_size=3))
        assert [each.transfer.id for each in events] == ids[:1]


async def test_full_page_of_a_replica_of_an_earlier_epoch_is_not_returned(
    bank: RunningBank, standby_ledger: StandbyLedger
) -> None:
    analytics = bank.service("analytics")
    sender, recipient = await bank.open("alice"), await bank.open("alice")
    ids = await pay(bank, sender, recipient, 3)
    await standby_ledger.catch_up()
    async with standby_ledger.pause_replay():
        await restore_without(bank, ids[1:])
        for page_size in (1, 2):  # the replica has enough operations to fill the page
            events = await analytics(bank.client.list_events(sender, 0, page_size=page_size))
            assert [each.transfer.id for each in events] == ids[:1]


async def test_replica_without_the_last_redating_shows_no_earlier_dates(
    bank: RunningBank, standby_ledger: StandbyLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, analytics = bank.user("alice"), bank.service("analytics")
    sender, recipient = await bank.open("alice"), await bank.open("alice")
    with monkeypatch.context() as patch:
        dates_transfers_in_the_future(patch)
        (id_,) = await pay(bank, sender, recipient, 1)
    await standby_ledger.catch_up()
    async with standby_ledger.pause_replay():
        async with admin_client(bank) as http:
            response = await http.post("/redate", params={"apply": "true"})
        assert orjson.loads(response.text.splitlines()[-1])["outcome"] == "redated"
        date = await bank.sql.fetchval("SELECT created_at FROM transfers WHERE id = $1", id_)
        (event,) = await analytics(bank.client.list_events(sender, 0, page_size=1))
        assert event.transfer.created_at == date
        assert (await alice(bank.client.get_transfer(id_))).created_at == date
