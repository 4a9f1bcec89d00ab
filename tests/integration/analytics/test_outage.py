"""ClickHouse goes or drags while events keep coming. The outages last some two seconds, longer than any batch waits."""

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
from tests.integration.analytics.environment import AnalyticsEnvironment, beside
from tests.integration.analytics.group import PARTITIONS, Held, Load, ends
from tests.kafka.brokers import on_apache
from tests.waiting import until

pytestmark = pytest.mark.slow

OUTAGE_SECONDS = 2.0
LIMITS = ConsumerLimits(batch_size=25)


@pytest.fixture
async def apart(env: AnalyticsEnvironment, tmp_path: Path) -> AsyncIterator[AnalyticsEnvironment]:
    """The env with a ClickHouse of the test's own, which it may take away."""
    async with ClickHouse(tmp_path / "store", *free_ports(1)) as server:
        await upgrade(server.dsn("own"))
        async with Database.connect(server.dsn("own")) as own:
            # A busy machine may let a member be late, which is not what is looked at here.
            own_store = {"clickhouse_dsn": SecretStr(server.dsn("own")), "analytics_session_seconds": 10.0}
            settings = env.settings.model_copy(update=own_store)
            yield replace(env, clickhouse=server, database=own, settings=settings)


class Watched:
    """A consumer whose member of the group can be looked at."""

    def __init__(self, env: AnalyticsEnvironment, history: History) -> None:
        self._clients = env.kafka_clients
        self._member: AIOKafkaConsumer | None = None
        self.consumer = Consumer(history, env.repair(), self._new_member, self._clients.producer, LIMITS)

    def fetched(self) -> int:
        """How many messages of the topic the member has been handed by the broker; those in its buffers count."""
        assert self._member is not None
        return sum(self._member.highwater(TopicPartition(OPERATIONS_TOPIC, part)) or 0 for part in PARTITIONS)

    def _new_member(self) -> AIOKafkaConsumer:
        self._member = self._clients.group_consumer(main.NAME)
        return self._member


@on_apache
class TestClickHouseAway:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
    async def test_consumer_waits_for_clickhouse_with_bounded_memory(
        self, apart: AnalyticsEnvironment, how: signal.Signals
    ) -> None:
        load, stop = Load(apart), asyncio.Event()
        async with Database.connect(apart.settings.clickhouse_dsn.get_secret_value()) as database:
            watched = Watched(apart, History(database))

            async def waiting(count: int) -> bool:
                return await ends(apart) - watched.fetched() >= count

            async with beside(watched.consumer.run()), beside(load.published_until(stop)) as publishing:
                await until(lambda: _stored(load, 20))
                apart.clickhouse.send(how)
                over_at = asyncio.get_running_loop().time() + OUTAGE_SECONDS
                # One fetch a partition is in its buffers, and no more is asked for: the rest waits in the topic.
                await until(lambda: waiting(80))
                fetched = watched.fetched()
                await until(lambda: waiting(160))
                assert watched.fetched() == fetched
                await asyncio.sleep(over_at - asyncio.get_running_loop().time())
                if how is signal.SIGSTOP:
                    apart.clickhouse.send(signal.SIGCONT)
                else:
                    await apart.clickhouse.stop()
                    await apart.clickhouse.start()
                stop.set()
                await publishing
                await load.is_stored()


@on_apache
class TestClickHouseSlow:
    async def test_slow_clickhouse_does_not_enlarge_batches(self, env: AnalyticsEnvironment) -> None:
        class Slow(Held):
            async def insert(self, rows: Sequence[Row]) -> None:
                await asyncio.sleep(0.15)
                await super().insert(rows)

        load, slow = Load(env), Slow(env.database)
        async with beside(env.consumer(LIMITS, history=slow).run()):
            await load.publish(300)
            await load.is_stored()
        assert slow.largest == 2 * LIMITS.batch_size


async def _stored(load: Load, rows: int) -> bool:
    return await load.sides_stored() >= rows
