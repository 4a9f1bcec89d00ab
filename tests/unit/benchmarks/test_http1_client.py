import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from benchmarks.http1_client import Load, get, keep_asking, post
from benchmarks.http2_client import CallError
from kit.http.server import http_server
from stack.ports import free_ports

heard: list[tuple[str, str, Any]] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes who says what, and refuses one thing."""
    request = Request(scope, receive)
    said = await request.json() if request.method == "POST" else "nothing"
    heard.append((request.url.path, request.headers["authorization"], said))
    status = 400 if said == "refuse" else 201
    await JSONResponse({"said": said}, status)(scope, receive, send)


@pytest.fixture(scope="module")
async def target() -> AsyncIterator[str]:
    target = f"127.0.0.1:{free_ports(1)[0]}"
    async with http_server(app, target, lifespan="off"):
        yield target


def load(target: str, *said: Any, sign: str = '"said"') -> Load:
    requests = [post("/path", {"Authorization": "Bearer x"}, each) for each in said]
    return Load(target=target, requests=requests, connections=4, status=201, sign=sign)


class TestPost:
    def test_is_a_request_with_its_length_in_bytes(self) -> None:
        head, _, body = post("/path", {"A": "b"}, {"ё": 1}).partition("\r\n\r\n")
        assert head.startswith("POST /path HTTP/1.1\r\n")
        assert f"Content-Length: {len(body.encode())}" in head
        assert orjson.loads(body) == {"ё": 1}


class TestKeepAsking:
    async def test_a_real_server_hears_each_request_in_its_turn(self, target: str) -> None:
        heard.clear()
        until = time.monotonic() + 1
        calls = await keep_asking(load(target, "a", {"b": "x" * 100_000}), until)
        assert len(calls) == len(heard) >= 8
        assert {path for path, _, _ in heard} == {"/path"}
        assert [said == "a" for _, _, said in heard].count(True) >= len(heard) // 2 - 4
        assert all(one.began < until and one.began <= one.ended for one in calls)

    async def test_in_an_open_loop_a_request_begins_when_it_is_due(self, target: str) -> None:
        asked = replace(load(target, "a"), rate=100.0, connections=8)
        began = time.monotonic()
        calls = sorted(await keep_asking(asked, began + 0.5), key=lambda each: each.began)
        assert 1 < len(calls) <= 50
        assert all(later.began - one.began == pytest.approx(0.01) for one, later in pairwise(calls))

    async def test_there_one_that_finds_no_connection_free_has_waited_for_it(self) -> None:
        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.1)
            await JSONResponse({"said": "late"}, 201)(scope, receive, send)

        target = f"127.0.0.1:{free_ports(1)[0]}"
        async with http_server(slow, target, lifespan="off"):
            asked = replace(load(target, "a"), rate=20.0, connections=1)
            calls = await keep_asking(asked, time.monotonic() + 0.5)
        took = [each.ended - each.began for each in calls]
        assert took == sorted(took)
        assert took[0] >= 0.1
        assert took[-1] >= 0.1 + (len(calls) - 1) * 0.05

    async def test_a_request_may_have_no_body(self, target: str) -> None:
        heard.clear()
        asked = Load(
            target=target, requests=[get("/p?q=1", {"Authorization": "x"})], connections=1, status=201, sign="nothing"
        )
        calls = await keep_asking(asked, time.monotonic() + 0.1)
        assert calls
        assert heard == [("/p", "x", "nothing")] * len(calls)

    @pytest.mark.parametrize(("said", "sign"), [("refuse", '"said"'), ("a", "another sign")])
    async def test_an_answer_that_is_not_as_it_should_be_ends_it(self, target: str, said: str, sign: str) -> None:
        with pytest.raises(CallError, match="said"):
            await keep_asking(load(target, said, sign=sign), time.monotonic() + 5)

    async def test_nobody_there_ends_it(self) -> None:
        nowhere = f"127.0.0.1:{free_ports(1)[0]}"
        with pytest.raises(ConnectionRefusedError):
            await keep_asking(load(nowhere, "a"), time.monotonic() + 5)
