"""The event pipeline after long outages and after a minute of random kills.

The outages last longer than every time-out, or until the broker has dropped messages.
"""

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from stack.engines.children import ClickHouse
from stack.ports import free_ports
from stack.process import Child
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.migrations.schema import upgrade
from subgraphs.bank.client import Receipt, TransferRequest
from tests.conftest import Keys
from tests.integration.analytics.conftest import clean_databases, clickhouse, database, env  # noqa: F401  fixtures
from tests.integration.analytics.environment import AnalyticsEnvironment, background
from tests.integration.analytics.group import analytics_process, count_dropped_messages, count_messages
from tests.integration.analytics.ledger import assert_history_equals_ledger, open_load, outbox_is_empty
from tests.integration.bank.harness import RunningBank, get_leader_pid, rub, run_bank
from tests.kafka.brokers import on_apache
from tests.waiting import until

Run = Callable[[], AbstractAsyncContextManager[RunningBank]]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

OUTAGE_SECONDS = 25.0
"""Longer than the time-outs of the producer, of ClickHouse, of the outbox leader and of a group member's session."""
CHAOS_SECONDS = 60.0


@pytest.fixture
async def separate_env(env: AnalyticsEnvironment, tmp_path: Path) -> AsyncIterator[AnalyticsEnvironment]:  # noqa: F811  the fixture
    """The environment with a separate ClickHouse, which the test may kill."""
    async with ClickHouse(tmp_path / "store", *free_ports(1)) as server:
        await upgrade(server.dsn("own"))
        async with Database.connect(server.dsn("own")) as own:
            settings = env.settings.model_copy(update={"clickhouse_dsn": SecretStr(server.dsn("own"))})
            yield replace(env, clickhouse=server, database=own, settings=settings)


@pytest.fixture
def run(separate_env: AnalyticsEnvironment, ledger_url: str, keys: Keys, tmp_path: Path) -> Run:
    def run() -> AbstractAsyncContextManager[RunningBank]:
        return run_bank(keys, tmp_path, ledger_url, kafka_bootstrap_servers=separate_env.kafka.bootstrap_servers)

    return run


@on_apache
@pytest.mark.parametrize("lost", ["kafka", "clickhouse"])
async def test_long_outage_under_load_loses_no_events(separate_env: AnalyticsEnvironment, run: Run, lost: str) -> None:
    child: Child = separate_env.kafka if lost == "kafka" else separate_env.clickhouse
    stop = asyncio.Event()
    async with run() as bank, analytics_process(separate_env):
        load = await open_load(bank)
        async with background(load.transfer_until(stop)) as making:
            await load.until_made(100)
            child.kill()
            await child.wait()
            await asyncio.sleep(OUTAGE_SECONDS)
            await child.start()
            await load.until_made(100)
            stop.set()
            await making
        await assert_history_equals_ledger(bank, separate_env, within=90)


async def test_history_is_complete_after_50000_transfers_without_analytics(
    separate_env: AnalyticsEnvironment, run: Run
) -> None:
    """The broker drops its oldest messages, because the two senders' events exceed the limit of their partitions."""
    async with run() as bank:
        analytics = analytics_process(separate_env, bank_target=bank.target)
        senders = [await bank.open("alice", "1000000.00") for _ in range(2)]
        recipients = [await bank.open("bob") for _ in range(8)]
        pairs = itertools.cycle(itertools.product(senders, recipients))

        async def transfer(count: int) -> None:
            requests = [TransferRequest(*next(pairs), rub("0.01"), str(uuid.uuid4())) for _ in range(count)]
            results = await bank.user("alice")(bank.client.batch_transfer(requests))
            assert all(isinstance(result, Receipt) for result in results)

        async with analytics:
            await transfer(100)
            await assert_history_equals_ledger(bank, separate_env)
        read = await count_messages(separate_env)
        for _ in range(10):
            await transfer(5_000)
        await until(lambda: outbox_is_empty(bank.sql), within=120)
        assert await count_dropped_messages(separate_env) > read
        async with analytics:
            await assert_history_equals_ledger(bank, separate_env, within=180)


@on_apache
@pytest.mark.parametrize("seed", [1, 2])
async def test_history_equals_the_ledger_after_random_kills(
    separate_env: AnalyticsEnvironment, run: Run, seed: int
) -> None:
    rng, stop = random.Random(seed), asyncio.Event()
    members = [analytics_process(separate_env) for _ in range(3)]
    async with AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member)
        await stack.enter_async_context(run())
        bank = await stack.enter_async_context(run())
        load = await open_load(bank)
        async with background(load.transfer_until(stop)) as making:
            over_at = asyncio.get_running_loop().time() + CHAOS_SECONDS
            while asyncio.get_running_loop().time() < over_at:
                victim = rng.choice([separate_env.kafka, separate_env.clickhouse, "leader", *members])
                if isinstance(victim, str):
                    await bank.sql.execute("SELECT pg_terminate_backend($1)", await get_leader_pid(bank.sql))
                    continue
                victim.kill()
                await victim.wait()
                await asyncio.sleep(rng.uniform(0, 4))
                await victim.spawn()  # the next victim may be killed before this one is ready
                await asyncio.sleep(rng.uniform(0, 4))
            stop.set()
            await making
        for child in (separate_env.kafka, separate_env.clickhouse, *members):
            await child.until_ready(60)
        await assert_history_equals_ledger(bank, separate_env, within=90)
