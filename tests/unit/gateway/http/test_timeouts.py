"""Body time-out of HTTP requests. `tests/integration/gateway/test_timeouts.py` has client disconnects."""

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.conftest import Keys
from tests.unit.gateway.http.asgi import echo, http_client, with_middleware


async def test_late_body_is_rejected_with_408(keys: Keys) -> None:
    never = asyncio.Event()

    async def incomplete_body() -> AsyncIterator[bytes]:
        yield b"a"
        await never.wait()

    async with http_client(with_middleware(echo, keys, timeout_seconds=0.05)) as http:
        answer = await http.post("/", content=incomplete_body())
        assert (answer.status_code, answer.json()["code"]) == (408, "REQUEST_TIMEOUT")
        assert answer.headers["connection"] == "close"


async def test_body_timeout_does_not_limit_the_response(keys: Keys) -> None:
    async def answer_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await asyncio.sleep(1.1)  # longer than the time-out of the body
        await PlainTextResponse("slow")(scope, receive, send)

    async with http_client(with_middleware(answer_slowly, keys, timeout_seconds=1)) as http:
        assert (await http.post("/", content=b"x")).text == "slow"
