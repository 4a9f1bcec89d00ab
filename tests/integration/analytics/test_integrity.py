"""The history proved against the ledger."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from cli.admin_client import AdminEndpoint
from cli.integrity import IntegrityResult, check_integrity
from cli.replay import ReplayResult, replay_history
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Copy, Window
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.application import comparison as module
from subgraphs.analytics.service.domain.rows import rows_of
from tests.integration.analytics.damage import DAMAGES, Damage, people
from tests.integration.analytics.fake_bank import CLEARING
from tests.integration.analytics.integrity import command_output, integrity_of, served, verdict_of
from tests.integration.analytics.world import World
from tests.waiting import until


class Held(Copies):
    """Comes as far as the bodies of the operations, and no farther until it may."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.may = asyncio.Event()
        self.came = asyncio.Event()

    async def stored(self, windows: Sequence[Window]) -> list[Copy]:
        self.came.set()
        await self.may.wait()
        return await super().stored(windows)


@asynccontextmanager
async def held(world: World) -> AsyncIterator[Held]:
    copies = Held(world.database)
    try:
        yield copies
    finally:
        copies.may.set()


class TestIntegrity:
    async def test_an_empty_history_of_an_empty_ledger_is_sound(self, world: World) -> None:
        verdict, _ = await verdict_of(integrity_of(world))
        assert (verdict.verdict, verdict.rows) == ("sound", {"operations": 0, "stored accounts": 0})

    async def test_the_ledgers_history_is_sound_however_often_it_came(self, world: World) -> None:
        some = await people(world)
        for _ in range(2):
            await world.history.insert(await world.history.after(some.alice, 0, 10))
        verdict, violations = await verdict_of(integrity_of(world))
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {}, [])
        assert verdict.rows == {"operations": 12, "stored accounts": 3}

    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
    async def test_names_what_is_wrong_and_a_replay_mends_it(
        self, world: World, damage: Damage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        some = await people(world)
        whole = {account: await world.history.after(account, -1, 10) for account in (some.alice, some.bob, CLEARING)}
        expected = await damage(world, some)
        async with served(world) as admin:
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.BROKEN
            *said, verdict = command_output(capsys)
            assert verdict.startswith(f"broken: {len(expected)} violations")
            assert len(said) == len(expected)
            assert all(any(line.startswith(start) for line in said) for start in expected), said
            assert (
                await asyncio.to_thread(replay_history, AdminEndpoint(admin), None, all_operations=True)
                == ReplayResult.COMPLETE
            )
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.SOUND
        for account, rows in whole.items():
            assert await world.history.after(account, -1, 10) == rows

    async def test_pages_of_any_size_see_the_same(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = 0
        some = await people(world)
        for name in ("deleted in the middle", "another copy that is not read", "versions beyond the ledger's"):
            expected += len(await DAMAGES[name](world, some))
        expected += len(await DAMAGES["a foreign account"](world, some))
        # The one deleted is the one that was stored again.
        for name, size in {"_OPERATIONS": 2, "_PACK": 3, "_WINDOWS": 2, "_ACCOUNTS": 1, "_COPIES": 1}.items():
            monkeypatch.setattr(module, name, size)
        monkeypatch.setattr("subgraphs.analytics.service.adapters.ledger._PAGE", 1)
        verdict, violations = await verdict_of(integrity_of(world))
        assert verdict.violations == len(violations) == expected
        assert verdict.rows == {"operations": 12, "stored accounts": 4}

    async def test_what_comes_while_it_waits_is_no_violation(self, world: World) -> None:
        some = await people(world)
        late = world.bank.transfer(some.alice, some.bob)

        class Arriving(Copies):
            """What was missing at the first look is there at the second."""

            looked = 0

            async def stored(self, windows: Sequence[Window]) -> list[Copy]:
                found = await super().stored(windows)
                self.looked += 1
                if self.looked == 1:
                    await world.history.insert(rows_of(late))
                return found

        verdict, violations = await verdict_of(integrity_of(world, Arriving(world.database)))
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {}, [])

    async def test_what_is_too_recent_to_be_there_is_behind(self, world: World) -> None:
        some = await people(world)
        world.bank.transfer(some.alice, some.bob)
        world.bank.transfer(some.alice, some.bob)
        verdict, violations = await verdict_of(integrity_of(world, on_its_way_seconds=1e9))
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {"operations": 4}, [])

    async def test_accounts_that_move_meanwhile_are_no_false_alarm(self, world: World) -> None:
        some = await people(world)
        async with held(world) as copies:
            proving = asyncio.create_task(verdict_of(integrity_of(world, copies)))
            await copies.came.wait()
            new = world.bank.open()
            for event in (world.bank.transfer(some.alice, some.bob), world.bank.transfer(some.bob, new)):
                await world.history.insert(rows_of(event))
            copies.may.set()
            verdict, violations = await proving
        assert (verdict.verdict, verdict.pending, violations) == ("sound", {}, [])
        assert verdict.rows == {"operations": 12, "stored accounts": 4}

    async def test_an_operation_that_the_ledger_counts_and_lacks_is_named(self, world: World) -> None:
        some = await people(world)
        world.bank.forget(world.bank.transfer(some.alice, some.bob))
        verdict, violations = await verdict_of(integrity_of(world))
        assert verdict.verdict == "broken"
        assert [violation.row["version"] for violation in violations] == [6, 6]

    async def test_a_bank_that_is_away_leaves_no_verdict(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await people(world)
        world.bank.is_down = True
        async with served(world) as admin:
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.NOT_PROVEN
        assert "went away before the end" in capsys.readouterr().out

    async def test_one_runs_at_a_time_and_ends_with_its_client(self, world: World) -> None:
        await people(world)
        async with (
            held(world) as copies,
            served(world, integrity := integrity_of(world, copies)) as admin,
            httpx.AsyncClient(trust_env=False, base_url=admin) as http,
        ):
            async with http.stream("GET", "/integrity"):
                await copies.came.wait()
                second = await http.get("/integrity")
                assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)

            async def ended() -> bool:
                return not integrity.is_running

            await until(ended)

    async def test_metrics_have_the_last_finished_proof(self, world: World) -> None:
        some = await people(world)
        await DAMAGES["another amount"](world, some)
        async with served(world) as admin, httpx.AsyncClient(trust_env=False, base_url=admin) as http:
            response = await http.get("/integrity")
            metrics = (await http.get("/metrics")).text
        first, *_, last = [orjson.loads(line) for line in response.text.splitlines()]
        assert first["violation"]["found"] == "amount 11"
        assert (last["verdict"], last["violations"]) == ("broken", 1)
        assert "wallet_analytics_integrity_violations 1.0" in metrics
        assert "wallet_analytics_integrity_finished_timestamp_seconds 1." in metrics
