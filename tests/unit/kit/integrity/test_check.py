"""What is made of a walk, whatever its laws are."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum

import httpx
import orjson
import pytest
from prometheus_client import CollectorRegistry, Gauge

from kit.http.admin import admin_app
from kit.http.server import http_server
from kit.integrity import check
from kit.integrity.check import (
    Finding,
    Gauges,
    IntegrityCheck,
    Pending,
    Progress,
    Report,
    Verdict,
    Violation,
    integrity_router,
)
from stack.ports import free_ports
from tests.waiting import until
from wallet.errors import Unavailable


class Law(StrEnum):
    FIRST = "FIRST"
    SECOND = "SECOND"


class Walk:
    """Finds what it was given, and ends as it is told."""

    def __init__(self, *found: Finding, away: bool = False) -> None:
        self._found = found
        self._away = away
        self.may = asyncio.Event()
        self.may.set()
        self.is_closed = False

    async def found(self) -> AsyncGenerator[Finding, None]:
        try:
            for each in self._found:
                yield each
                await self.may.wait()
            if self._away:
                raise Unavailable("the database")
        finally:
            self.is_closed = True


def violation(law: Law = Law.FIRST) -> Violation:
    return Violation(law, {"id": 1}, "that", "this")


def gauges() -> Gauges:
    registry = CollectorRegistry()
    violations, finished, pending = (Gauge(name, name, registry=registry) for name in ("violations", "at", "pending"))
    return Gauges(violations, finished, pending)


def integrity(walk: Walk, shown: Gauges | None = None) -> IntegrityCheck:
    return IntegrityCheck(walk.found, ["rows", "others"], shown or gauges())


async def proved(walk: Walk, shown: Gauges | None = None) -> tuple[Sequence[Report], Verdict]:
    *told, verdict = [report async for report in integrity(walk, shown).run()]
    assert isinstance(verdict, Verdict)
    return told, verdict


class TestVerdict:
    async def test_is_sound_of_data_that_were_seen_whole(self) -> None:
        told, verdict = await proved(Walk(Progress("rows", "a", 2), Progress("rows", "b", 3)))
        assert told == [Progress("rows", "a", 2), Progress("rows", "b", 3)]
        assert (verdict.verdict, verdict.rows, verdict.pending) == ("sound", {"rows": 3, "others": 0}, {})
        assert (verdict.violations, verdict.broken) == (0, {})

    async def test_is_broken_with_one_violation_even_if_the_rest_was_not_seen(self) -> None:
        for away in (False, True):
            _, verdict = await proved(Walk(violation(), away=away))
            assert (verdict.verdict, verdict.violations, verdict.broken) == ("broken", 1, {Law.FIRST: 1})

    async def test_is_none_if_what_is_needed_went_away(self) -> None:
        _, verdict = await proved(Walk(Progress("rows", "a", 2), away=True))
        assert (verdict.verdict, verdict.rows) == ("unavailable", {"rows": 2, "others": 0})

    async def test_does_not_count_rows_that_are_looked_at_again(self) -> None:
        told, verdict = await proved(Walk(Progress("rows", "a", 2), Progress("rows again", "a", 2)))
        assert len(told) == 2
        assert verdict.rows == {"rows": 2, "others": 0}

    async def test_counts_what_is_behind_which_breaks_nothing(self) -> None:
        told, verdict = await proved(Walk(Pending("rows"), Pending("rows")))
        assert (told, verdict.verdict, verdict.pending) == ([], "sound", {"rows": 2})

    async def test_counts_all_violations_of_which_some_of_each_law_are_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check, "_MAX_REPORTED_PER_INVARIANT", 2)
        told, verdict = await proved(Walk(*[violation()] * 5, violation(Law.SECOND)))
        assert told == [violation(), violation(), violation(Law.SECOND)]
        assert (verdict.violations, verdict.broken) == (6, {Law.FIRST: 5, Law.SECOND: 1})

    async def test_is_not_given_of_a_defect(self) -> None:
        async def defective() -> AsyncGenerator[Finding, None]:
            yield Progress("rows", "a", 1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            _ = [report async for report in IntegrityCheck(defective, [], gauges()).run()]


class TestGauges:
    async def test_show_the_last_proof_that_finished(self) -> None:
        shown = gauges()
        assert shown.pending is not None
        await proved(Walk(violation(), violation(), Pending("rows")), shown)
        finished = shown.finished._value.get()
        await proved(Walk(violation(), away=True), shown)
        values = (shown.violations._value.get(), shown.pending._value.get(), shown.finished._value.get())
        assert values == (2, 1, finished)
        assert finished > 0


@asynccontextmanager
async def served(running: IntegrityCheck) -> AsyncIterator[httpx.AsyncClient]:
    app, (port,) = admin_app({}), free_ports(1)
    app.include_router(integrity_router(running))
    async with (
        http_server(app, f"127.0.0.1:{port}"),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


class TestRouter:
    async def test_tells_a_line_of_each_and_the_verdict_last(self) -> None:
        walk = Walk(Progress("rows", "a", 1), violation(), Pending("rows"))
        async with served(integrity(walk)) as http:
            response = await http.get("/integrity")
        assert response.headers["content-type"] == "application/x-ndjson"
        progress, broken, verdict = map(orjson.loads, response.text.splitlines())
        assert progress == {"progress": {"walk": "rows", "verified_up_to": "a", "rows": 1}}
        assert broken == {"violation": {"law": "FIRST", "row": {"id": 1}, "found": "that", "expected": "this"}}
        assert verdict.pop("seconds") >= 0
        assert verdict == {
            "verdict": "broken",
            "rows": {"rows": 1, "others": 0},
            "behind": {"rows": 1},
            "violations": 1,
            "broken": {"FIRST": 1},
        }

    async def test_one_proof_runs_at_a_time_and_ends_with_its_client(self) -> None:
        walk = Walk(Progress("rows", "a", 1), Progress("rows", "b", 2))
        walk.may.clear()
        async with served(running := integrity(walk)) as http:
            async with http.stream("GET", "/integrity") as first:
                await anext(first.aiter_lines())
                second = await http.get("/integrity")
                assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)

            async def ended() -> bool:
                return not running.is_running

            await until(ended)
            assert walk.is_closed

    async def test_a_proof_that_is_closed_closes_its_walk(self) -> None:
        walk = Walk(Progress("rows", "a", 1), Progress("rows", "b", 2))
        async with aclosing(integrity(walk).run()) as proving:
            await anext(proving)
            assert not walk.is_closed
        assert walk.is_closed
