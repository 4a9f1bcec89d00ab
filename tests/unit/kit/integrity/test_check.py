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
    async def test_complete_check_without_violation_is_sound(self) -> None:
        told, verdict = await proved(Walk(Progress("rows", "a", 2), Progress("rows", "b", 3)))
        assert told == [Progress("rows", "a", 2), Progress("rows", "b", 3)]
        assert (verdict.verdict, verdict.rows, verdict.pending) == ("sound", {"rows": 3, "others": 0}, {})
        assert (verdict.violations, verdict.broken) == (0, {})

    async def test_one_violation_is_broken_even_if_the_check_is_incomplete(self) -> None:
        for away in (False, True):
            _, verdict = await proved(Walk(violation(), away=away))
            assert (verdict.verdict, verdict.violations, verdict.broken) == ("broken", 1, {Law.FIRST: 1})

    async def test_failed_dependency_gives_no_verdict(self) -> None:
        _, verdict = await proved(Walk(Progress("rows", "a", 2), away=True))
        assert (verdict.verdict, verdict.rows) == ("unavailable", {"rows": 2, "others": 0})

    async def test_rows_of_a_repeated_scan_are_not_counted(self) -> None:
        told, verdict = await proved(Walk(Progress("rows", "a", 2), Progress("rows again", "a", 2)))
        assert len(told) == 2
        assert verdict.rows == {"rows": 2, "others": 0}

    async def test_pending_rows_are_counted_and_are_no_violation(self) -> None:
        told, verdict = await proved(Walk(Pending("rows"), Pending("rows")))
        assert (told, verdict.verdict, verdict.pending) == ([], "sound", {"rows": 2})

    async def test_all_violations_are_counted_and_few_are_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "_MAX_REPORTED_PER_INVARIANT", 2)
        told, verdict = await proved(Walk(*[violation()] * 5, violation(Law.SECOND)))
        assert told == [violation(), violation(), violation(Law.SECOND)]
        assert (verdict.violations, verdict.broken) == (6, {Law.FIRST: 5, Law.SECOND: 1})

    async def test_defect_gives_no_verdict(self) -> None:
        async def defective() -> AsyncGenerator[Finding, None]:
            yield Progress("rows", "a", 1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            _ = [report async for report in IntegrityCheck(defective, [], gauges()).run()]


class TestGauges:
    async def test_gauges_have_the_last_finished_check(self) -> None:
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
    async def test_route_streams_reports_and_the_verdict_last(self) -> None:
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

    async def test_second_check_is_409_and_a_check_ends_with_its_client(self) -> None:
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

    async def test_closed_check_closes_its_scan(self) -> None:
        walk = Walk(Progress("rows", "a", 1), Progress("rows", "b", 2))
        async with aclosing(integrity(walk).run()) as proving:
            await anext(proving)
            assert not walk.is_closed
        assert walk.is_closed
