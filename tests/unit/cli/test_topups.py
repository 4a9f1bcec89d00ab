"""Results of `wallet topups review` when the service is unavailable or its response is incomplete."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from fastapi import FastAPI, Response

from cli.admin_client import AdminEndpoint
from cli.topups import ReviewResult, list_reviews, retry_top_up
from kit.http.server import http_server
from stack.ports import free_ports

LINES = "application/x-ndjson"
TOP_UP = UUID("01a1fc68-ad44-74c3-a6d6-42556a5c7775")


@asynccontextmanager
async def serving_response(response: Response) -> AsyncIterator[str]:
    """Run a service with this response to all requests, and yield its address."""
    app, (port,) = FastAPI(), free_ports(1)
    app.add_api_route("/{path:path}", lambda: response, response_model=None, methods=["GET", "POST"])
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


class TestReview:
    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (Response("", media_type=LINES), "closed the stream before the end"),
            (
                Response('{"detail": "the database is not available"}', 503, media_type="application/json"),
                "503: the database is not available",
            ),
        ],
    )
    async def test_response_without_the_number_of_items_is_unknown(
        self, response: Response, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with serving_response(response) as admin:
            assert await asyncio.to_thread(list_reviews, AdminEndpoint(admin)) == ReviewResult.UNKNOWN
        (last_line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("unknown: ")]
        assert last_line.endswith(why)

    def test_unreachable_service_is_unknown_and_nothing_is_retried(self) -> None:
        assert list_reviews(AdminEndpoint("http://127.0.0.1:1")) == ReviewResult.UNKNOWN
        assert retry_top_up(AdminEndpoint("http://127.0.0.1:1"), TOP_UP) == ReviewResult.UNKNOWN
