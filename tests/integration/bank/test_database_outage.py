"""PostgreSQL is stopped, read-only, killed or frozen, or loses sessions. No acknowledged transfer is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest

from kit.db import pool
from kit.db import postgres as postgres_options
from kit.rpc.channel import ClientLimits
from stack.engines.postgres import Postgres
from subgraphs.bank.client import BankClient, Receipt, TransferRequest
from subgraphs.bank.service.application import group_commit
from tests.conftest import Keys
from tests.integration.bank.harness import (
    RunningBank,
    assert_ledger_invariants,
    find_lock_waiter,
    rub,
    run_bank,
    until_ready,
)
from tests.ledger_servers import LedgerServers
from tests.postgres_proxy import CancelRecorder, record_cancel_requests
from tests.waiting import until
from wallet.errors import DeadlineExceeded, Unavailable, WalletError

pytestmark = pytest.mark.slow

HOLD_COMMITS = """
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION hold();
"""
"""Commits wait while another session holds the advisory lock 42."""


COMMIT_MODES = pytest.mark.parametrize(
    ("count", "committing"), [(1, "WITH precondition"), (2, "COMMIT")], ids=["a lone transfer", "a batch"]
)
"""Number of transfers in the commit, and the statement in which the committing session then waits."""


@pytest.fixture
async def outage_postgres(ledger_servers: LedgerServers) -> AsyncIterator[Postgres]:
    """PostgreSQL with an empty ledger that a test may stop or kill."""
    async with ledger_servers.one() as postgres:
        yield postgres


@pytest.fixture
async def outage_bank(outage_postgres: Postgres, keys: Keys, tmp_path: Path) -> AsyncIterator[RunningBank]:
    async with run_bank(keys, tmp_path, outage_postgres.dsn("bank")) as bank:
        yield bank


@dataclass(frozen=True)
class WaitingBank:
    """Bank with short time-outs. A proxy between it and PostgreSQL counts requests to cancel a statement.

    Attributes:
        bank: the bank with short time-outs, only for calls that are expected to time out.
        usual: bank with the usual time-outs on the same database, for all other calls.
        proxy: proxy between `bank` and the database.
        server: connection to the server, but not to the bank's database.
    """

    bank: RunningBank
    usual: RunningBank
    proxy: CancelRecorder
    server: asyncpg.Connection

    async def set_standby(self, name: str) -> None:
        """Make commits wait for the standby `name`; with an empty name no commit waits."""
        await self.server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await self.server.execute("SELECT pg_reload_conf()")

        async def is_set() -> bool:
            setting = await self.bank.sql.fetchval("SHOW synchronous_standby_names")
            return bool(setting == name and (name or await _no_standby_waiter(self.bank.sql)))

        await until(is_set)


@pytest.fixture
async def waiting_bank(
    outage_postgres: Postgres, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WaitingBank]:
    url = outage_postgres.dsn("bank")
    async with run_bank(keys, tmp_path, url) as usual:
        monkeypatch.setattr(postgres_options, "STATEMENT_TIMEOUT_SECONDS", 0.3)
        monkeypatch.setattr(group_commit, "_COMMIT_TIMEOUT_SECONDS", 0.8)
        async with (
            record_cancel_requests(url) as proxy,
            run_bank(keys, tmp_path, proxy.url(url)) as bank,
            _connect_to_server(outage_postgres) as server,
        ):
            yield WaitingBank(bank, usual, proxy, server)


async def find_standby_waiter(sql: asyncpg.Pool, query: str) -> int | None:
    """Return the process id of a session of the bank that waits for a standby in a statement that contains `query`."""
    pid: int | None = await sql.fetchval(
        """
        SELECT pid FROM pg_stat_activity
        WHERE application_name = 'bank' AND wait_event = 'SyncRep' AND query LIKE '%' || $1 || '%'
        """,
        query,
    )
    return pid


async def _no_standby_waiter(sql: asyncpg.Pool) -> bool:
    return await find_standby_waiter(sql, "") is None


class TestStopped:
    async def test_stopped_database_is_reported_quickly_and_recovery_needs_no_restart(
        self, outage_postgres: Postgres, outage_bank: RunningBank
    ) -> None:
        bank, alice = outage_bank, outage_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        first = await alice(bank.client.transfer(sender, recipient, rub("1"), "before"))
        await outage_postgres.stop()

        # The error comes from the bank. At the client's deadline, the client would raise DeadlineExceeded.
        with pytest.raises(Unavailable):
            await alice(bank.client.transfer(sender, recipient, rub("1"), "while away"))
        with pytest.raises(Unavailable):
            await alice(bank.client.get_balance(sender))
        async with httpx.AsyncClient(trust_env=False) as http:
            ready = await http.get(f"{bank.admin}/health/ready")
        assert (ready.status_code, ready.json()["checks"]) == (
            503,
            {"database": "Unavailable", "disk": "ok", "keys": "ok"},
        )

        await outage_postgres.start()
        await until_ready(bank.admin)
        assert await alice(bank.client.transfer(sender, recipient, rub("1"), "before")) == first
        again = await alice(bank.client.transfer(sender, recipient, rub("1"), "while away"))
        assert (again.posting.version, again.posting.balance_after) == (2, rub("998"))
        await assert_ledger_invariants(bank.sql)

    async def test_read_only_database_makes_writes_unavailable(
        self, outage_postgres: Postgres, outage_bank: RunningBank
    ) -> None:
        bank, alice = outage_bank, outage_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        end_sessions = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usename = current_user AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        """
        await bank.sql.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
        await bank.sql.execute(end_sessions)  # new sessions are read-only
        with pytest.raises(Unavailable):
            await alice(bank.client.transfer(sender, recipient, rub("1"), "meanwhile"))
        await alice(bank.client.get_balance(sender))  # reads still work

        await bank.sql.execute("ALTER ROLE CURRENT_USER RESET default_transaction_read_only")
        await bank.sql.execute(end_sessions)

        async def works() -> bool:
            with suppress(Unavailable):
                receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), "meanwhile"))
                return receipt.posting.version == 1
            return False

        await until(works)
        await assert_ledger_invariants(bank.sql)

    async def test_read_only_sessions_are_replaced_when_new_sessions_can_write(
        self, outage_postgres: Postgres, keys: Keys, tmp_path: Path
    ) -> None:
        url = outage_postgres.dsn("bank")
        async with _connect_to_server(outage_postgres) as sql, run_bank(keys, tmp_path, url) as bank:
            alice, sender, recipient = bank.user("alice"), await bank.open("alice"), await bank.open("bob")
            await sql.execute("ALTER DATABASE bank SET default_transaction_read_only = on")
            await sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bank'")
            await until(lambda: _is_read_only(bank))
            await asyncio.gather(*(alice(bank.client.get_balance(sender)) for _ in range(50)))  # fill the pool
            await sql.execute("ALTER DATABASE bank RESET default_transaction_read_only")
            receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), "k"))
            assert receipt.posting.version == 1
            assert not await _is_read_only(bank)
            await assert_ledger_invariants(bank.sql)

    async def test_acknowledged_transfers_survive_a_killed_database(
        self, outage_postgres: Postgres, outage_bank: RunningBank
    ) -> None:
        bank, alice = outage_bank, outage_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        acknowledged: dict[str, UUID] = {}
        calling: set[str] = set()
        enough, may_call = asyncio.Event(), asyncio.Event()

        async def transfer_until_acknowledged(n: int) -> None:
            for key in (f"{n}-{turn}" for turn in range(10)):
                while key not in acknowledged:
                    await may_call.wait()
                    calling.add(key)
                    with suppress(Unavailable, DeadlineExceeded):
                        receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), key))
                        acknowledged[key] = receipt.transfer.id
                        if len(acknowledged) == 200:
                            enough.set()
                    calling.discard(key)

        async def is_no_call_running() -> bool:
            return not calling

        transfers = asyncio.gather(*(transfer_until_acknowledged(n) for n in range(100)))
        may_call.set()
        await enough.wait()
        outage_postgres.kill()
        may_call.clear()
        await outage_postgres.wait()
        # Wait until no call runs: to start PostgreSQL as another user, this process forks, which breaks running calls.
        await until(is_no_call_running)
        assert len(acknowledged) < 1000
        await outage_postgres.start()
        may_call.set()
        await transfers
        committed = {row["id"] for row in await bank.sql.fetch("SELECT id FROM transfers")}
        assert committed == set(acknowledged.values())
        assert await bank.balance(sender) == 0
        await assert_ledger_invariants(bank.sql)

    async def test_call_to_a_frozen_database_times_out(
        self, outage_postgres: Postgres, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = outage_postgres.dsn("bank")
        async with run_bank(keys, tmp_path, url) as usual:
            sender, recipient = await usual.open("alice"), await usual.open("bob")
        monkeypatch.setattr(postgres_options, "STATEMENT_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr(postgres_options, "CONNECT_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr(pool, "CONNECT_TIMEOUT_SECONDS", 0.5)
        # The client's time-out is longer than that of the test, so the bank's time-outs end the call.
        long_timeout = ClientLimits(timeout_seconds=600)
        async with (
            run_bank(keys, tmp_path, url) as bank,
            BankClient.connect(bank.target, limits=long_timeout) as client,
        ):
            alice = bank.user("alice")

            async def transfer(key: str) -> int | None:
                """Return the sender's version; None after a time-out, which a busy machine may cause."""
                with suppress(Unavailable, DeadlineExceeded):
                    return (await alice(bank.client.transfer(sender, recipient, rub("1"), key))).posting.version
                return None

            assert await until(lambda: transfer("before")) == 1  # the bank has a connection
            backends = [row["pid"] for row in await bank.sql.fetch("SELECT pid FROM pg_stat_activity")]
            for process in (*backends, outage_postgres.pid):
                _send(process, signal.SIGSTOP)
            try:
                with pytest.raises((Unavailable, DeadlineExceeded)):
                    await alice(client.transfer(sender, recipient, rub("1"), "frozen"))
            finally:
                for process in (*backends, outage_postgres.pid):
                    _send(process, signal.SIGCONT)

            assert await until(lambda: transfer("frozen")) == 2
            await assert_ledger_invariants(bank.sql)


class TestUnavailableStandby:
    """Commits wait for an unavailable synchronous standby. A cancelled wait would commit on the primary alone."""

    @COMMIT_MODES
    async def test_waiting_commit_is_not_cancelled_and_a_retry_is_not_acknowledged(
        self, waiting_bank: WaitingBank, count: int, committing: str
    ) -> None:
        bank, usual, alice = waiting_bank.bank, waiting_bank.usual, waiting_bank.bank.user("alice")
        requests = await _transfer_requests(usual, count)
        await waiting_bank.set_standby("away")
        for _ in range(2):
            assert {type(result) for result in await alice(bank.client.batch_transfer(requests))} == {Unavailable}
            assert await find_standby_waiter(bank.sql, committing)
            assert (await bank.count_rows())["transfers"] == 0
        await waiting_bank.set_standby("")
        results = await alice(usual.client.batch_transfer(requests))
        assert [_version(result) for result in results] == list(range(1, count + 1))
        assert (await bank.count_rows())["transfers"] == count
        assert waiting_bank.proxy.cancel_requests == 0
        await assert_ledger_invariants(bank.sql)

    @COMMIT_MODES
    async def test_commit_on_the_primary_alone_is_not_acknowledged(
        self, waiting_bank: WaitingBank, count: int, committing: str
    ) -> None:
        bank, usual, alice = waiting_bank.bank, waiting_bank.usual, waiting_bank.bank.user("alice")
        requests = await _transfer_requests(usual, count)
        await waiting_bank.set_standby("away")
        assert {type(result) for result in await alice(bank.client.batch_transfer(requests))} == {Unavailable}
        assert await bank.sql.fetchval(
            "SELECT pg_terminate_backend($1)", await find_standby_waiter(bank.sql, committing)
        )
        await until(lambda: bank.sql.fetchval("SELECT count(*) FROM transfers"))
        assert {type(result) for result in await alice(bank.client.batch_transfer(requests))} == {Unavailable}
        await waiting_bank.set_standby("")
        results = await alice(usual.client.batch_transfer(requests))
        assert [_version(result) for result in results] == list(range(1, count + 1))
        await assert_ledger_invariants(bank.sql)

    async def test_opening_and_closing_on_the_primary_alone_are_not_acknowledged(
        self, waiting_bank: WaitingBank
    ) -> None:
        bank, usual, alice = waiting_bank.bank, waiting_bank.usual, waiting_bank.bank.user("alice")
        emptied = await usual.open("alice", "0")
        calls: dict[str, Callable[[BankClient], Awaitable[object]]] = {
            "INSERT INTO accounts": lambda client: client.open_account("RUB", "k"),
            "UPDATE accounts SET status": lambda client: client.close_account(emptied),
        }
        for statement, call in calls.items():
            await waiting_bank.set_standby("away")
            with pytest.raises(Unavailable):
                await alice(call(bank.client))
            waiter = await find_standby_waiter(bank.sql, statement)
            assert await bank.sql.fetchval("SELECT pg_terminate_backend($1)", waiter)
            await until(lambda: _no_standby_waiter(bank.sql))
            with pytest.raises(Unavailable):
                await alice(call(bank.client))
            await waiting_bank.set_standby("")
            await alice(call(usual.client))
        assert waiting_bank.proxy.cancel_requests == 0


class TestSessionLost:
    async def test_session_lost_before_the_write_moves_money_once(self, own_bank: RunningBank) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        async with bank.sql.acquire() as other, other.transaction():
            await other.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", sender)
            transfer = asyncio.create_task(alice(bank.client.transfer(sender, recipient, rub("1"), "k")))
            await _terminate(bank.sql, "FOR NO KEY UPDATE")
            await until(lambda: find_lock_waiter(bank.sql, "FOR NO KEY UPDATE"))  # the retry waits
        receipt = await transfer
        assert await alice(bank.client.transfer(sender, recipient, rub("1"), "k")) == receipt
        assert receipt.posting.version == 1
        await assert_ledger_invariants(bank.sql)

    @COMMIT_MODES
    async def test_session_lost_before_the_commit_moves_money_once(
        self, own_bank: RunningBank, count: int, committing: str
    ) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        requests = await _transfer_requests(bank, count)
        await bank.sql.execute(HOLD_COMMITS)
        async with bank.sql.acquire() as other, other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(42)")
            transfers = asyncio.create_task(alice(bank.client.batch_transfer(requests)))
            await _terminate(bank.sql, committing)
            await until(lambda: find_lock_waiter(bank.sql, "COMMIT"))  # the retry waits
        assert [_version(result) for result in await transfers] == list(range(1, count + 1))
        assert await alice(bank.client.batch_transfer(requests)) == await transfers
        assert (await bank.count_rows())["transfers"] == count
        await assert_ledger_invariants(bank.sql)

    async def test_session_lost_after_the_commit_moves_money_once(
        self, postgres: Postgres, ledger_url: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            _run_proxy(postgres.port) as proxy,
            run_bank(keys, tmp_path, ledger_url.replace(f":{postgres.port}/", f":{proxy.port}/")) as bank,
            asyncpg.create_pool(ledger_url, min_size=0, max_size=2) as sql,
        ):
            alice, requests = bank.user("alice"), await _transfer_requests(bank, 2)
            proxy.drops_commit_responses = True
            transfers = asyncio.create_task(alice(bank.client.batch_transfer(requests)))
            # Wait for the commit. The proxy drops the response to it.
            committed = await until(lambda: sql.fetchval("SELECT array_agg(id) FROM transfers"))
            assert not transfers.done()
            proxy.drops_commit_responses = False
            assert {_transfer_id(result) for result in await transfers} == set(committed)
            assert await alice(bank.client.batch_transfer(requests)) == await transfers
            assert await sql.fetchval("SELECT count(*) FROM transfers") == 2
            await assert_ledger_invariants(sql)

    @COMMIT_MODES
    async def test_session_lost_during_a_running_commit_moves_money_once(
        self, postgres: Postgres, ledger_url: str, keys: Keys, tmp_path: Path, count: int, committing: str
    ) -> None:
        async with (
            _run_proxy(postgres.port) as proxy,
            run_bank(keys, tmp_path, ledger_url.replace(f":{postgres.port}/", f":{proxy.port}/")) as bank,
            asyncpg.create_pool(ledger_url, min_size=0, max_size=3) as sql,
        ):
            alice, requests = bank.user("alice"), await _transfer_requests(bank, count)
            await sql.execute(HOLD_COMMITS)
            async with sql.acquire() as other, other.transaction():
                await other.execute("SELECT pg_advisory_xact_lock(42)")
                transfers = asyncio.create_task(alice(bank.client.batch_transfer(requests)))
                await until(lambda: find_lock_waiter(sql, committing))
                proxy.close_connections()
                await until(lambda: find_lock_waiter(sql, "WITH named"))  # the retry waits for the running commit
                assert await sql.fetchval("SELECT count(*) FROM transfers") == 0
                assert not transfers.done()
            results = await transfers
            committed = await sql.fetchval("SELECT array_agg(id) FROM transfers")
            assert sorted(committed) == sorted(_transfer_id(result) for result in results)
            assert [_version(result) for result in results] == list(range(1, count + 1))
            await assert_ledger_invariants(sql)


class TestCallerGone:
    async def test_cancelled_calls_leave_a_consistent_ledger(self, own_bank: RunningBank) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        async with bank.sql.acquire() as other, other.transaction():
            await other.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", sender)
            calls = [
                asyncio.create_task(alice(bank.client.transfer(sender, recipient, rub("1"), str(n)))) for n in range(5)
            ]
            await until(lambda: find_lock_waiter(bank.sql, "FOR NO KEY UPDATE"))
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        for n in range(5):
            await alice(bank.client.transfer(sender, recipient, rub("1"), str(n)))
        assert await bank.balance(sender) == 995
        await assert_ledger_invariants(bank.sql)


@asynccontextmanager
async def _connect_to_server(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """Connect to the server, but not to the bank's database."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    yield connection
    await connection.close()


async def _is_read_only(bank: RunningBank) -> bool:
    """Return whether the bank reports its database as read-only, rather than ok or unavailable."""
    async with httpx.AsyncClient(trust_env=False) as http:
        state: str = (await http.get(f"{bank.admin}/health/ready")).json()["checks"]["database"]
    assert state in {"ok", "Unavailable", "ReadOnlyDatabase"}
    return state == "ReadOnlyDatabase"


async def _transfer_requests(bank: RunningBank, count: int) -> list[TransferRequest]:
    sender, recipient = await bank.open("alice"), await bank.open("bob")
    return [TransferRequest(sender, recipient, rub("1"), str(n)) for n in range(count)]


def _transfer_id(result: Receipt | WalletError) -> UUID:
    assert isinstance(result, Receipt)
    return result.transfer.id


def _version(result: Receipt | WalletError) -> int:
    assert isinstance(result, Receipt)
    return result.posting.version


def _send(process: int | None, number: signal.Signals) -> None:
    """Send a signal to a process; ignore a process that has ended."""
    assert process is not None
    with suppress(ProcessLookupError):
        os.kill(process, number)


async def _terminate(sql: asyncpg.Pool, query: str) -> None:
    """Wait until a session of the bank waits for a lock in a statement that contains `query`, and terminate it."""
    assert await sql.fetchval("SELECT pg_terminate_backend($1)", await until(lambda: find_lock_waiter(sql, query)))


class _DatabaseProxy:
    """Proxy between the bank and its database. It can drop the response to a COMMIT and close connections."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self.drops_commit_responses = False
        self._forwarding: set[asyncio.Task[None]] = set()

    def close_connections(self) -> None:
        """Close all open connections. New connections work."""
        for task in self._forwarding:
            task.cancel()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        broken = asyncio.Event()

        async def to_database() -> None:
            while data := await reader.read(2**16):
                if self.drops_commit_responses and b"COMMIT;" in data:
                    broken.set()
                back.write(data)

        async def to_bank() -> None:
            while data := await there.read(2**16):
                if broken.is_set():
                    return  # the database has responded, so the transaction is committed
                writer.write(data)

        tasks = [asyncio.create_task(task()) for task in (to_database, to_bank)]
        self._forwarding.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._forwarding.difference_update(tasks)
        for end in (writer, back):
            end.close()


@asynccontextmanager
async def _run_proxy(to: int) -> AsyncIterator[_DatabaseProxy]:
    proxy = _DatabaseProxy(to)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
