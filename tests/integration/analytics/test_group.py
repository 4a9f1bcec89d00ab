"""Members of the consumer group join, leave and are killed. Only Apache Kafka rebalances a group."""

import asyncio
import signal

import pytest

from subgraphs.analytics.service.application.consumer import ConsumerLimits
from subgraphs.analytics.service.application.repair import Repair
from tests.integration.analytics.environment import AnalyticsEnvironment, background
from tests.integration.analytics.group import BlockedHistory, Gate, Load, analytics_process, until_group_size
from tests.kafka.brokers import on_apache
from tests.stopping import assert_stops
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def first(env: AnalyticsEnvironment) -> BlockedHistory:
    """History of the first member."""
    return BlockedHistory(env.database)


class RecordingRepair(Repair):
    """Repair that counts the calls of `suspect_all`."""

    def __init__(self, env: AnalyticsEnvironment) -> None:
        super().__init__(env.history, env.ledger, env.epochs, period_seconds=1, grace_seconds=0)
        self.suspected = 0

    def suspect_all(self) -> None:
        self.suspected += 1


async def has_committed(env: AnalyticsEnvironment, count: int) -> bool:
    return await env.committed() >= count


@on_apache
class TestRebalance:
    async def test_rebalances_during_batches_lose_nothing(
        self, env: AnalyticsEnvironment, first: BlockedHistory
    ) -> None:
        load, limits = Load(env), ConsumerLimits(batch_size=20)
        first.block()
        async with background(env.consumer(limits, history=first).run()):
            await load.publish(100)
            await first.is_blocking.wait()
            async with background(env.consumer(limits).run()):
                await until_group_size(env, 2)
                async with background(env.consumer(limits).run()):
                    await until_group_size(env, 3)
                    await load.publish(50)
                    first.release()
                    await load.until_stored()
                    first.block()
                    await load.publish(50)
                    await first.is_blocking.wait()
                await until_group_size(env, 2)
                await load.publish(50)
            await until_group_size(env, 1)
            first.release()
            await load.publish(50)
            await load.until_stored()

    async def test_offsets_committed_by_another_member_are_no_gap(self, env: AnalyticsEnvironment) -> None:
        load, repair = Load(env), RecordingRepair(env)
        async with background(env.consumer(repair=repair).run()):
            await load.publish(20)
            await load.until_stored()
            async with background(env.consumer(repair=repair).run()):
                await until_group_size(env, 2)
                await load.publish(20)
                await load.until_stored()
            await until_group_size(env, 1)
            await load.publish(20)
            await load.until_stored()
        assert repair.suspected == 2  # one call by each member, at its start

    async def test_batch_that_ends_after_a_rebalance_does_not_reset_offsets(
        self, env: AnalyticsEnvironment, first: BlockedHistory
    ) -> None:
        load, repair = Load(env), RecordingRepair(env)
        async with background(env.consumer(repair=repair, history=first).run()):
            await load.publish(20)
            await load.until_stored()
            first.block()
            await load.publish(4)
            await first.is_blocking.wait()
            async with background(env.consumer(repair=repair).run()):
                await until_group_size(env, 2)
                await load.publish(20)
                await until(lambda: has_committed(env, 30))
            await until_group_size(env, 1)
            first.release()
            await load.until_stored()
        assert repair.suspected == 2

    async def test_partitions_of_a_killed_member_are_reassigned(self, env: AnalyticsEnvironment) -> None:
        load, gate = Load(env), Gate(env)
        async with gate.serve(env) as dsn, analytics_process(env, dsn) as killed, background(env.consumer().run()):
            await until_group_size(env, 2)
            await load.publish(40)
            await load.until_stored()
            gate.close()
            publishing = asyncio.create_task(load.publish(100))
            await gate.is_holding.wait()
            killed.kill()
            await killed.wait()
            await publishing
            await load.until_stored()
            await until_group_size(env, 1)


@on_apache
class TestStop:
    async def test_stopped_member_commits_its_current_batch(self, env: AnalyticsEnvironment) -> None:
        load, gate = Load(env), Gate(env)
        async with gate.serve(env) as dsn, analytics_process(env, dsn) as member:
            await load.publish(20)
            await load.until_stored()
            gate.close()
            await load.publish(20)
            await gate.is_holding.wait()
            member.send(signal.SIGTERM)
            gate.open()
            await assert_stops(member)
        done = await env.committed()
        assert done > 20
        assert await load.count_rows() == 2 * done


@on_apache
class TestKill:
    async def test_member_killed_between_insert_and_commit_loses_nothing(self, env: AnalyticsEnvironment) -> None:
        load, gate = Load(env), Gate(env)
        async with gate.serve(env) as dsn:
            async with analytics_process(env, dsn) as consumer:
                await load.publish(20)
                await load.until_stored()
                consumer.kill()
                await consumer.wait()
            await load.publish(20)
            async with analytics_process(env, dsn) as consumer:
                await load.until_stored()
                gate.close()
                await load.publish(20)
                await gate.is_holding.wait()

                async def is_inserted() -> bool:
                    return await load.count_rows() > 80

                await until(is_inserted)
                assert await env.committed() == 40
                consumer.kill()
                await consumer.wait()
        assert await env.committed() == 40
        async with analytics_process(env):
            await load.publish(20)
            await load.until_stored()
