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
from tests.waiting import until


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


@pytest.mark.parametrize("turns", range(1, 6))
async def test_disconnect_at_the_start_of_the_watch_ends_the_request(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """The watch must not set the body time-out after the disconnect has ended the request."""
    monkeypatch.setattr(timeouts, "_TICK_SECONDS", 0)

    async def receive() -> Message:
        for _ in range(turns):  # after some of them, the disconnect and the start are in the same turn of the loop
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pytest.fail(f"the app sent {message!r}")

    scope = {"type": "http", "method": "POST", "path": "/accounts", "headers": [], "client": ("127.0.0.1", 1)}
    async with asyncio.timeout(10):
        await with_middleware(echo, keys, timeout_seconds=60)(scope, receive, send)


async def test_cancellation_by_other_code_is_not_a_timeout(keys: Keys) -> None:
    """The server cancels requests that run at its end. The request must not respond with 408 then."""
    started = asyncio.Event()

    async def wait_forever(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pytest.fail(f"the app sent {message!r}")

    scope = {"type": "http", "method": "POST", "path": "/accounts", "headers": [], "client": ("127.0.0.1", 1)}
    request = asyncio.create_task(with_middleware(wait_forever, keys)(scope, receive, send))
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_ticks_end_with_the_last_request() -> None:
    """An idle process must not wake up."""
    requests = timeouts.RequestTimeouts(60)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pytest.fail(f"the app sent {message!r}")

    async def finish(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def start() -> None: ...

    await requests.run(finish, {"type": "http", "method": "POST"}, receive, send, start)

    async def is_idle() -> bool:
        return not requests.is_ticking

    await until(is_idle)
