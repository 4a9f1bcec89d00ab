"""Results and messages of `wallet integrity`, also for services that send no verdict."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Response

from cli.admin_client import AdminEndpoint
from cli.integrity import IntegrityResult, check_integrity
from kit.http.server import http_server
from stack.ports import free_ports

PROGRESS = '{"progress": {"walk": "accounts", "verified_up_to": "a", "rows": 1}}\n'
LINES = "application/x-ndjson"


@asynccontextmanager
async def serving_response(response: Response) -> AsyncIterator[str]:
    """Run a service with this response to the integrity check, and yield its address."""
    app, (port,) = FastAPI(), free_ports(1)
    app.add_api_route("/integrity", lambda: response, response_model=None)
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


class TestCheckIntegrity:
    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (Response(PROGRESS, media_type=LINES), "closed the stream without a verdict"),
            (Response("<html>", media_type="text/html"), "responds with 200: OK"),
            (Response('{"detail": "one is running"}', 409, media_type="application/json"), "409: one is running"),
            (Response("[]", 503, media_type="application/json"), "503: Service Unavailable"),
        ],
    )
    async def test_response_without_verdict_is_not_proven(
        self, response: Response, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with serving_response(response) as admin:
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin)) == IntegrityResult.NOT_PROVEN
        (last_line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not proven")]
        assert last_line.endswith(why)

    @pytest.mark.parametrize("admin", ["http://127.0.0.1:1", "127.0.0.1", "http://[", ""])
    def test_unreachable_address_is_not_proven(self, admin: str) -> None:
        assert check_integrity(AdminEndpoint(admin)) == IntegrityResult.NOT_PROVEN

    async def test_verdict_names_the_service_and_pending_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        verdict = {
            "verdict": "sound",
            "rows": {"operations": 1_200},
            "behind": {"operations": 3},
            "violations": 0,
            "broken": {},
            "seconds": 0.5,
        }
        async with serving_response(Response(PROGRESS + json.dumps(verdict), media_type=LINES)) as admin:
            assert await asyncio.to_thread(check_integrity, AdminEndpoint(admin), "analytics") == IntegrityResult.SOUND
        assert (
            "analytics: sound: all invariants hold for 1,200 operations; 3 operations are still in transit (0.5 s)\n"
            in capsys.readouterr().out
        )
