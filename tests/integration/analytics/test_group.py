"""Consumers share the topic, come, go and are killed. Apache Kafka alone balances a group."""

import asyncio
import signal

import pytest

from subgraphs.analytics.service.application.consumer import ConsumerLimits
from subgraphs.analytics.service.application.repair import Repair
from tests.integration.analytics.environment import AnalyticsEnvironment, beside
from tests.integration.analytics.group import Gate, Held, Load, joined, process
from tests.kafka.brokers import on_apache
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def first(env: AnalyticsEnvironment) -> Held:
    """The history of the member that is there first."""
    return Held(env.database)


class Notes(Repair):
    """Counts how often all is suspected."""

    def __init__(self, env: AnalyticsEnvironment) -> None:
        super().__init__(env.history, env.ledger, period_seconds=1, grace_seconds=0)
        self.suspected = 0

    def suspect_all(self) -> None:
        self.suspected += 1


async def has_done_with(env: AnalyticsEnvironment, count: int) -> bool:
    return await env.committed() >= count


@on_apache
class TestRebalance:
    async def test_rebalances_during_batches_lose_nothing(self, env: AnalyticsEnvironment, first: Held) -> None:
        load, limits = Load(env), ConsumerLimits(batch_size=20)
        first.hold()
        async with beside(env.consumer(limits, history=first).run()):
            await load.publish(100)
            await first.waits.wait()
            async with beside(env.consumer(limits).run()):
                await joined(env, 2)
                async with beside(env.consumer(limits).run()):
                    await joined(env, 3)
                    await load.publish(50)
                    first.may_go.set()
                    await load.is_stored()
                    first.hold()
                    await load.publish(50)
                    await first.waits.wait()
                await joined(env, 2)
                await load.publish(50)
            await joined(env, 1)
            first.may_go.set()
            await load.publish(50)
            await load.is_stored()

    async def test_offsets_committed_by_another_member_are_no_gap(self, env: AnalyticsEnvironment) -> None:
        load, repair = Load(env), Notes(env)
        async with beside(env.consumer(repair=repair).run()):
            await load.publish(20)
            await load.is_stored()
            async with beside(env.consumer(repair=repair).run()):
                await joined(env, 2)
                await load.publish(20)
                await load.is_stored()
            await joined(env, 1)
            await load.publish(20)
            await load.is_stored()
        assert repair.suspected == 2  # by each when it began

    async def test_batch_that_ends_after_a_rebalance_does_not_reset_offsets(
        self, env: AnalyticsEnvironment, first: Held
    ) -> None:
        load, repair = Load(env), Notes(env)
        async with beside(env.consumer(repair=repair, history=first).run()):
            await load.publish(20)
            await load.is_stored()
            first.hold()
            await load.publish(4)
            await first.waits.wait()
            async with beside(env.consumer(repair=repair).run()):
                await joined(env, 2)
                await load.publish(20)
                await until(lambda: has_done_with(env, 30))
            await joined(env, 1)
            first.may_go.set()
            await load.is_stored()
        assert repair.suspected == 2

    async def test_killed_member_is_replaced_within_its_session(self, env: AnalyticsEnvironment) -> None:
        load, gate = Load(env), Gate(env)
        async with gate.opened(env) as dsn, process(env, dsn) as killed, beside(env.consumer().run()):
            await joined(env, 2)
            await load.publish(40)
            await load.is_stored()
            gate.shut()
            publishing = asyncio.create_task(load.publish(100))
            await gate.holds.wait()
            killed.kill()
            await killed.wait()
            await publishing
            await load.is_stored()
            await joined(env, 1)


@on_apache
class TestStop:
    async def test_stopped_member_commits_its_current_batch(self, env: AnalyticsEnvironment) -> None:
        load, gate = Load(env), Gate(env)
        async with gate.opened(env) as dsn, process(env, dsn) as member:
            await load.publish(20)
            await load.is_stored()
            gate.shut()
            await load.publish(20)
            await gate.holds.wait()
            member.send(signal.SIGTERM)
            gate.open()
            assert await member.wait() == 0
        done = await env.committed()
        assert done > 20
        assert await load.sides_stored() == 2 * done


@on_apache
class TestKill9:
    async def test_member_killed_between_insert_and_commit_loses_nothing(self, env: AnalyticsEnvironment) -> None:
        load, gate = Load(env), Gate(env)
        async with gate.opened(env) as dsn:
            async with process(env, dsn) as consumer:
                await load.publish(20)
                await load.is_stored()
                consumer.kill()
                await consumer.wait()
            await load.publish(20)
            async with process(env, dsn) as consumer:
                await load.is_stored()
                gate.shut()
                await load.publish(20)
                await gate.holds.wait()
                assert await load.sides_stored() > 80
                assert await env.committed() == 40
                consumer.kill()
                await consumer.wait()
        assert await env.committed() == 40
        async with process(env):
            await load.publish(20)
            await load.is_stored()
