"""The bank as a process: `python -m subgraphs.bank.service`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from kit.db.migrations import upgrade
from stack.engines.children import Kafka
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.ports import free_ports
from stack.process import Child
from tests.conftest import Keys
from tests.integration.bank.harness import (
    RunningBank,
    assert_ledger_invariants,
    bank_process,
    connect_bank,
    count_rows,
    rub,
    until_ready,
)
from tests.migration_jobs import URL_PARAMETERS, count_named_sessions, migrate
from tests.stopping import assert_stops
from tests.waiting import until
from wallet.errors import DeadlineExceeded, Unavailable

pytestmark = pytest.mark.slow

CreateProcess = Callable[..., tuple[Child, dict[str, str]]]


@pytest.fixture
async def create_process(keys: Keys, tmp_path: Path) -> AsyncIterator[CreateProcess]:
    """Return a function that creates bank processes; they are stopped at the end of the test."""
    children = []

    def create_process(database_url: str, **settings: Any) -> tuple[Child, dict[str, str]]:
        child, environment = bank_process(keys, tmp_path, database_url, **settings)
        children.append(child)
        return child, environment

    yield create_process
    for child in children:
        await child.stop()


class TestStart:
    async def test_bank_starts_before_its_dependencies_and_becomes_ready_with_them(
        self, create_process: CreateProcess, keys: Keys, tmp_path: Path
    ) -> None:
        postgres_port, kafka_port = free_ports(2)
        postgres, kafka = Postgres(tmp_path / "postgres", postgres_port, databases=("bank",)), Kafka(kafka_port)
        child, environment = create_process(postgres.dsn("bank"), kafka_bootstrap_servers=kafka.bootstrap_servers)
        try:
            await child.start()
            admin = f"http://{environment['bank_admin_listen']}/health/ready"
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(admin)).json()["checks"] == {
                    "database": "Unavailable",
                    "disk": "ok",
                    "keys": "ok",
                }
            async with postgres, connect_bank(keys, postgres.dsn("bank"), environment) as bank:
                await asyncio.to_thread(upgrade, "subgraphs.bank.service.migrations", postgres.dsn("bank"))
                await until_ready(bank.admin)
                sender, recipient = await bank.open("alice"), await bank.open("bob")
                await bank.user("alice")(bank.client.transfer(sender, recipient, rub("1"), "k"))
                async with kafka:
                    await until(lambda: _outbox_is_empty(bank.sql), within=20)
                await child.stop()
        finally:
            await child.stop()
            remove_cluster(tmp_path / "postgres")

    async def test_bank_and_its_migration_start_with_parameters_in_the_url(
        self, create_process: CreateProcess, ledger_url: str, broker: Kafka
    ) -> None:
        url = f"{ledger_url}?{URL_PARAMETERS}"
        assert await migrate("bank", BANK_DATABASE_URL=ledger_url, BANK_DATABASE_DIRECT_URL=url) == (0, [])
        child, environment = create_process(
            url, bank_database_read_url=url, kafka_bootstrap_servers=broker.bootstrap_servers
        )
        await child.start()
        await until_ready(f"http://{environment['bank_admin_listen']}")
        assert await count_named_sessions(ledger_url)


class TestStop:
    async def test_sigterm_stops_the_bank_with_status_0(
        self, create_process: CreateProcess, ledger_url: str, broker: Kafka
    ) -> None:
        child, environment = create_process(ledger_url, kafka_bootstrap_servers=broker.bootstrap_servers)
        await child.start()
        await until_ready(f"http://{environment['bank_admin_listen']}")
        child.send(signal.SIGTERM)
        await assert_stops(child)

    async def test_sigterm_stops_the_bank_without_dependencies(self, create_process: CreateProcess) -> None:
        postgres, kafka = free_ports(2)
        nowhere = f"postgresql://bank:x@127.0.0.1:{postgres}/bank"
        child, _ = create_process(nowhere, kafka_bootstrap_servers=f"127.0.0.1:{kafka}")
        await child.start()
        child.send(signal.SIGTERM)
        await assert_stops(child)

    async def test_running_transfer_completes_after_sigterm(
        self, create_process: CreateProcess, ledger_url: str, keys: Keys
    ) -> None:
        child, environment = create_process(ledger_url)
        await child.start()
        async with connect_bank(keys, ledger_url, environment) as bank:
            await until_ready(bank.admin)
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            async with bank.sql.acquire() as other, other.transaction():
                await other.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", sender)
                alice = bank.user("alice")
                begun = asyncio.create_task(alice(bank.client.transfer(sender, recipient, rub("1"), "k")))
                await until(lambda: _waits_for_a_lock(bank.sql))
                child.send(signal.SIGTERM)
            assert (await begun).posting.version == 1
            await assert_stops(child)

    async def test_port_in_use_ends_the_bank_with_an_error(
        self, create_process: CreateProcess, ledger_url: str
    ) -> None:
        first, environment = create_process(ledger_url)
        await first.start()
        second, _ = create_process(ledger_url, bank_grpc_listen=environment["bank_grpc_listen"])
        await second.spawn()
        assert await second.wait() == 1


class TestKill:
    async def test_acknowledged_transfers_survive_a_kill_under_load(
        self, create_process: CreateProcess, ledger_url: str, keys: Keys, broker: Kafka
    ) -> None:
        child, environment = create_process(ledger_url, kafka_bootstrap_servers=broker.bootstrap_servers)
        await child.start()
        async with connect_bank(keys, ledger_url, environment) as bank:
            await until_ready(bank.admin)
            accounts = [await bank.open("alice", "100.00") for _ in range(4)]
            acknowledged: dict[str, UUID] = {}
            enough = asyncio.Event()
            load = asyncio.gather(*(_retry_transfers(bank, accounts, n, acknowledged, enough) for n in range(150)))
            await enough.wait()
            child.kill()
            assert await child.wait() == -signal.SIGKILL
            known = dict(acknowledged)
            assert len(known) < 1500
            committed = {row["id"] for row in await bank.sql.fetch("SELECT id FROM transfers")}
            assert set(known.values()) <= committed

            await child.start()
            async with asyncio.timeout(30):
                await load
            assert known.items() <= acknowledged.items()
            assert (await count_rows(bank.sql))["transfers"] == 1500
            assert {row["id"] for row in await bank.sql.fetch("SELECT id FROM transfers")} == set(acknowledged.values())
            await until(lambda: _outbox_is_empty(bank.sql), within=20)
            await assert_ledger_invariants(bank.sql)


async def _retry_transfers(
    bank: RunningBank, accounts: list[UUID], n: int, acknowledged: dict[str, UUID], enough: asyncio.Event
) -> None:
    """Make ten transfers in order and retry each with its key until it is acknowledged."""
    alice, sender, recipient = bank.user("alice"), accounts[n % 4], accounts[(n + 1) % 4]
    for key in (f"{n}-{turn}" for turn in range(10)):
        while key not in acknowledged:
            with suppress(Unavailable, DeadlineExceeded):
                receipt = await alice(bank.client.transfer(sender, recipient, rub("1"), key))
                acknowledged[key] = receipt.transfer.id
                if len(acknowledged) == 300:
                    enough.set()


async def _outbox_is_empty(sql: asyncpg.Pool) -> bool:
    return not await sql.fetchval("SELECT count(*) FROM outbox")


async def _waits_for_a_lock(sql: asyncpg.Pool) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await sql.fetchval(query))
