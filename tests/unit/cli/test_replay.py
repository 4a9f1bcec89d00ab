"""What the command says of a replay."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Response

from cli.replay import Replayed, replay
from cli.reports import Admin
from kit.http.server import http_server
from stack.ports import free_ports

LINES = "application/x-ndjson"
DONE = {"accounts": 1_200, "pulled": 30, "removed": 0, "lacking": 0}
TOLD = "1,200 accounts checked, 30 operations pulled, 0 rows removed"
PROGRESS = json.dumps({"progress": DONE}) + "\n"


def outcome(name: str, **changes: int) -> Response:
    return Response(PROGRESS + json.dumps({"outcome": name, "seconds": 1.5} | DONE | changes), media_type=LINES)


@asynccontextmanager
async def answering(response: Response) -> AsyncIterator[str]:
    """The address of a service with this answer."""
    app, (port,) = FastAPI(), free_ports(1)
    app.add_api_route("/replay", lambda: response, response_model=None, methods=["POST"])
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


class TestReplay:
    @pytest.mark.parametrize(
        ("response", "code", "said"),
        [
            (outcome("complete"), Replayed.COMPLETE, f"complete: {TOLD} (1.5 s)"),
            (
                outcome("incomplete", lacking=2),
                Replayed.INCOMPLETE,
                f"incomplete: the ledger lacks what it counts, 2 times; {TOLD} (1.5 s)",
            ),
            (
                outcome("unavailable"),
                Replayed.NOT,
                f"not finished: ClickHouse or the bank went away after {TOLD} (1.5 s); run it again to go on",
            ),
        ],
    )
    async def test_ends_with_the_outcome(
        self, response: Response, code: Replayed, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with answering(response) as admin:
            assert await asyncio.to_thread(replay, Admin(admin), None, all_operations=False) == code
        told = capsys.readouterr()
        assert said in told.out.splitlines()
        assert TOLD in told.err.splitlines()

    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (Response(PROGRESS, media_type=LINES), "broke off without an outcome"),
            (Response('{"detail": "one is running"}', 409, media_type="application/json"), "409: one is running"),
        ],
    )
    async def test_takes_nothing_but_an_outcome_for_one(
        self, response: Response, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with answering(response) as admin:
            assert await asyncio.to_thread(replay, Admin(admin), None, all_operations=False) == Replayed.NOT
        (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not finished")]
        assert said.endswith(why)

    def test_where_nobody_is_nothing_is_replayed(self) -> None:
        assert replay(Admin("http://127.0.0.1:1"), None, all_operations=False) == Replayed.NOT
