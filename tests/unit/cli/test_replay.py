"""Messages and exit codes of `wallet replay`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Response

from cli.admin_client import AdminEndpoint
from cli.replay import ReplayResult, replay_history
from kit.http.server import http_server
from stack.ports import free_ports

LINES = "application/x-ndjson"
DONE = {"accounts": 1_200, "pulled": 30, "removed": 0, "lacking": 0}
COUNTS = "1,200 accounts checked, 30 operations pulled, 0 rows removed"
PROGRESS = json.dumps({"progress": DONE}) + "\n"


def outcome(name: str, **changes: int) -> Response:
    return Response(PROGRESS + json.dumps({"outcome": name, "seconds": 1.5} | DONE | changes), media_type=LINES)


@asynccontextmanager
async def serving_response(response: Response) -> AsyncIterator[str]:
    """Run a service with this response to the replay, and yield its address."""
    app, (port,) = FastAPI(), free_ports(1)
    app.add_api_route("/replay", lambda: response, response_model=None, methods=["POST"])
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


class TestReplay:
    @pytest.mark.parametrize(
        ("response", "code", "expected"),
        [
            (outcome("complete"), ReplayResult.COMPLETE, f"complete: {COUNTS} (1.5 s)"),
            (
                outcome("incomplete", lacking=2),
                ReplayResult.INCOMPLETE,
                f"incomplete: the ledger lacks operations of 2 accounts; {COUNTS} (1.5 s)",
            ),
            (
                outcome("unavailable"),
                ReplayResult.NOT_FINISHED,
                (
                    f"not finished: ClickHouse or the bank became unavailable after {COUNTS} (1.5 s); "
                    "run it again to continue"
                ),
            ),
        ],
    )
    async def test_outcome_is_the_last_line(
        self, response: Response, code: ReplayResult, expected: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with serving_response(response) as admin:
            assert await asyncio.to_thread(replay_history, AdminEndpoint(admin), None, all_operations=False) == code
        output = capsys.readouterr()
        assert expected in output.out.splitlines()
        assert COUNTS in output.err.splitlines()

    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (Response(PROGRESS, media_type=LINES), "closed the stream without an outcome"),
            (Response('{"detail": "one is running"}', 409, media_type="application/json"), "409: one is running"),
        ],
    )
    async def test_response_without_outcome_is_not_finished(
        self, response: Response, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with serving_response(response) as admin:
            assert (
                await asyncio.to_thread(replay_history, AdminEndpoint(admin), None, all_operations=False)
                == ReplayResult.NOT_FINISHED
            )
        (last_line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not finished")]
        assert last_line.endswith(why)

    async def test_lacking_operations_are_counted_if_all_are_compared(self, capsys: pytest.CaptureFixture[str]) -> None:
        async with serving_response(outcome("incomplete", lacking=2)) as admin:
            code = await asyncio.to_thread(replay_history, AdminEndpoint(admin), None, all_operations=True)
        assert code == ReplayResult.INCOMPLETE
        assert "incomplete: the ledger lacks 2 operations; " in capsys.readouterr().out

    def test_unreachable_address_is_not_finished(self) -> None:
        assert (
            replay_history(AdminEndpoint("http://127.0.0.1:1"), None, all_operations=False) == ReplayResult.NOT_FINISHED
        )


@pytest.mark.parametrize("body", ["<html>", "[]", '"text"', '{"progress": '])
async def test_response_of_another_program_is_reported(body: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving_response(Response(body, media_type=LINES)) as address:
        result = await asyncio.to_thread(replay_history, AdminEndpoint(address), None, all_operations=False)
    assert result is ReplayResult.NOT_FINISHED
    assert "the response is not from a wallet service: correct --admin" in capsys.readouterr().out


def test_token_with_non_ascii_characters_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = AdminEndpoint("http://127.0.0.1:9", "t\u00f6ken")
    assert replay_history(endpoint, None, all_operations=False) is ReplayResult.NOT_FINISHED
    assert "no response from http://127.0.0.1:9" in capsys.readouterr().out
