"""The embedded broker keeps 5 MiB per partition and drops the oldest messages, consumed or not."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from subgraphs.analytics.service import metrics
from tests.conftest import Keys
from tests.integration.analytics.environment import AnalyticsEnvironment, run_analytics, until_equal
from tests.integration.analytics.group import count_dropped_messages, count_messages
from tests.integration.analytics.ledger import assert_history_equals_ledger, outbox_is_empty
from tests.integration.bank.harness import RunningBank, rub, run_bank
from tests.waiting import until

pytestmark = pytest.mark.slow

LONGEST = {f"{n:0128}": "ж" * 128 for n in range(16)}
"""Largest descriptor (texts by name) that a deposit may have. The event of a deposit with it has about 6 KiB."""


class TestDroppedMessages:
    async def test_history_is_complete_after_the_broker_dropped_messages(
        self, env: AnalyticsEnvironment, keys: Keys, ledger_url: str, tmp_path: Path
    ) -> None:
        broker = env.kafka.bootstrap_servers
        async with run_bank(keys, tmp_path, ledger_url, kafka_bootstrap_servers=broker) as bank:
            settings = env.settings.model_copy(update={"bank_grpc_target": bank.target})
            account = await bank.open()
            await deposit(bank, account, 20)
            async with run_analytics(settings):
                await assert_history_equals_ledger(bank, env)
            read, repaired = await count_messages(env), metrics.EVENTS_REPAIRED._value.get()
            await deposit(bank, account, 1_000)
            await until(lambda: outbox_is_empty(bank.sql))
            assert await count_dropped_messages(env) > read
            async with run_analytics(settings):
                await assert_history_equals_ledger(bank, env)
                await until_equal(lambda: int(metrics.CONSUMER_LAG._value.get()), 0)
                await until_equal(lambda: int(metrics.ACCOUNTS_INCOMPLETE._value.get()), 0)
            assert metrics.EVENTS_REPAIRED._value.get() > repaired


async def deposit(bank: RunningBank, account: UUID, count: int) -> None:
    """Make `count` deposits, many of them concurrently. All have one sender, so their events go to one partition."""
    card, done = bank.service("card"), (await bank.row(account))["version"]
    for start in range(done, done + count, 250):
        keys = [f"{account} {n}" for n in range(start, min(start + 250, done + count))]
        await asyncio.gather(*(card(bank.client.deposit(account, rub("1"), key, LONGEST)) for key in keys))
