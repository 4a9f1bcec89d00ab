"""From a transfer to the history: a real ledger, its relay, Kafka, the consumer and ClickHouse, without the repair."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from subgraphs.analytics.service.domain.model import Direction, OperationFilter, OperationType
from subgraphs.analytics.service.domain.statistics import Granularity, StatisticsRange, Turnover
from tests.conftest import Keys
from tests.integration.analytics.environment import AnalyticsEnvironment, background
from tests.integration.analytics.ledger import assert_history_equals_ledger, open_load
from tests.integration.bank.harness import (
    RunningBank,
    bank_process,
    clearing_account,
    connect_bank,
    get_leader_pid,
    rub,
    run_bank,
    until_ready,
)
from tests.integration.bank.topic_reader import reading
from tests.kafka.brokers import on_apache
from tests.waiting import until

pytestmark = pytest.mark.slow

Run = Callable[[], AbstractAsyncContextManager[RunningBank]]


@pytest.fixture
def run(env: AnalyticsEnvironment, ledger_url: str, keys: Keys, tmp_path: Path) -> Run:
    """Return a function that runs a replica of the bank on the test's ledger and broker."""

    def run() -> AbstractAsyncContextManager[RunningBank]:
        return run_bank(keys, tmp_path, ledger_url, kafka_bootstrap_servers=env.kafka.bootstrap_servers)

    return run


class TestTopUp:
    async def test_top_up_is_in_the_history_and_in_the_statistics(self, env: AnalyticsEnvironment, run: Run) -> None:
        async with run() as bank, background(env.consumer().run()):
            alice, bob = await bank.open("alice", "0.00"), await bank.open("bob")
            descriptor = {"topUpId": "0197a0b0-0000-7000-8000-000000000001", "cardBrand": "MIR", "cardLastFour": "4242"}
            paid_in = await bank.service("card")(bank.client.deposit(alice, rub("50.25"), "t1", descriptor))
            sent = await bank.user("alice")(bank.client.transfer(alice, bob, rub("20.00"), "k"))
            await assert_history_equals_ledger(bank, env)
        conditions = OperationFilter(types=frozenset({OperationType.TOP_UP}))
        page = await env.history.get_page(alice, limit=10, older_than=None, newer_than=None, conditions=conditions)
        (row,) = page.rows
        assert (row.operation_id, row.direction, row.amount) == (paid_in.transfer.id, Direction.IN, Decimal("50.25"))
        assert (row.counterparty_id, row.balance_after) == (clearing_account(), Decimal("50.25"))
        after = sent.transfer.created_at + timedelta(seconds=1)
        frame = StatisticsRange(paid_in.transfer.created_at, after, Granularity.MONTH)
        statistics = await env.history.get_statistics(alice, frame, 2)
        assert statistics is not None
        turnovers = {kind: each for bucket in statistics.buckets for kind, each in bucket.turnovers.items()}
        assert turnovers == {
            (OperationType.TOP_UP, Direction.IN): Turnover(1, Decimal("50.25")),
            (OperationType.TRANSFER, Direction.OUT): Turnover(1, Decimal("20.00")),
        }


@on_apache
class TestBroker:
    async def test_history_equals_the_ledger_after_the_broker_was_killed_under_load(
        self, env: AnalyticsEnvironment, run: Run
    ) -> None:
        stop = asyncio.Event()
        async with run() as bank, background(env.consumer().run()):
            load = await open_load(bank)
            async with background(load.transfer_until(stop)) as making:
                await load.until_made(100)
                env.kafka.kill()
                await env.kafka.wait()
                await load.until_made(200)  # while the broker is down
                await env.kafka.start()
                await load.until_made(100)
                stop.set()
                await making
            await assert_history_equals_ledger(bank, env)


@on_apache
class TestRelay:
    async def test_events_of_a_relay_killed_before_removal_are_published_again(
        self, env: AnalyticsEnvironment, run: Run, keys: Keys, ledger_url: str, tmp_path: Path
    ) -> None:
        kafka = env.kafka
        leading, endpoint = bank_process(keys, tmp_path, ledger_url, kafka_bootstrap_servers=kafka.bootstrap_servers)
        async with leading, connect_bank(keys, ledger_url, endpoint) as killed, background(env.consumer().run()):
            await until_ready(killed.admin)
            old = await until(lambda: get_leader_pid(killed.sql))
            async with run() as second, run() as third, reading(kafka) as topic:
                load = await open_load(second)
                await load.make(5)
                await assert_history_equals_ledger(second, env)
                # The trigger blocks the removal of published rows, so the kill comes after the broker's confirmation.
                await second.sql.execute("""
                    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
                    BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
                    CREATE TRIGGER hold BEFORE DELETE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION hold();
                """)
                async with second.sql.acquire() as other:
                    await other.execute("SELECT pg_advisory_lock(42)")
                    await load.make(20)
                    assert await until(lambda: get_removing_pid(second.sql)) == old
                    leading.kill()
                    await leading.wait()
                    # End the relay's session, too, as if its machine were lost.
                    await other.execute("SELECT pg_terminate_backend($1)", old)
                    await other.execute("SELECT pg_advisory_unlock(42)")
                await load.make(5)
                await assert_history_equals_ledger(third, env)
                assert await get_leader_pid(third.sql) not in {None, old}
                await topic.until_read(load.ids)
                await topic.drain()
                assert len(topic.about(load.ids)) > len(load.ids)


async def get_removing_pid(sql: asyncpg.Pool) -> int | None:
    """Return the process id of the session that waits to remove published events from the outbox."""
    pid: int | None = await sql.fetchval("""
        SELECT pid FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM outbox%' AND datname = current_database()
    """)
    return pid
