"""Ledgers that were restored from an older backup, with and without `wallet ledger restored`.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from kit.auth.principal import Principal
from subgraphs.analytics.client import AnalyticsClient, OperationFilter
from subgraphs.analytics.service.adapters.clickhouse.epochs import EpochTables, StoredEpoch
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.analytics.service.application.epoch import EpochChanged
from subgraphs.analytics.service.domain.model import AccountPosition, Event, HeldPosting, Row, StreamStart
from subgraphs.analytics.service.domain.rows import rows_from_event
from tests.integration.analytics.environment import (
    AnalyticsEnvironment,
    background,
    body,
    headers,
    lose_history,
    run_analytics,
)
from tests.integration.analytics.fake_bank import CLEARING, START
from tests.waiting import until
from wallet.errors import LedgerRestored

DAY: Final[dict[str, Any]] = {"from_": START, "to": START + timedelta(days=1), "granularity": "DAY"}


class Restored:
    """Account whose history has four operations, of which the restored ledger has only the first two.

    Attributes:
        account: id of the account.
        events: operations of the account in the ledger now, in version order.
    """

    def __init__(self, env: AnalyticsEnvironment) -> None:
        self.env = env
        self.account = env.bank.open("alice")
        self.events: list[Event] = []

    async def make(self, later: int) -> None:
        """Store four operations, restore the ledger as it was after the second one, then make `later` operations."""
        self.events = [self._top_up() for _ in range(2)]
        backup = self.env.bank.backup()
        lost = [self._top_up("5.00") for _ in range(2)]
        rows = [row for event in (*self.events, *lost) for row in rows_from_event(event)]
        await self.env.history.insert(rows)
        self.env.bank.restore(backup)
        self.events += [self._top_up("7.00") for _ in range(later)]

    async def until_equal_to_the_ledger(self) -> None:
        async def is_equal() -> bool:
            stored = await self.env.history.list_after(self.account, 0, 100)
            return [row.operation_id for row in stored] == [event.id for event in self.events]

        await until(is_equal)

    def _top_up(self, amount: str = "10.00") -> Event:
        return self.env.bank.transfer(CLEARING, self.account, amount)


@pytest.fixture
def restored(env: AnalyticsEnvironment) -> Restored:
    return Restored(env)


async def list_history_tables(env: AnalyticsEnvironment) -> set[str]:
    found = await env.database.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'operations%'", {}
    )
    return {name for (name,) in found}


class TestDetection:
    @pytest.mark.parametrize("later", [0, 1, 2, 3], ids=lambda later: f"{later} later operations")
    async def test_restored_ledger_is_detected_at_start(
        self, env: AnalyticsEnvironment, restored: Restored, later: int
    ) -> None:
        """The restored ledger has fewer operations than the history, as many, or more."""
        await restored.make(later)
        with pytest.raises(EpochChanged):
            await env.repair().repair_all(grace_seconds=0)
        assert env.bank.epoch

    async def test_event_that_contradicts_the_history_is_not_stored(
        self, env: AnalyticsEnvironment, restored: Restored
    ) -> None:
        await restored.make(later=1)
        await env.publish(restored.events[-1])
        async with background(env.consumer().run()):

            async def is_detected() -> bool:
                return bool(env.bank.epoch)

            await until(is_detected)
            assert await env.committed() == 0
        stored = await env.history.list_postings([(restored.account, 3)])
        assert restored.events[-1].id not in {each.operation_id for each in stored}

    async def test_ledger_of_an_earlier_epoch_is_detected(self, env: AnalyticsEnvironment) -> None:
        """The ledger is restored from a backup of its first epoch. This begins a third epoch."""
        first = env.bank.backup()
        env.bank.begin_epoch()
        epochs = env.epochs
        await epochs.rebuild()
        second = env.bank.epoch
        env.bank.restore(first)
        with pytest.raises(EpochChanged):
            await epochs.verify()
        assert env.bank.epoch not in {"", second}

    async def test_new_server_with_the_same_operations_keeps_the_epoch(self, env: AnalyticsEnvironment) -> None:
        """A promotion without a loss changes the server but no operations. The history is compared once more."""
        event = env.bank.transfer(CLEARING, env.bank.open("alice"))
        await env.history.insert(rows_from_event(event))
        epochs, notices = env.epochs, list[str]()
        epochs.on_new_incarnation.append(lambda: notices.append("compare"))
        await epochs.verify()
        env.bank.incarnation = "1/00000002"
        await epochs.verify([HeldPosting(event.recipient.account_id, 1, event.id)])
        assert (env.bank.epoch, notices) == ("", ["compare"])


class TestRebuild:
    async def test_history_is_replaced_and_the_old_one_kept(
        self, env: AnalyticsEnvironment, restored: Restored
    ) -> None:
        await restored.make(later=1)
        before = await env.history.list_after(restored.account, 0, 100)
        env.bank.begin_epoch()
        await env.epochs.rebuild()
        await restored.until_equal_to_the_ledger()
        assert await EpochTables(env.database).read() == StoredEpoch(env.bank.epoch, ("",))
        (kept,) = await list_history_tables(env) - {"operations"}
        assert kept == f"operations_before_{env.bank.epoch.replace('-', '_')}"
        rows = await env.database.query(
            f"SELECT operation_id FROM {kept} WHERE account_id = {{id:UUID}}", {"id": restored.account}
        )
        assert {id_ for (id_,) in rows} == {row.operation_id for row in before}

    async def test_two_processes_that_rebuild_leave_one_history(
        self, env: AnalyticsEnvironment, restored: Restored
    ) -> None:
        await restored.make(later=1)
        env.bank.begin_epoch()
        stored = StoredEpoch().next(env.bank.epoch, env.bank.past_epochs)
        epoch_tables = EpochTables(env.database)
        first, second = await epoch_tables.create(stored), await epoch_tables.create(stored)
        await epoch_tables.replace_history(first)
        await epoch_tables.replace_history(second)
        assert await epoch_tables.read() == stored
        assert len(await list_history_tables(env)) == 2

    async def test_interrupted_rebuild_leaves_the_history_unchanged(
        self, env: AnalyticsEnvironment, restored: Restored
    ) -> None:
        await restored.make(later=1)
        before = await env.history.list_after(restored.account, 0, 100)
        env.bank.begin_epoch()
        epochs, reads = env.epochs, env.ledger.list_events

        async def list_events(*arguments: Any) -> list[Event]:
            env.bank.begin_epoch()  # the ledger is restored once more
            return await reads(*arguments)

        env.ledger.list_events = list_events  # type: ignore[assignment, method-assign]
        with pytest.raises(EpochChanged):
            await epochs.rebuild()
        assert await env.history.list_after(restored.account, 0, 100) == before
        assert await list_history_tables(env) == {"operations"}

    async def test_rows_of_the_previous_epoch_are_not_inserted(self, env: AnalyticsEnvironment) -> None:
        env.bank.begin_epoch()
        epochs = env.epochs
        await epochs.rebuild()
        with pytest.raises(EpochChanged):
            async with epochs.writing(""):
                pass


class TestLostHistory:
    """ClickHouse loses its database while the epoch is not the first one."""

    async def test_stream_continues_until_the_ledger_is_restored(self, env: AnalyticsEnvironment) -> None:
        account = env.bank.open("alice")
        env.bank.begin_epoch()
        repair = env.repair()
        hub, epochs = env.hub(repair), repair.epochs
        epochs.on_restored.append(hub.end_epoch)
        await epochs.rebuild()
        with env.as_user("alice"):
            async with aclosing(hub.subscribe(account, 0, env.bank.epoch)) as stream, background(hub.run_checks()):
                await anext(stream)
                await lose_history(env, epochs)
                published = env.bank.transfer(CLEARING, account)
                hub.publish(replace(published, epoch=env.bank.epoch))
                assert await next_version(stream) == 1
                env.bank.transfer(CLEARING, account)
                hub.request_check()  # the event is not published
                assert await next_version(stream) == 2
                await epochs.rebuild()
                env.bank.transfer(CLEARING, account)
                hub.request_check()
                assert await next_version(stream) == 3
                env.bank.begin_epoch()
                await epochs.rebuild()
                with pytest.raises(LedgerRestored):
                    await next_version(stream)

    async def test_stream_opens_while_the_history_is_lost(self, env: AnalyticsEnvironment) -> None:
        account = env.bank.open("alice")
        env.bank.begin_epoch()
        repair = env.repair()
        hub, epochs = env.hub(repair), repair.epochs
        await epochs.rebuild()
        env.bank.transfer(CLEARING, account)
        await lose_history(env, epochs)
        with env.as_user("alice"):
            async with aclosing(hub.subscribe(account, 0, env.bank.epoch)) as stream:
                assert [await next_version(stream) for _ in range(2)] == [0, 1]

    async def test_operations_of_a_history_of_another_epoch_are_not_delivered(self, env: AnalyticsEnvironment) -> None:
        """ClickHouse is restored from a backup that was made in the ledger's first epoch."""
        account = env.bank.open("alice")
        backup = env.bank.backup()
        lost = env.bank.transfer(CLEARING, account)
        env.bank.restore(backup)
        env.bank.begin_epoch()
        repair = env.repair()
        hub, epochs = env.hub(repair), repair.epochs
        await epochs.rebuild()
        await lose_history(env, epochs)
        await env.history.insert(rows_from_event(lost))
        kept = env.bank.transfer(CLEARING, account)
        with env.as_user("alice"):
            async with aclosing(hub.subscribe(account, 0, env.bank.epoch)) as stream:
                await anext(stream)
                rows = await anext(stream)
        assert not isinstance(rows, StreamStart)
        assert [row.operation_id for row in rows] == [kept.id]

    async def test_stream_beyond_the_restored_ledger_ends(self, env: AnalyticsEnvironment) -> None:
        """The history is lost as well as the ledger, so no stored operation shows that the ledger was restored."""
        account = env.bank.open("alice")
        env.bank.transfer(CLEARING, account)
        backup = env.bank.backup()
        env.bank.transfer(CLEARING, account)
        hub = env.hub()
        with env.as_user("alice"):
            async with aclosing(hub.subscribe(account, 0)) as stream, background(hub.run_checks()):
                assert [await next_version(stream) for _ in range(2)] == [0, 2]
                env.bank.restore(backup)
                hub.request_check()
                with pytest.raises(LedgerRestored):
                    await next_version(stream)

    async def test_restore_of_a_past_epoch_is_found_after_the_history_was_lost_and_rebuilt(
        self, env: AnalyticsEnvironment
    ) -> None:
        """The backup is of the second epoch. The third epoch ends with the restore, after the loss of the history."""
        epochs = env.epochs
        env.bank.begin_epoch()
        await epochs.rebuild()
        second, backup = env.bank.epoch, env.bank.backup()
        env.bank.begin_epoch()
        third = env.bank.epoch
        await epochs.rebuild()
        await lose_history(env, epochs)
        await epochs.rebuild()
        assert await EpochTables(env.database).read() == StoredEpoch(third, ("", second))
        env.bank.restore(backup)
        with pytest.raises(EpochChanged):
            await epochs.verify()
        assert env.bank.epoch not in {"", second, third}
        await epochs.rebuild()
        assert await EpochTables(env.database).read() == StoredEpoch(env.bank.epoch, ("", second, third))

    async def test_restore_is_found_if_history_and_ledger_are_of_the_first_epoch_again(
        self, env: AnalyticsEnvironment
    ) -> None:
        epochs, notices, first = env.epochs, list[str](), env.bank.backup()
        epochs.on_restored.append(lambda: notices.append("restored"))
        await epochs.verify()
        env.bank.begin_epoch()
        await epochs.rebuild()
        assert notices == ["restored"]
        await lose_history(env, epochs)
        assert notices == ["restored"]
        env.bank.restore(first)
        await epochs.verify()
        assert (notices, epochs.followed) == (["restored"] * 2, "")


async def next_version(stream: AsyncIterator[Sequence[Row] | StreamStart]) -> int:
    """Return the version of the last row of the next batch, or the version at which the stream starts."""
    async with asyncio.timeout(5):
        value = await anext(stream)
    return value.version if isinstance(value, StreamStart) else value[-1].account_version


@pytest.fixture
async def client(env: AnalyticsEnvironment) -> AsyncIterator[AnalyticsClient]:
    async with AnalyticsClient.connect(env.settings.analytics_grpc_listen) as client:
        yield client


class TestService:
    async def test_history_is_rebuilt_after_a_restore_of_the_ledger(
        self, env: AnalyticsEnvironment, restored: Restored, client: AnalyticsClient
    ) -> None:
        await restored.make(later=1)
        async with run_analytics(env.settings):
            await restored.until_equal_to_the_ledger()
            with env.as_user("alice"):

                async def is_complete() -> bool:  # pages are incomplete until the service has read the new epoch
                    return (await client.list_operations(restored.account, limit=10)).is_complete

                await until(is_complete)
                page = await client.list_operations(restored.account, limit=10)
                assert {each.epoch for each in page.operations} == {env.bank.epoch}
                with pytest.raises(LedgerRestored):  # a cursor that was issued before the restore
                    await client.list_operations(restored.account, limit=10, older_than=4)
                with pytest.raises(LedgerRestored):
                    await anext(client.watch_operations(restored.account, 4))
                older = await client.list_operations(restored.account, limit=10, older_than=3, epoch=env.bank.epoch)
                assert [each.account_version for each in older.operations] == [2, 1]
                oldest = await client.list_operations(restored.account, limit=2, newer_than=0)  # 0 needs no epoch
                assert [each.account_version for each in oldest.operations] == [2, 1]

    @pytest.mark.parametrize(
        "filter_", [OperationFilter(), OperationFilter(types=("TOP_UP",)), OperationFilter(direction="OUT")], ids=str
    )
    async def test_page_beyond_the_ledger_is_incomplete_and_begins_an_epoch(
        self, env: AnalyticsEnvironment, restored: Restored, client: AnalyticsClient, filter_: OperationFilter
    ) -> None:
        """The ledger is restored while analytics runs, without `wallet ledger restored`."""
        async with run_analytics(env.settings):
            await restored.make(later=0)
            with env.as_user("alice"):
                page = await client.list_operations(restored.account, limit=10, filter=filter_)
            assert not page.is_complete
            await restored.until_equal_to_the_ledger()

    async def test_statistics_beyond_the_ledger_are_incomplete_and_begin_an_epoch(
        self, env: AnalyticsEnvironment, restored: Restored, client: AnalyticsClient
    ) -> None:
        async with run_analytics(env.settings):
            await restored.make(later=0)
            with env.as_user("alice"):
                statistics = await client.get_statistics(restored.account, **DAY)
            assert (statistics.as_of_version, statistics.is_complete) == (4, False)
            await restored.until_equal_to_the_ledger()

    async def test_operations_stored_after_the_ledgers_response_do_not_make_a_read_incomplete(
        self, env: AnalyticsEnvironment, client: AnalyticsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = env.bank.open("alice")
        events = [env.bank.transfer(CLEARING, account) for _ in range(3)]
        await env.history.insert([row for event in events for row in rows_from_event(event)])

        async def read_positions(_: object, __: Principal, accounts: Iterable[UUID]) -> dict[UUID, AccountPosition]:
            return dict.fromkeys(accounts, AccountPosition(2, ""))

        monkeypatch.setattr(AccountOwners, "read_positions", read_positions)
        async with run_analytics(env.settings):
            with env.as_user("alice"):
                assert (await client.list_operations(account, limit=10)).is_complete
                assert (await client.get_statistics(account, **DAY)).is_complete
        assert not env.bank.epoch

    async def test_open_stream_ends_when_the_epoch_changes(
        self, env: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        account = env.bank.open("alice")
        async with run_analytics(env.settings):
            with env.as_user("alice"):
                async with aclosing(client.watch_new_operations(account)) as stream:
                    await anext(stream)
                    env.bank.begin_epoch()
                    with pytest.raises(LedgerRestored, match="subscribe again without a cursor"):
                        await anext(stream)

    async def test_events_of_an_ended_epoch_are_skipped(self, env: AnalyticsEnvironment) -> None:
        account = env.bank.open("alice")
        backup = env.bank.backup()
        lost = env.bank.transfer(CLEARING, account)
        env.bank.restore(backup)
        env.bank.begin_epoch()
        kept = env.bank.transfer(CLEARING, account)
        async with run_analytics(env.settings):
            await env.publish(lost)
            with_epoch = [*headers(kept), ("ce_ledgerepoch", env.bank.epoch.encode())]

            await env.publish_raw(json.dumps(body(kept)).encode(), with_epoch)
            await env.until_committed(2)
        stored = await env.history.list_after(account, 0, 10)
        assert [row.operation_id for row in stored] == [kept.id]

    async def test_position_above_the_ledgers_version_is_refused(
        self, env: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        account = env.bank.open("alice")
        async with run_analytics(env.settings):
            with env.as_user("alice"), pytest.raises(LedgerRestored):
                await anext(client.watch_operations(account, 4))

    @pytest.mark.parametrize("edge", ["older_than", "newer_than"])
    async def test_page_from_a_position_above_the_ledgers_version_is_refused(
        self, env: AnalyticsEnvironment, client: AnalyticsClient, edge: str
    ) -> None:
        """No stored operation shows that the ledger was restored: only the position is above the ledger's version."""
        account = env.bank.open("alice")
        for _ in range(2):
            env.bank.transfer(CLEARING, account)
        last: dict[str, Any] = {edge: 2}
        above: dict[str, Any] = {edge: 3}
        async with run_analytics(env.settings):
            await env.until_stored(account, [1, 2])
            with env.as_user("alice"):
                page = await client.list_operations(account, limit=10, **last)
                assert page.is_complete
                with pytest.raises(LedgerRestored):
                    await client.list_operations(account, limit=10, **above)
                env.bank.is_down = True
                page = await client.list_operations(account, limit=10, **above)
                assert not page.is_complete
