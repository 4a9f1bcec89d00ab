"""PostgreSQL goes away in every way there is; what was promised holds."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest

from kit.db import postgres as postgres_options
from kit.db.migrations import upgrade
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.ports import free_ports
from subgraphs.bank.client import Receipt, TransferRequest
from subgraphs.bank.service.adapters.postgres import database
from tests.conftest import Keys
from tests.integration.bank.harness import (
    RunningBank,
    assert_ledger_invariants,
    find_lock_waiter,
    rub,
    run_bank,
    until_ready,
)
from tests.waiting import until
from wallet.errors import DeadlineExceeded, Unavailable, WalletError

pytestmark = pytest.mark.slow

HOLD_COMMITS = """
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION hold();
"""
"""A commit waits while somebody holds the advisory lock 42."""


WAYS = pytest.mark.parametrize(
    ("count", "committing"), [(1, "WITH precondition"), (2, "COMMIT")], ids=["a lone transfer", "a batch"]
)
"""How many transfers, and what the session that commits them is seen to do."""


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A PostgreSQL with an empty ledger, for a test that takes it away."""
    async with Postgres(tmp_path / "postgres", *free_ports(1), databases=("bank",)) as postgres:
        await asyncio.to_thread(upgrade, "subgraphs.bank.service.migrations", postgres.dsn("bank"))
        yield postgres
    remove_cluster(tmp_path / "postgres")


@pytest.fixture
async def mortal_bank(mortal: Postgres, keys: Keys, tmp_path: Path) -> AsyncIterator[RunningBank]:
    async with run_bank(keys, tmp_path, mortal.dsn("bank")) as bank:
        yield bank


class TestStopped:
    async def test_stopped_database_is_reported_quickly_and_recovery_needs_no_restart(
        self, mortal: Postgres, mortal_bank: RunningBank
    ) -> None:
        bank, alice = mortal_bank, mortal_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        first = await alice(bank.client.transfer(sender, recipient, rub("1"), "before"))
        await mortal.stop()

        # The bank's own answers: the client's deadline would raise DeadlineExceeded.
        with pytest.raises(Unavailable):
            await alice(bank.client.transfer(sender, recipient, rub("1"), "while away"))
        with pytest.raises(Unavailable):
            await alice(bank.client.get_balance(sender))
        async with httpx.AsyncClient(trust_env=False) as http:
            ready = await http.get(f"{bank.admin}/health/ready")
        assert (ready.status_code, ready.json()["checks"]) == (503, {"database": "Unavailable", "keys": "ok"})

        await mortal.start()
        await until_ready(bank.admin)
        assert await alice(bank.client.transfer(sender, recipient, rub("1"), "before")) == first
        again = await alice(bank.client.transfer(sender, recipient, rub("1"), "while away"))
        assert (again.posting.version, again.posting.balance_after) == (2, rub("998"))
        await assert_ledger_invariants(bank.sql)

    async def test_read_only_database_makes_writes_unavailable(
        self, mortal: Postgres, mortal_bank: RunningBank
    ) -> None:
        bank, alice = mortal_bank, mortal_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        end_sessions = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usename = current_user AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        """
        await bank.sql.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
        await bank.sql.execute(end_sessions)  # those that come after are read-only
        with pytest.raises(Unavailable):
            await alice(bank.client.transfer(sender, recipient, rub("1"), "meanwhile"))
        await alice(bank.client.get_balance(sender))  # what it can do, it does

        await bank.sql.execute("ALTER ROLE CURRENT_USER RESET default_transaction_read_only")
        await bank.sql.execute(end_sessions)

        async def works() -> bool:
            with suppress(Unavailable):
                receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), "meanwhile"))
                return receipt.posting.version == 1
            return False

        await until(works)
        await assert_ledger_invariants(bank.sql)

    async def test_acknowledged_transfers_survive_a_killed_database(
        self, mortal: Postgres, mortal_bank: RunningBank
    ) -> None:
        bank, alice = mortal_bank, mortal_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        acknowledged: dict[str, UUID] = {}
        calling: set[str] = set()
        enough, may_call = asyncio.Event(), asyncio.Event()

        async def insist(n: int) -> None:
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

        async def nobody_calls() -> bool:
            return not calling

        insisting = asyncio.gather(*(insist(n) for n in range(100)))
        may_call.set()
        await enough.wait()
        mortal.kill()
        may_call.clear()
        await mortal.wait()
        # Only with gRPC at rest: to run as another user, PostgreSQL's start forks, which gRPC at work does not survive.
        await until(nobody_calls)
        assert len(acknowledged) < 1000
        await mortal.start()
        may_call.set()
        async with asyncio.timeout(30):
            await insisting
        made = {row["id"] for row in await bank.sql.fetch("SELECT id FROM transfers")}
        assert made == set(acknowledged.values())
        assert await bank.balance(sender) == 0
        await assert_ledger_invariants(bank.sql)

    async def test_call_to_a_frozen_database_times_out(
        self, mortal: Postgres, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_options, "STATEMENT_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr(postgres_options, "CONNECT_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr(database, "CONNECT_TIMEOUT_SECONDS", 0.5)
        async with run_bank(keys, tmp_path, mortal.dsn("bank")) as bank:
            alice, sender, recipient = bank.user("alice"), await bank.open("alice"), await bank.open("bob")
            await alice(bank.client.get_balance(sender))
            backends = [row["pid"] for row in await bank.sql.fetch("SELECT pid FROM pg_stat_activity")]
            for process in (*backends, mortal.pid):
                _send(process, signal.SIGSTOP)
            try:
                async with asyncio.timeout(15):  # before the client's deadline of 20 seconds
                    with pytest.raises((Unavailable, DeadlineExceeded)):
                        await alice(bank.client.transfer(sender, recipient, rub("1"), "frozen"))
            finally:
                for process in (*backends, mortal.pid):
                    _send(process, signal.SIGCONT)
            await until_ready(bank.admin)
            receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), "frozen"))
            assert receipt.posting.version == 1
            await assert_ledger_invariants(bank.sql)


class TestSessionLost:
    async def test_session_lost_before_the_write_moves_money_once(self, own_bank: RunningBank) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        async with bank.sql.acquire() as other, other.transaction():
            await other.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", sender)
            transfer = asyncio.create_task(alice(bank.client.transfer(sender, recipient, rub("1"), "k")))
            await _terminate(bank.sql, "FOR NO KEY UPDATE")
            await until(
                lambda: find_lock_waiter(bank.sql, "FOR NO KEY UPDATE")
            )  # it is being run again, on a new session
        receipt = await transfer
        assert await alice(bank.client.transfer(sender, recipient, rub("1"), "k")) == receipt
        assert receipt.posting.version == 1
        await assert_ledger_invariants(bank.sql)

    @WAYS
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
            await until(lambda: find_lock_waiter(bank.sql, "COMMIT"))  # it is being run again, on a new session
        assert [_version(answer) for answer in await transfers] == list(range(1, count + 1))
        assert await alice(bank.client.batch_transfer(requests)) == await transfers
        assert (await bank.count_rows())["transfers"] == count
        await assert_ledger_invariants(bank.sql)

    async def test_session_lost_after_the_commit_moves_money_once(
        self, postgres: Postgres, ledger_url: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            _forgetful_road(postgres.port) as road,
            run_bank(keys, tmp_path, ledger_url.replace(f":{postgres.port}/", f":{road.port}/")) as bank,
            asyncpg.create_pool(ledger_url, min_size=0, max_size=2) as sql,
        ):
            alice, requests = bank.user("alice"), await _transfer_requests(bank, 2)
            road.forgets_commits = True
            transfers = asyncio.create_task(alice(bank.client.batch_transfer(requests)))
            made = await until(lambda: sql.fetchval("SELECT array_agg(id) FROM transfers"))  # and nobody was told
            assert not transfers.done()
            road.forgets_commits = False
            assert {_made(answer) for answer in await transfers} == set(made)
            assert await alice(bank.client.batch_transfer(requests)) == await transfers
            assert await sql.fetchval("SELECT count(*) FROM transfers") == 2
            await assert_ledger_invariants(sql)

    @WAYS
    async def test_session_lost_during_a_running_commit_moves_money_once(
        self, postgres: Postgres, ledger_url: str, keys: Keys, tmp_path: Path, count: int, committing: str
    ) -> None:
        async with (
            _forgetful_road(postgres.port) as road,
            run_bank(keys, tmp_path, ledger_url.replace(f":{postgres.port}/", f":{road.port}/")) as bank,
            asyncpg.create_pool(ledger_url, min_size=0, max_size=3) as sql,
        ):
            alice, requests = bank.user("alice"), await _transfer_requests(bank, count)
            await sql.execute(HOLD_COMMITS)
            async with sql.acquire() as other, other.transaction():
                await other.execute("SELECT pg_advisory_xact_lock(42)")
                transfers = asyncio.create_task(alice(bank.client.batch_transfer(requests)))
                await until(lambda: find_lock_waiter(sql, committing))
                road.cut()
                await until(lambda: find_lock_waiter(sql, "WITH named"))  # for the one that is still committing
                assert await sql.fetchval("SELECT count(*) FROM transfers") == 0
                assert not transfers.done()
            answers = await transfers
            made = await sql.fetchval("SELECT array_agg(id) FROM transfers")
            assert sorted(made) == sorted(_made(answer) for answer in answers)
            assert [_version(answer) for answer in answers] == list(range(1, count + 1))
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


async def _transfer_requests(bank: RunningBank, count: int) -> list[TransferRequest]:
    sender, recipient = await bank.open("alice"), await bank.open("bob")
    return [TransferRequest(sender, recipient, rub("1"), str(n)) for n in range(count)]


def _made(answer: Receipt | WalletError) -> UUID:
    assert isinstance(answer, Receipt)
    return answer.transfer.id


def _version(answer: Receipt | WalletError) -> int:
    assert isinstance(answer, Receipt)
    return answer.posting.version


def _send(process: int | None, number: signal.Signals) -> None:
    """To one process that a test froze or wakes; some end by themselves."""
    assert process is not None
    with suppress(ProcessLookupError):
        os.kill(process, number)


async def _terminate(sql: asyncpg.Pool, query: str) -> None:
    """Ends the session that waits in this query."""
    assert await sql.fetchval("SELECT pg_terminate_backend($1)", await until(lambda: find_lock_waiter(sql, query)))


class _Road:
    """What lies between the bank and its database, and may swallow the answer to a COMMIT and break off."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self.forgets_commits = False
        self._carrying: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Breaks off every connection there is. New ones are carried."""
        for way in self._carrying:
            way.cancel()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        broken = asyncio.Event()

        async def to_database() -> None:
            while data := await reader.read(2**16):
                if self.forgets_commits and b"COMMIT;" in data:
                    broken.set()
                back.write(data)

        async def to_bank() -> None:
            while data := await there.read(2**16):
                if broken.is_set():
                    return  # the database has answered: it is committed
                writer.write(data)

        ways = [asyncio.create_task(way()) for way in (to_database, to_bank)]
        self._carrying.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        self._carrying.difference_update(ways)
        for end in (writer, back):
            end.close()


@asynccontextmanager
async def _forgetful_road(to: int) -> AsyncIterator[_Road]:
    road = _Road(to)
    server = await asyncio.start_server(road.carry, "127.0.0.1", 0)
    road.port = server.sockets[0].getsockname()[1]
    async with server:
        yield road
