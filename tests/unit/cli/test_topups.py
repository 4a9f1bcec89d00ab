"""What the command says of the top-ups that need a person, when the service does not come to its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from fastapi import FastAPI, Response

from cli.reports import Admin
from cli.topups import Reviewed, retry, review
from kit.http.server import http_server
from stack.ports import free_ports

LINES = "application/x-ndjson"
TOP_UP = UUID("01a1fc68-ad44-74c3-a6d6-42556a5c7775")


@asynccontextmanager
async def answering(response: Response) -> AsyncIterator[str]:
    """The address of a service with this answer."""
    app, (port,) = FastAPI(), free_ports(1)
    app.add_api_route("/{path:path}", lambda: response, response_model=None, methods=["GET", "POST"])
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


class TestReview:
    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (Response("", media_type=LINES), "broke off before the end"),
            (
                Response('{"detail": "the database is away"}', 503, media_type="application/json"),
                "503: the database is away",
            ),
        ],
    )
    async def test_takes_nothing_but_the_end_for_one(
        self, response: Response, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with answering(response) as admin:
            assert await asyncio.to_thread(review, Admin(admin)) == Reviewed.NOT
        (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not known: ")]
        assert said.endswith(why)

    def test_where_nobody_is_nothing_is_known_and_nothing_retried(self) -> None:
        assert review(Admin("http://127.0.0.1:1")) == Reviewed.NOT
        assert retry(Admin("http://127.0.0.1:1"), TOP_UP) == Reviewed.NOT
