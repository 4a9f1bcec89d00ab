"""What the command says of services that do not prove anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Response

from cli.integrity import Proven, follow
from cli.reports import Admin
from kit.http.server import http_server
from stack.ports import free_ports

PROGRESS = '{"progress": {"walk": "accounts", "verified_up_to": "a", "rows": 1}}\n'
LINES = "application/x-ndjson"


@asynccontextmanager
async def answering(response: Response) -> AsyncIterator[str]:
    """The address of a service with this answer."""
    app, (port,) = FastAPI(), free_ports(1)
    app.add_api_route("/integrity", lambda: response, response_model=None)
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


class TestFollow:
    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (Response(PROGRESS, media_type=LINES), "broke off without a verdict"),
            (Response("<html>", media_type="text/html"), "answers 200: OK"),
            (Response('{"detail": "one is running"}', 409, media_type="application/json"), "409: one is running"),
            (Response("[]", 503, media_type="application/json"), "503: Service Unavailable"),
        ],
    )
    async def test_takes_nothing_but_a_verdict_for_one(
        self, response: Response, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with answering(response) as admin:
            assert await asyncio.to_thread(follow, Admin(admin)) == Proven.NOT
        (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not proven")]
        assert said.endswith(why)

    @pytest.mark.parametrize("admin", ["http://127.0.0.1:1", "127.0.0.1", "http://[", ""])
    def test_an_address_where_nobody_is_proves_nothing(self, admin: str) -> None:
        assert follow(Admin(admin)) == Proven.NOT

    async def test_says_whose_verdict_it_is_and_what_is_on_its_way(self, capsys: pytest.CaptureFixture[str]) -> None:
        verdict = {
            "verdict": "sound",
            "rows": {"operations": 1_200},
            "behind": {"operations": 3},
            "violations": 0,
            "broken": {},
            "seconds": 0.5,
        }
        async with answering(Response(PROGRESS + json.dumps(verdict), media_type=LINES)) as admin:
            assert await asyncio.to_thread(follow, Admin(admin), "analytics") == Proven.SOUND
        assert (
            "analytics: sound: every law holds of 1,200 operations; 3 of the operations are on their way (0.5 s)\n"
            in capsys.readouterr().out
        )
