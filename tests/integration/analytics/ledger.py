"""Load on a real bank, and the comparison of its ledger with the history."""

import asyncio
import itertools
from datetime import timedelta
from uuid import UUID

import asyncpg

from asyncapi.topics import DEAD_LETTER_TOPIC
from kit.auth.tokens import ServiceTokenProvider
from kit.integrity.check import Verdict
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.application.integrity import history_integrity
from subgraphs.analytics.service.domain.model import Direction, OperationType
from subgraphs.analytics.service.domain.statistics import Granularity, StatisticsRange, Turnover
from tests.integration.analytics.environment import AnalyticsEnvironment
from tests.integration.analytics.group import count_messages, list_topics
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, rub
from tests.waiting import until


class Load:
    """Makes transfers between some accounts."""

    def __init__(self, bank: RunningBank, accounts: list[UUID]) -> None:
        self._bank = bank
        self._pairs = itertools.cycle(itertools.permutations(accounts, 2))
        self._keys = itertools.count()
        self.ids: set[str] = set()

    async def make(self, count: int) -> None:
        """Make `count` transfers, one after the other."""
        alice = self._bank.user("alice")
        for _ in range(count):
            sender, recipient = next(self._pairs)
            receipt = await alice(self._bank.client.transfer(sender, recipient, rub("0.01"), str(next(self._keys))))
            self.ids.add(str(receipt.transfer.id))

    async def transfer_until(self, stop: asyncio.Event) -> None:
        """Make up to four transfers at a time, a few hundred per second, until `stop` is set."""

        async def one_by_one() -> None:
            while not stop.is_set():
                await self.make(1)
                await asyncio.sleep(0.01)

        await asyncio.gather(*(one_by_one() for _ in range(4)))

    async def until_made(self, count: int) -> None:
        """Wait until `count` more transfers are made."""
        enough = len(self.ids) + count

        async def reached() -> bool:
            return len(self.ids) >= enough

        await until(reached, within=20)


async def open_load(bank: RunningBank) -> Load:
    return Load(bank, [await bank.open("alice") for _ in range(5)])


async def outbox_is_empty(sql: asyncpg.Pool) -> bool:
    """Return whether the outbox is empty."""
    return not await sql.fetchval("SELECT count(*) FROM outbox")


async def assert_history_equals_ledger(bank: RunningBank, env: AnalyticsEnvironment, within: float = 30.0) -> None:
    """Wait until all events are published, consumed and stored; fail if the history differs from the ledger.

    The function compares rows and turnovers, and runs the integrity check of the history.
    """
    await until(lambda: outbox_is_empty(bank.sql), within=within)
    await env.until_committed(await count_messages(env), within=within)
    await assert_ledger_invariants(bank.sql)
    accounts = [row["id"] for row in await bank.sql.fetch("SELECT id FROM accounts WHERE version > 0")]
    entries: int = await bank.sql.fetchval("SELECT count(*) FROM entries")

    async def missing() -> int:
        return entries - sum(coverage.count for coverage in (await env.history.get_coverage(accounts)).values())

    async def all_there() -> bool:
        return await missing() == 0

    try:
        await until(all_there, within=within)
    except AssertionError:
        raise AssertionError(f"the history lacks {await missing()} of {entries} ledger entries") from None
    stored = {
        (row.account_id, row.account_version): (
            row.operation_id,
            row.amount if row.direction is Direction.IN else -row.amount,
            row.balance_after,
        )
        for account in accounts
        for row in await env.history.list_after(account, 0, 100_000)
    }
    assert stored == {
        (row["account_id"], row["version"]): (row["transfer_id"], row["amount"], row["balance_after"])
        for row in await bank.sql.fetch("SELECT * FROM entries")
    }
    assert await history_turnovers(env, accounts, bank.sql) == await ledger_turnovers(bank.sql)
    ledger = BankLedger(bank.client, ServiceTokenProvider(bank.keys.signers["analytics"], "analytics"))
    reports = history_integrity(env.copies, ledger, wait_seconds=0, max_delay_seconds=0).run()
    verdict = [report async for report in reports][-1]
    assert isinstance(verdict, Verdict)
    assert (verdict.verdict, verdict.rows["operations"]) == ("sound", entries)
    assert DEAD_LETTER_TOPIC not in await list_topics(env)


Turnovers = dict[tuple[UUID, OperationType, Direction], Turnover]


async def history_turnovers(env: AnalyticsEnvironment, accounts: list[UUID], sql: asyncpg.Pool) -> Turnovers:
    """Return each account's total turnovers, added up from the hourly statistics."""
    first, last = (await sql.fetch("SELECT min(created_at), max(created_at) FROM transfers"))[0]
    range_, totals = StatisticsRange(first, last + timedelta(microseconds=1), Granularity.HOUR), Turnovers()
    versions = {row["id"]: row["version"] for row in await sql.fetch("SELECT id, version FROM accounts")}
    for account in accounts:
        statistics = await env.history.get_statistics(account, range_, versions[account])
        assert statistics is not None
        assert statistics.is_complete
        for bucket in statistics.buckets:
            for (kind, direction), turnover in bucket.turnovers.items():
                key = account, kind, direction
                totals[key] = totals.get(key, Turnover()) + turnover
    return totals


async def ledger_turnovers(sql: asyncpg.Pool) -> Turnovers:
    """Return each account's total turnovers, added up from the ledger's entries."""
    kinds = {"TRANSFER": OperationType.TRANSFER, "DEPOSIT": OperationType.TOP_UP}
    rows = await sql.fetch("""
        SELECT account_id, kind, e.amount > 0 AS is_in, count(*), sum(abs(e.amount)) AS amount
        FROM entries e JOIN transfers t ON t.id = e.transfer_id GROUP BY account_id, kind, is_in
    """)
    return {
        (row["account_id"], kinds[row["kind"]], Direction.IN if row["is_in"] else Direction.OUT): Turnover(
            row["count"], row["amount"]
        )
        for row in rows
    }
