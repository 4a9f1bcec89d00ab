import asyncio
from pathlib import Path

import httpx
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from sandbox.acquirer import Acquirer
from sandbox.api import build_app
from sandbox.books import Books
from sandbox.middleware import RandomFailureMiddleware, RequestMiddleware


class App:
    """App that records the paths of its requests, and responds when the gate is open."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        self.entered.set()
        await self.gate.wait()
        await PlainTextResponse("done")(scope, receive, send)


def open_client(app: object, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=headers)


async def test_long_path_is_cut_and_masked_in_the_log_line() -> None:
    with capture_logs() as logged:
        async with open_client(RequestMiddleware(App(), "key")) as http:
            await http.get("/v1/" + "x" * 10_000)
            await http.get("/v1/4242424242424242")
    paths = [each["path"] for each in logged if each["event"] == "request completed"]
    assert paths == ["/v1/" + "x" * 252 + "…", "/v1/#"]


async def test_api_key_is_accepted_from_exactly_one_bearer_header() -> None:
    cases: tuple[tuple[list[str], int], ...] = (
        (["Bearer key"], 200),
        (["bearer key"], 200),
        (["Bearer other"], 401),
        (["key"], 401),
        (["Bearer key", "Bearer key"], 401),
        ([], 401),
    )
    async with open_client(RequestMiddleware(App(), "key")) as http:
        for lines, status in cases:
            response = await http.get("/v1/payments", headers=[("Authorization", line) for line in lines])
            assert response.status_code == status, lines


class TestFailures:
    async def outcomes(self, *, seed: int, rate: float = 0.5, count: int = 60) -> list[tuple[int, bool]]:
        """Return the status of each request, and whether the request was executed."""
        app = App()
        found = []
        async with open_client(RandomFailureMiddleware(app, delay_seconds=0, rate=rate, seed=seed)) as http:
            for _ in range(count):
                before = len(app.paths)
                status = (await http.post("/v1/payments")).status_code
                found.append((status, len(app.paths) > before))
        return found

    async def test_same_seed_fails_the_same_requests(self) -> None:
        assert await self.outcomes(seed=7) == await self.outcomes(seed=7) != await self.outcomes(seed=8)

    async def test_request_fails_before_or_after_its_execution(self) -> None:
        assert set(await self.outcomes(seed=7)) == {(200, True), (503, True), (503, False)}

    async def test_failure_rate_is_respected(self) -> None:
        assert set(await self.outcomes(seed=7, rate=0)) == {(200, True)}
        assert {status for status, _ in await self.outcomes(seed=7, rate=1)} == {503}
        failed = [status for status, _ in await self.outcomes(seed=7, rate=0.1, count=500)].count(503)
        assert 25 < failed < 75

    async def test_paths_outside_the_contract_never_fail(self) -> None:
        async with open_client(RandomFailureMiddleware(App(), delay_seconds=9, rate=1, seed=7)) as http:
            assert (await http.get("/health/ready")).status_code == 200


class TestCalls:
    async def test_request_without_api_key_is_unauthorized(self) -> None:
        app = App()
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            async with open_client(RequestMiddleware(app, "secret"), **headers) as http:
                refused = await http.post("/v1/payments")
                assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHORIZED")
        assert app.paths == []

    async def test_paths_outside_the_contract_need_no_key(self) -> None:
        async with open_client(RequestMiddleware(App(), "secret")) as http:
            assert (await http.get("/")).status_code == 200

    async def test_one_request_at_a_time_per_idempotency_key(self) -> None:
        app = App()
        app.gate.clear()
        async with open_client(RequestMiddleware(app, "secret"), authorization="Bearer secret") as http:
            first = asyncio.create_task(http.post("/v1/payments", headers={"idempotency-key": "a"}))
            await app.entered.wait()
            second = await http.post("/v1/payments", headers={"idempotency-key": "a"})
            assert (second.status_code, second.json()["code"]) == (409, "KEY_IN_USE")
            app.gate.set()
            assert (await http.post("/v1/payments", headers={"idempotency-key": "b"})).status_code == 200
            assert (await first).status_code == 200
            assert (await http.post("/v1/payments", headers={"idempotency-key": "a"})).status_code == 200


async def test_disconnect_within_the_body_is_logged_with_status_499(tmp_path: Path) -> None:
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        pass

    headers = [(b"authorization", b"Bearer key"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/tokens",
        "query_string": b"",
        "headers": headers,
    }
    with Books.open(tmp_path / "books") as books, capture_logs() as logged:
        acquirer = Acquirer(books, asyncio.Event(), timeout_seconds=1, late_seconds=1)
        await RequestMiddleware(build_app(acquirer, {}), "key")(scope, receive, send)
    assert [(line["event"], line["status"]) for line in logged] == [("request completed", 499)]
