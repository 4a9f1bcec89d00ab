"""The integrity check of a history, its admin interface and its verdict."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kit.http.admin import admin_app
from kit.http.server import http_server
from kit.integrity.check import IntegrityCheck, Report, Verdict, Violation, integrity_router
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies
from subgraphs.analytics.service.api.admin import replay_router
from subgraphs.analytics.service.application.integrity import history_integrity
from subgraphs.analytics.service.application.replay import Replay
from tests.integration.analytics.world import World

LONG_AGO = 1.0
"""Any operation of the fake bank's is older than that."""


def integrity_of(world: World, copies: Copies | None = None, *, on_its_way_seconds: float = LONG_AGO) -> IntegrityCheck:
    copies = copies or world.copies
    return history_integrity(copies, world.ledger, wait_seconds=0, on_its_way_seconds=on_its_way_seconds)


async def verdict_of(integrity: IntegrityCheck) -> tuple[Verdict, list[Violation]]:
    reports: list[Report] = [report async for report in integrity.run()]
    verdict = reports[-1]
    assert isinstance(verdict, Verdict)
    return verdict, [report for report in reports if isinstance(report, Violation)]


@asynccontextmanager
async def served(world: World, integrity: IntegrityCheck | None = None) -> AsyncIterator[str]:
    """The admin interface's address."""
    app = admin_app({})
    app.include_router(integrity_router(integrity or integrity_of(world)))
    app.include_router(replay_router(Replay(world.history, world.copies, world.ledger, world.repair())))
    async with http_server(app, world.settings.analytics_admin_listen):
        yield f"http://{world.settings.analytics_admin_listen}"


def command_output(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the command says, without the log of the service, which runs in the same process."""
    return [line for line in capsys.readouterr().out.splitlines() if not line[0].isdigit()]
