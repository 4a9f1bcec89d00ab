"""What stands around every request."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from gateway.http.middleware import BodyLimitMiddleware, CallMiddleware
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from kit.rpc import request_context
from tests.conftest import Keys

LIMIT = 10


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with who asks and what they sent."""
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    principal = request_context.current_request.get().principal
    await PlainTextResponse(f"{principal.subject if principal else 'nobody'}: {body.decode()}")(scope, receive, send)


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


class TestCallMiddleware:
    async def test_knows_the_caller_and_names_the_request(self, keys: Keys) -> None:
        async with client(CallMiddleware(echo, keys.verifier(), RateLimiter(RateLimitOptions()), 1)) as http:
            answer = await http.get(
                "/", headers={"Authorization": f"Bearer {keys.user('alice')}", "X-Request-Id": "mine"}
            )
            assert (answer.text, answer.headers["x-request-id"]) == ("alice: ", "mine")
            assert (await http.get("/")).text == "nobody: "
            answer = await http.get("/", headers={"X-Request-Id": "not fit for a log\x7f"})
            assert answer.headers["x-request-id"] not in {"", "not fit for a log\x7f"}

    async def test_the_request_is_known_by_its_trace_unless_the_caller_has_a_name_for_it(self, keys: Keys) -> None:
        async def trace(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse(request_context.current_request.get().trace.traceparent)(scope, receive, send)

        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        async with client(CallMiddleware(trace, keys.verifier(), RateLimiter(RateLimitOptions()), 1)) as http:
            for sent in ({}, {"traceparent": "nonsense"}, {"traceparent": parent}):
                answer = await http.get("/", headers=sent)
                assert answer.headers["x-request-id"] == answer.text[3:35]
            assert answer.text == parent
            answer = await http.get("/", headers={"traceparent": parent, "X-Request-Id": "mine"})
            assert (answer.text, answer.headers["x-request-id"]) == (parent, "mine")

    async def test_its_line_of_log_says_what_was_asked_for_and_nothing_that_was_sent_with_it(self, keys: Keys) -> None:
        app = CallMiddleware(echo, keys.verifier(), RateLimiter(RateLimitOptions()), 1)
        with capture_logs() as said:
            async with client(app) as http:
                await http.post("/accounts/4242424242424242?cvv=739182645", content="4242", headers={"cookie": "4242"})
        (line,) = [each for each in said if each["event"] == "request"]
        assert 0 <= line.pop("ms") < 10_000
        assert line == {
            "event": "request",
            "log_level": "info",
            "method": "POST",
            "path": "/accounts/#",
            "status": 200,
        }

    async def test_refuses_a_token_that_is_not_believed(self, keys: Keys) -> None:
        async with client(CallMiddleware(echo, keys.verifier(), RateLimiter(RateLimitOptions()), 1)) as http:
            answer = await http.get("/", headers={"Authorization": "Bearer forged"})
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
        assert answer.json()["requestId"] == answer.headers["x-request-id"]

    async def test_answers_for_who_fails_and_says_nothing_of_why(self, keys: Keys) -> None:
        async def fails(*_: Any) -> None:
            raise KeyError("password=x")

        async with client(CallMiddleware(fails, keys.verifier(), RateLimiter(RateLimitOptions()), 1)) as http:
            answer = await http.get("/")
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
        assert answer.json()["requestId"] == answer.headers["x-request-id"]
        assert "password" not in answer.text

    async def test_leaves_it_to_the_server_where_an_answer_has_begun(self, keys: Keys) -> None:
        async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise KeyError("password=x")

        transport = httpx.ASGITransport(CallMiddleware(fails_late, keys.verifier(), RateLimiter(RateLimitOptions()), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            with pytest.raises(KeyError):
                await http.get("/")

    async def test_says_of_every_answer_that_it_is_for_this_caller_and_no_page(self, keys: Keys) -> None:
        async with client(CallMiddleware(echo, keys.verifier(), RateLimiter(RateLimitOptions()), 1)) as http:
            for headers in ({}, {"Authorization": "Bearer forged"}):
                said = (await http.get("/", headers=headers)).headers
                assert said["cache-control"] == "no-store"
                assert said["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
                assert said["referrer-policy"] == "no-referrer"
                assert said["x-content-type-options"] == "nosniff"

    async def test_leaves_what_an_answer_says_of_itself(self, keys: Keys) -> None:
        kept = PlainTextResponse("kept", headers={"Cache-Control": "max-age=60"})
        async with client(CallMiddleware(kept, keys.verifier(), RateLimiter(RateLimitOptions()), 1)) as http:
            assert (await http.get("/")).headers.get_list("cache-control") == ["max-age=60"]

    async def test_waits_so_long_for_a_body_and_no_longer(self, keys: Keys) -> None:
        ended = asyncio.Event()

        async def trickle() -> AsyncIterator[bytes]:
            yield b"a"
            await ended.wait()

        async with client(CallMiddleware(echo, keys.verifier(), RateLimiter(RateLimitOptions()), 0.05)) as http:
            answer = await http.post("/", content=trickle())
            assert (answer.status_code, answer.json()["code"]) == (408, "REQUEST_TIMEOUT")
            assert answer.headers["connection"] == "close"

    async def test_waits_for_an_answer_however_long_it_takes(self, keys: Keys) -> None:
        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive()).get("more_body", False):
                pass
            await asyncio.sleep(0.1)
            await PlainTextResponse("slow")(scope, receive, send)

        async with client(CallMiddleware(slow, keys.verifier(), RateLimiter(RateLimitOptions()), 0.01)) as http:
            assert (await http.post("/", content=b"x")).text == "slow"


class TestBodyLimitMiddleware:
    @pytest.fixture(autouse=True)
    def named(self) -> None:
        request_context.current_request.set(request_context.RequestContext("the-request"))

    @pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in pieces"])
    async def test_holds_whether_the_length_is_said_or_not(self, *, in_pieces: bool) -> None:
        async def pieces(text: bytes) -> Any:
            for at in range(0, len(text), 4):
                yield text[at : at + 4]

        async with client(BodyLimitMiddleware(echo, LIMIT)) as http:
            for text, status in ((b"x" * LIMIT, 200), (b"x" * (LIMIT + 1), 413)):
                answer = await http.post("/", content=pieces(text) if in_pieces else text)
                assert answer.status_code == status
