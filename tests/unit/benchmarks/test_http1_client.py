import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from benchmarks.http1_client import UNIQUE_KEY, HttpLoad, get, post, request_repeatedly
from benchmarks.load_generator import CallError
from kit.http.server import http_server
from stack.ports import free_ports

received: list[tuple[str, str, Any]] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Record the request and echo its body; refuse the body "refuse"."""
    request = Request(scope, receive)
    body = await request.json() if request.method == "POST" else "nothing"
    received.append((request.url.path, request.headers["authorization"], body))
    status = 400 if body == "refuse" else 201
    await JSONResponse({"echo": body}, status)(scope, receive, send)


@pytest.fixture(scope="module")
async def target() -> AsyncIterator[str]:
    target = f"127.0.0.1:{free_ports(1)[0]}"
    async with http_server(app, target, lifespan="off"):
        yield target


def http_load(target: str, *bodies: Any, marker: str = '"echo"') -> HttpLoad:
    requests = [post("/path", {"Authorization": "Bearer x"}, body) for body in bodies]
    return HttpLoad(target=target, requests=requests, connections=4, status=201, marker=marker)


class TestPost:
    def test_content_length_is_in_bytes(self) -> None:
        head, _, body = post("/path", {"A": "b"}, {"ё": 1}).partition("\r\n\r\n")
        assert head.startswith("POST /path HTTP/1.1\r\n")
        assert f"Content-Length: {len(body.encode())}" in head
        assert orjson.loads(body) == {"ё": 1}


class TestRequestRepeatedly:
    async def test_server_receives_the_requests_in_turn(self, target: str) -> None:
        received.clear()
        deadline = time.monotonic() + 1
        calls = await request_repeatedly(http_load(target, "a", {"b": "x" * 100_000}), deadline)
        assert len(calls) == len(received) >= 8
        assert {path for path, _, _ in received} == {"/path"}
        assert [body == "a" for _, _, body in received].count(True) >= len(received) // 2 - 4
        assert all(call.started < deadline and call.started <= call.ended for call in calls)

    async def test_each_sent_request_has_its_own_idempotency_key(self, target: str) -> None:
        received.clear()
        load = http_load(target, {"idempotencyKey": UNIQUE_KEY}, {"idempotency_key": UNIQUE_KEY})
        for _ in range(2):
            await request_repeatedly(load, time.monotonic() + 0.1)
        keys = [key for _, _, body in received for key in body.values()]
        assert len(keys) > len(load.requests)
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)

    async def test_open_loop_starts_each_request_when_it_is_due(self, target: str) -> None:
        load = replace(http_load(target, "a"), rate=100.0, connections=8)
        started = time.monotonic()
        calls = sorted(await request_repeatedly(load, started + 0.5), key=lambda call: call.started)
        assert 1 < len(calls) <= 50
        assert all(later.started - earlier.started == pytest.approx(0.01) for earlier, later in pairwise(calls))

    async def test_open_loop_latency_includes_the_wait_for_a_free_connection(self) -> None:
        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.1)
            await JSONResponse({"echo": "late"}, 201)(scope, receive, send)

        target = f"127.0.0.1:{free_ports(1)[0]}"
        async with http_server(slow, target, lifespan="off"):
            load = replace(http_load(target, "a"), rate=20.0, connections=1)
            calls = await request_repeatedly(load, time.monotonic() + 0.5)
        latencies = [call.ended - call.started for call in calls]
        assert latencies == sorted(latencies)
        assert latencies[0] >= 0.1
        assert latencies[-1] >= 0.1 + (len(calls) - 1) * 0.05

    async def test_get_request_has_no_body(self, target: str) -> None:
        received.clear()
        load = HttpLoad(
            target=target, requests=[get("/p?q=1", {"Authorization": "x"})], connections=1, status=201, marker="nothing"
        )
        calls = await request_repeatedly(load, time.monotonic() + 0.1)
        assert calls
        assert received == [("/p", "x", "nothing")] * len(calls)

    @pytest.mark.parametrize(("body", "marker"), [("refuse", '"echo"'), ("a", "another marker")])
    async def test_unexpected_response_is_raised(self, target: str, body: str, marker: str) -> None:
        with pytest.raises(CallError, match="echo"):
            await request_repeatedly(http_load(target, body, marker=marker), time.monotonic() + 5)

    def test_closed_connections_are_not_written_to_when_requests_become_due_after_a_failure(self) -> None:
        errors: list[object] = []

        async def fail_and_continue() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
            target = f"127.0.0.1:{free_ports(1)[0]}"
            async with http_server(app, target, lifespan="off"):
                with pytest.raises(CallError, match="refuse"):
                    await request_repeatedly(replace(http_load(target, "refuse"), rate=50.0), time.monotonic() + 5)
                await request_repeatedly(
                    http_load(target, "a"), time.monotonic() + 0.2
                )  # meanwhile, the requests of the failed run's other connections become due

        uvloop.run(
            fail_and_continue()
        )  # as in the load generator; asyncio's own loop would ignore a write after the close
        assert errors == []

    async def test_refused_connection_is_raised(self) -> None:
        unused = f"127.0.0.1:{free_ports(1)[0]}"
        with pytest.raises(ConnectionRefusedError):
            await request_repeatedly(http_load(unused, "a"), time.monotonic() + 5)
