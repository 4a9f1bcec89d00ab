"""Shared code of all integrity checks: verdicts, gauges and the admin route."""

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


class Invariant(StrEnum):
    FIRST = "FIRST"
    SECOND = "SECOND"


class Scan:
    """Scan with given findings; it can pause, and can end with an unavailable dependency."""

    def __init__(self, *findings: Finding, is_unavailable: bool = False) -> None:
        self._findings = findings
        self._is_unavailable = is_unavailable
        self.may_continue = asyncio.Event()
        self.may_continue.set()
        self.is_closed = False

    async def find(self) -> AsyncGenerator[Finding, None]:
        try:
            for finding in self._findings:
                yield finding
                await self.may_continue.wait()
            if self._is_unavailable:
                raise Unavailable("the database")
        finally:
            self.is_closed = True


def violation(invariant: Invariant = Invariant.FIRST) -> Violation:
    return Violation(invariant, {"id": 1}, "that", "this")


def gauges() -> Gauges:
    registry = CollectorRegistry()
    violations, finished, pending = (Gauge(name, name, registry=registry) for name in ("violations", "at", "pending"))
    return Gauges(violations, finished, pending)


def integrity(scan: Scan, gauges_of_check: Gauges | None = None) -> IntegrityCheck:
    return IntegrityCheck(scan.find, ["rows", "others"], gauges_of_check or gauges())


async def run_check(scan: Scan, gauges_of_check: Gauges | None = None) -> tuple[Sequence[Report], Verdict]:
    *reports, verdict = [report async for report in integrity(scan, gauges_of_check).run()]
    assert isinstance(verdict, Verdict)
    return reports, verdict


class TestVerdict:
    async def test_complete_check_without_violation_is_sound(self) -> None:
        reports, verdict = await run_check(Scan(Progress("rows", "a", 2), Progress("rows", "b", 3)))
        assert reports == [Progress("rows", "a", 2), Progress("rows", "b", 3)]
        assert (verdict.verdict, verdict.rows, verdict.pending) == ("sound", {"rows": 3, "others": 0}, {})
        assert (verdict.violations, verdict.broken) == (0, {})

    async def test_verdict_is_broken_after_a_violation_even_if_the_check_is_incomplete(self) -> None:
        for is_unavailable in (False, True):
            _, verdict = await run_check(Scan(violation(), is_unavailable=is_unavailable))
            assert (verdict.verdict, verdict.violations, verdict.broken) == ("broken", 1, {Invariant.FIRST: 1})

    async def test_verdict_is_unavailable_if_a_dependency_fails(self) -> None:
        _, verdict = await run_check(Scan(Progress("rows", "a", 2), is_unavailable=True))
        assert (verdict.verdict, verdict.rows) == ("unavailable", {"rows": 2, "others": 0})

    async def test_rows_of_a_repeated_scan_are_not_counted(self) -> None:
        reports, verdict = await run_check(Scan(Progress("rows", "a", 2), Progress("rows again", "a", 2)))
        assert len(reports) == 2
        assert verdict.rows == {"rows": 2, "others": 0}

    async def test_pending_rows_are_counted_and_are_no_violation(self) -> None:
        reports, verdict = await run_check(Scan(Pending("rows"), Pending("rows")))
        assert (reports, verdict.verdict, verdict.pending) == ([], "sound", {"rows": 2})

    async def test_all_violations_are_counted_but_only_the_first_of_each_invariant_are_reported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check, "_MAX_REPORTED_PER_INVARIANT", 2)
        reports, verdict = await run_check(Scan(*[violation()] * 5, violation(Invariant.SECOND)))
        assert reports == [violation(), violation(), violation(Invariant.SECOND)]
        assert (verdict.violations, verdict.broken) == (6, {Invariant.FIRST: 5, Invariant.SECOND: 1})

    async def test_defect_of_a_scan_is_raised(self) -> None:
        async def defective() -> AsyncGenerator[Finding, None]:
            yield Progress("rows", "a", 1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            _ = [report async for report in IntegrityCheck(defective, [], gauges()).run()]


class TestGauges:
    async def test_gauges_show_the_last_complete_check(self) -> None:
        gauges_of_check = gauges()
        assert gauges_of_check.pending is not None
        await run_check(Scan(violation(), violation(), Pending("rows")), gauges_of_check)
        finished = gauges_of_check.finished._value.get()
        await run_check(Scan(violation(), is_unavailable=True), gauges_of_check)
        values = (
            gauges_of_check.violations._value.get(),
            gauges_of_check.pending._value.get(),
            gauges_of_check.finished._value.get(),
        )
        assert values == (2, 1, finished)
        assert finished > 0


@asynccontextmanager
async def serve(running: IntegrityCheck) -> AsyncIterator[httpx.AsyncClient]:
    app, (port,) = admin_app({}), free_ports(1)
    app.include_router(integrity_router(running))
    async with (
        http_server(app, f"127.0.0.1:{port}"),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


class TestRouter:
    async def test_route_streams_reports_and_the_verdict_last(self) -> None:
        scan = Scan(Progress("rows", "a", 1), violation(), Pending("rows"))
        async with serve(integrity(scan)) as http:
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

    async def test_second_check_returns_409_and_a_check_ends_when_its_client_disconnects(self) -> None:
        scan = Scan(Progress("rows", "a", 1), Progress("rows", "b", 2))
        scan.may_continue.clear()
        async with serve(running := integrity(scan)) as http:
            async with http.stream("GET", "/integrity") as first:
                await anext(first.aiter_lines())
                second = await http.get("/integrity")
                assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)

            async def ended() -> bool:
                return not running.is_running

            await until(ended)
            assert scan.is_closed

    async def test_closed_check_closes_its_scan(self) -> None:
        scan = Scan(Progress("rows", "a", 1), Progress("rows", "b", 2))
        async with aclosing(integrity(scan).run()) as reports:
            await anext(reports)
            assert not scan.is_closed
        assert scan.is_closed
