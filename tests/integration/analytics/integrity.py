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
from tests.integration.analytics.environment import AnalyticsEnvironment

MAX_DELAY_SECONDS = 1.0
"""Every operation of the fake bank is older than this, so a missing operation is a violation. A younger one would be
reported as pending, because it may still be on its way to the history."""


def make_integrity_check(
    env: AnalyticsEnvironment, copies: Copies | None = None, *, max_delay_seconds: float = MAX_DELAY_SECONDS
) -> IntegrityCheck:
    copies = copies or env.copies
    return history_integrity(copies, env.ledger, wait_seconds=0, max_delay_seconds=max_delay_seconds)


async def run_check(integrity: IntegrityCheck) -> tuple[Verdict, list[Violation]]:
    reports: list[Report] = [report async for report in integrity.run()]
    verdict = reports[-1]
    assert isinstance(verdict, Verdict)
    return verdict, [report for report in reports if isinstance(report, Violation)]


@asynccontextmanager
async def serve_admin_interface(
    env: AnalyticsEnvironment, integrity: IntegrityCheck | None = None
) -> AsyncIterator[str]:
    """Serve the admin interface; yield its URL."""
    app = admin_app({})
    app.include_router(integrity_router(integrity or make_integrity_check(env)))
    app.include_router(replay_router(Replay(env.history, env.copies, env.ledger, env.repair())))
    async with http_server(app, env.settings.analytics_admin_listen):
        yield f"http://{env.settings.analytics_admin_listen}"


def command_output(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that the command printed, without log lines of the service in the same process."""
    return [line for line in capsys.readouterr().out.splitlines() if not line[0].isdigit()]
