"""ClickHouse fails or is slow under load. An outage lasts two seconds, longer than a batch waits for messages."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from asyncapi.topics import OPERATIONS_TOPIC
from stack.engines.children import ClickHouse
from stack.ports import free_ports
from subgraphs.analytics.service import __main__ as main
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application.consumer import Consumer, ConsumerLimits
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.migrations.schema import upgrade
from tests.integration.analytics.environment import AnalyticsEnvironment, background
from tests.integration.analytics.group import PARTITIONS, BlockedHistory, Load, count_messages
from tests.kafka.brokers import on_apache
from tests.waiting import until

pytestmark = pytest.mark.slow

OUTAGE_SECONDS = 2.0
LIMITS = ConsumerLimits(batch_size=25)


@pytest.fixture
async def separate_clickhouse(env: AnalyticsEnvironment, tmp_path: Path) -> AsyncIterator[AnalyticsEnvironment]:
    """Environment with a separate ClickHouse, which the test may kill."""
    async with ClickHouse(tmp_path / "store", *free_ports(1)) as server:
        await upgrade(server.dsn("own"))
        async with Database.connect(server.dsn("own")) as own:
            # A long session, because on a busy machine a member may send its heartbeats late.
            own_store = {"clickhouse_dsn": SecretStr(server.dsn("own")), "analytics_session_seconds": 10.0}
            settings = env.settings.model_copy(update=own_store)
            yield replace(env, clickhouse=server, database=own, settings=settings)


class InspectedConsumer:
    """Consumer with access to its group member."""

    def __init__(self, env: AnalyticsEnvironment, history: History) -> None:
        self._clients = env.kafka_clients
        self._member: AIOKafkaConsumer | None = None
        self.consumer = Consumer(history, env.repair(), self._new_member, self._clients.producer, LIMITS)

    def fetched(self) -> int:
        """Return the number of messages that the member has consumed or buffered, according to its last fetches."""
        assert self._member is not None
        return sum(self._member.highwater(TopicPartition(OPERATIONS_TOPIC, part)) or 0 for part in PARTITIONS)

    def _new_member(self) -> AIOKafkaConsumer:
        self._member = self._clients.group_consumer(main.NAME)
        return self._member


@on_apache
class TestClickHouseOutage:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
    async def test_consumer_waits_for_clickhouse_with_bounded_memory(
        self, separate_clickhouse: AnalyticsEnvironment, how: signal.Signals
    ) -> None:
        load, stop = Load(separate_clickhouse), asyncio.Event()
        async with Database.connect(separate_clickhouse.settings.clickhouse_dsn.get_secret_value()) as database:
            watched = InspectedConsumer(separate_clickhouse, History(database))

            async def waiting(count: int) -> bool:
                return await count_messages(separate_clickhouse) - watched.fetched() >= count

            async with background(watched.consumer.run()), background(load.publish_until(stop)) as publishing:
                await until(lambda: _stored(load, 20))
                separate_clickhouse.clickhouse.send(how)
                outage_ends_at = asyncio.get_running_loop().time() + OUTAGE_SECONDS
                # The member buffers one fetch per partition. The other messages stay in the topic.
                await until(lambda: waiting(80))
                fetched = watched.fetched()
                await until(lambda: waiting(160))
                assert watched.fetched() == fetched
                await asyncio.sleep(outage_ends_at - asyncio.get_running_loop().time())
                if how is signal.SIGSTOP:
                    separate_clickhouse.clickhouse.send(signal.SIGCONT)
                else:
                    await separate_clickhouse.clickhouse.stop()
                    await separate_clickhouse.clickhouse.start()
                stop.set()
                await publishing
                await load.until_stored()


@on_apache
class TestClickHouseSlow:
    async def test_slow_clickhouse_does_not_enlarge_batches(self, env: AnalyticsEnvironment) -> None:
        class Slow(BlockedHistory):
            async def insert(self, rows: Sequence[Row]) -> None:
                await asyncio.sleep(0.15)
                await super().insert(rows)

        load, slow = Load(env), Slow(env.database)
        async with background(env.consumer(LIMITS, history=slow).run()):
            await load.publish(300)
            await load.until_stored()
        assert slow.largest == 2 * LIMITS.batch_size


async def _stored(load: Load, rows: int) -> bool:
    return await load.count_rows() >= rows
