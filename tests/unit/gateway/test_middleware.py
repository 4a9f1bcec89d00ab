"""What stands around every request."""

from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware import BodyLimitMiddleware, CallMiddleware
from kit import call
from tests.conftest import Keys

LIMIT = 10


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with who asks and what they sent."""
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    principal = call.current.get().principal
    await PlainTextResponse(f"{principal.subject if principal else 'nobody'}: {body.decode()}")(scope, receive, send)


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


class TestCallMiddleware:
    async def test_knows_the_caller_and_names_the_request(self, keys: Keys) -> None:
        async with client(CallMiddleware(echo, keys.verifier(), 1)) as http:
            answer = await http.get(
                "/", headers={"Authorization": f"Bearer {keys.user('alice')}", "X-Request-Id": "mine"}
            )
            assert (answer.text, answer.headers["x-request-id"]) == ("alice: ", "mine")
            assert (await http.get("/")).text == "nobody: "
            answer = await http.get("/", headers={"X-Request-Id": "not fit for a log\x7f"})
            assert answer.headers["x-request-id"] not in {"", "not fit for a log\x7f"}

    async def test_refuses_a_token_that_is_not_believed(self, keys: Keys) -> None:
        async with client(CallMiddleware(echo, keys.verifier(), 1)) as http:
            answer = await http.get("/", headers={"Authorization": "Bearer forged"})
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
        assert answer.json()["requestId"] == answer.headers["x-request-id"]

    async def test_answers_for_who_fails_and_says_nothing_of_why(self, keys: Keys) -> None:
        async def fails(*_: Any) -> None:
            raise KeyError("password=x")

        async with client(CallMiddleware(fails, keys.verifier(), 1)) as http:
            answer = await http.get("/")
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
        assert answer.json()["requestId"] == answer.headers["x-request-id"]
        assert "password" not in answer.text

    async def test_leaves_it_to_the_server_where_an_answer_has_begun(self, keys: Keys) -> None:
        async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise KeyError("password=x")

        transport = httpx.ASGITransport(CallMiddleware(fails_late, keys.verifier(), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            with pytest.raises(KeyError):
                await http.get("/")


class TestBodyLimitMiddleware:
    @pytest.fixture(autouse=True)
    def named(self) -> None:
        call.current.set(call.Call("the-request"))

    @pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in pieces"])
    async def test_holds_whether_the_length_is_said_or_not(self, *, in_pieces: bool) -> None:
        async def pieces(text: bytes) -> Any:
            for at in range(0, len(text), 4):
                yield text[at : at + 4]

        async with client(BodyLimitMiddleware(echo, LIMIT)) as http:
            for text, status in ((b"x" * LIMIT, 200), (b"x" * (LIMIT + 1), 413)):
                answer = await http.post("/", content=pieces(text) if in_pieces else text)
                assert answer.status_code == status
