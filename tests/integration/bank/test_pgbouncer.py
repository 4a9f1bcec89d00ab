"""Banks behind PgBouncer, in session mode and in transaction mode."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from kit.db.postgres import set_session_statement
from stack.engines.postgres import Postgres
from subgraphs.bank.client import Receipt, TransferRequest
from subgraphs.bank.service.adapters.postgres.database import (
    _SETTINGS,
    MissingRoleSettings,
    check_role_settings,
    connection,
    open_pool,
)
from subgraphs.bank.service.adapters.postgres.outbox import LeadershipLost, Outbox
from subgraphs.bank.service.adapters.postgres.sessions import Sessions
from tests.conftest import Keys
from tests.integration.bank.harness import (
    RunningBank,
    admin_client,
    assert_ledger_invariants,
    bank_process,
    get_leader_pid,
    rub,
    run_bank,
)
from tests.integration.bank.topic_reader import reading
from tests.kafka.brokers import Broker
from tests.pgbouncer import run_pgbouncer
from tests.waiting import until
from wallet.errors import Unavailable

OPERATIONS = 60


@pytest.fixture
async def pooled_role(postgres: Postgres, ledger_url: str) -> AsyncIterator[str]:
    """URL of the ledger for a role that has the bank's settings as defaults."""
    admin = await asyncpg.connect(ledger_url)
    role = "pooled_bank"
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pooled'")
    await admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    for name, value in _SETTINGS.items():
        await admin.execute(f"ALTER ROLE {role} SET {name} = '{value}'")
    scheme, _, rest = ledger_url.partition("://")
    yield f"{scheme}://{role}:pooled@{rest.partition('@')[2]}"
    await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await admin.close()


async def assert_banks_work(banks: list[RunningBank], sql: asyncpg.Pool, broker: Broker) -> None:
    """Make transfers at all banks. Assert that each transfer can be read and repeated, and is published once."""
    async with reading(broker) as topic:
        first = banks[0]
        sender, recipient = await first.open("alice", "1000"), await first.open("bob", "0")
        alice = first.user("alice")

        async def transfer(n: int) -> str:
            client = banks[n % len(banks)].client
            receipt = await alice(client.transfer(sender, recipient, rub("1"), str(n)))
            assert await alice(client.get_transfer(receipt.transfer.id)) == receipt.transfer
            return str(receipt.transfer.id)

        ids = await asyncio.gather(*map(transfer, range(OPERATIONS)))
        assert await asyncio.gather(*map(transfer, range(OPERATIONS))) == ids
        requests = [TransferRequest(sender, recipient, rub("1"), f"batch {n}") for n in range(OPERATIONS)]
        results = await alice(banks[-1].client.batch_transfer(requests))
        receipts = [result for result in results if isinstance(result, Receipt)]
        assert [receipt.posting.version for receipt in receipts] == list(range(OPERATIONS + 1, 2 * OPERATIONS + 1))

        async def is_published() -> bool:
            return not await sql.fetchval("SELECT count(*) FROM outbox")

        await until(is_published, within=20)
        await topic.drain()
        published = Counter(message.transfer_id for message in topic.messages)
        assert published == Counter([*ids, *(str(receipt.transfer.id) for receipt in receipts)])
    await assert_ledger_invariants(sql)
    async with admin_client(first) as http:
        assert '"verdict":"sound"' in (await http.get("/integrity")).text


@pytest.fixture
async def sql(ledger_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Pool of connections that bypass PgBouncer."""
    async with asyncpg.create_pool(ledger_url, min_size=0, max_size=4) as sql:
        yield sql


@pytest.mark.slow
async def test_banks_work_in_session_mode_with_default_settings(
    ledger_url: str, sql: asyncpg.Pool, keys: Keys, tmp_path: Path, embedded: Broker
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(run_pgbouncer(ledger_url, "session"))
        settings = {"kafka_bootstrap_servers": embedded.bootstrap_servers, "bank_database_connections": 10}
        banks = [await stack.enter_async_context(run_bank(keys, tmp_path, url, **settings)) for _ in range(2)]
        await assert_banks_work(banks, sql, embedded)


@pytest.mark.slow
async def test_banks_work_in_transaction_mode_with_a_direct_url(
    pooled_role: str, sql: asyncpg.Pool, keys: Keys, tmp_path: Path, embedded: Broker
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(run_pgbouncer(pooled_role, "transaction"))
        settings = {"kafka_bootstrap_servers": embedded.bootstrap_servers, "bank_database_direct_url": pooled_role}
        banks = [await stack.enter_async_context(run_bank(keys, tmp_path, url, **settings)) for _ in range(2)]
        await assert_banks_work([replace(bank, sql=sql) for bank in banks], sql, embedded)


@pytest.mark.slow
@pytest.mark.parametrize("direct", ["no", "pooled", "without role settings"])
async def test_bank_with_wrong_connection_settings_is_not_ready_in_transaction_mode(
    ledger_url: str, sql: asyncpg.Pool, keys: Keys, tmp_path: Path, embedded: Broker, direct: str
) -> None:
    async with run_pgbouncer(ledger_url, "transaction") as url:
        urls = {"pooled": url, "without role settings": ledger_url}
        settings: dict[str, Any] = {"bank_database_direct_url": urls[direct]} if direct in urls else {}
        child, environment = bank_process(
            keys, tmp_path, url, kafka_bootstrap_servers=embedded.bootstrap_servers, **settings
        )
        await child.start()
        try:
            async with httpx.AsyncClient(trust_env=False) as http:

                async def ready() -> httpx.Response:
                    return await http.get(f"http://{environment['bank_admin_listen']}/health/ready")

                name = "MissingRoleSettings" if direct == "without role settings" else "SharedSessions"
                assert ((await ready()).status_code, (await ready()).json()["checks"]["database"]) == (503, name)
        finally:
            await child.stop()
        assert await get_leader_pid(sql) is None


async def test_missing_role_settings_are_named_with_the_statements_that_set_them(ledger_url: str) -> None:
    async with open_pool(ledger_url, max_size=1, shares_sessions=True) as pool:
        with pytest.raises(MissingRoleSettings) as caught:
            await check_role_settings(pool)
    for name, value in _SETTINGS.items():
        assert f"ALTER ROLE postgres SET {name} = '{value}';" in str(caught.value)


async def test_pool_behind_transaction_mode_leaves_no_settings_in_shared_sessions(ledger_url: str) -> None:
    async with run_pgbouncer(ledger_url, "transaction") as url:
        async with open_pool(url, max_size=2) as pool:
            with pytest.raises(Unavailable):
                async with connection(pool):
                    pass
        client = await asyncpg.connect(url, statement_cache_size=0)
        values = {name: await client.fetchval(f"SHOW {name}") for name in _SETTINGS}
        await client.close()
        assert not values.items() & _SETTINGS.items()


async def test_settings_that_a_client_left_in_shared_sessions_do_not_count_as_role_settings(ledger_url: str) -> None:
    async with run_pgbouncer(ledger_url, "transaction") as url:
        client = await asyncpg.connect(url, statement_cache_size=0)
        await client.execute(set_session_statement(_SETTINGS))
        await client.close()
        async with open_pool(url, max_size=1, shares_sessions=True) as pool:
            assert await pool.fetchval("SHOW jit") == "off"  # the session that `client` has used
            with pytest.raises(MissingRoleSettings):
                await check_role_settings(pool)


async def test_role_settings_that_are_lost_later_make_the_bank_not_ready(pooled_role: str, ledger_url: str) -> None:
    async with (
        run_pgbouncer(pooled_role, "transaction") as url,
        open_pool(url, max_size=1, shares_sessions=True) as pool,
    ):
        sessions = Sessions(pooled_role, pool)
        await sessions.check()
        admin = await asyncpg.connect(ledger_url)
        await admin.execute("ALTER ROLE pooled_bank RESET jit")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pooled_bank'")
        await admin.close()

        async def is_refused() -> bool:
            try:
                await sessions.check()
            except Unavailable:  # the lost session
                return False
            except MissingRoleSettings:
                return True
            return False

        await until(is_refused)


async def test_session_that_lost_the_lock_neither_reads_nor_deletes(ledger_url: str, sql: asyncpg.Pool) -> None:
    await sql.execute("INSERT INTO outbox (transfer_id) VALUES (uuidv7())")
    async with open_pool(ledger_url, max_size=1) as pool, Outbox.lead(pool) as leading:
        assert leading is not None
        await leading._session.execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(LeadershipLost):
            await leading.read(1)
        with pytest.raises(LeadershipLost):
            await leading.delete([1])
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 1
