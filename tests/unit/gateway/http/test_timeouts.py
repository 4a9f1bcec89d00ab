"""Body time-out of HTTP requests, and disconnects within the body."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from gateway.http import timeouts
from tests.conftest import Keys
from tests.unit.gateway.http.asgi import echo, http_client, with_middleware


async def test_late_body_is_rejected_with_408(keys: Keys) -> None:
    never = asyncio.Event()

    async def incomplete_body() -> AsyncIterator[bytes]:
        yield b"a"
        await never.wait()

    async with http_client(with_middleware(echo, keys, timeout_seconds=0.05)) as http:
        response = await http.post("/", content=incomplete_body())
        assert (response.status_code, response.json()["code"]) == (408, "REQUEST_TIMEOUT")
        assert response.headers["connection"] == "close"


async def test_body_timeout_does_not_limit_the_response(keys: Keys) -> None:
    async def respond_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await asyncio.sleep(1.1)  # longer than the time-out of the body
        await PlainTextResponse("slow")(scope, receive, send)

    async with http_client(with_middleware(respond_slowly, keys, timeout_seconds=1)) as http:
        assert (await http.post("/", content=b"x")).text == "slow"


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100")], [(b"content-length", b"1000000")]])
async def test_disconnect_within_the_body_is_no_error(keys: Keys, headers: list[tuple[bytes, bytes]]) -> None:
    """The app must not get an error, because its handler would log the error as unexpected, with a traceback."""
    messages = [{"type": "http.request", "body": b"half of", "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def read_body(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Request(scope, receive).body()
        except Exception as error:  # noqa: BLE001  as a handler of unexpected errors
            pytest.fail(f"the app got {error!r}")

    scope = {"type": "http", "method": "POST", "path": "/accounts", "headers": headers, "client": ("127.0.0.1", 1)}
    with capture_logs() as logged:
        await with_middleware(read_body, keys)(scope, receive, send)
    assert sent == []
    assert [(line["event"], line["log_level"], line["status"]) for line in logged] == [
        ("request completed", "info", 499)
    ]


async def test_disconnect_at_the_start_of_the_watchers_ends_the_request(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer of the watchers must not set the body time-out after the disconnect has ended the request."""
    monkeypatch.setattr(timeouts, "_WATCH_DELAY_SECONDS", 0)

    async def receive() -> Message:
        await asyncio.sleep(0)  # the disconnect and the timer are in the same turn of the loop, in this order
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pytest.fail(f"the app sent {message!r}")

    scope = {"type": "http", "method": "POST", "path": "/accounts", "headers": [], "client": ("127.0.0.1", 1)}
    async with asyncio.timeout(10):
        await with_middleware(echo, keys, timeout_seconds=60)(scope, receive, send)
