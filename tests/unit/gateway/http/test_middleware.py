"""The middleware: request id, authentication, errors, log line and response headers."""

import asyncio
import re
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from gateway.http import exchange
from gateway.http.pages import REST_DOCS, add_pages
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.work_limits import BESIDE_OTHERS, WorkLimits
from kit.http.admin import add_health_routes
from kit.http.routing import new_app
from kit.rpc import request_context
from kit.runtime.fair_limit import FairLimit
from kit.telemetry.log_throttle import LogThrottle
from tests.conftest import Keys
from tests.unit.gateway.http.asgi import echo, http_client, with_middleware

REALM = 'Bearer realm="wallet"'
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_valid_token_sets_the_principal(keys: Keys) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        response = await http.get("/", headers={"Authorization": f"Bearer {keys.user('alice')}"})
        assert response.text == "alice: "
        assert (await http.get("/")).text == "anonymous: "


async def test_invalid_token_is_rejected_with_401(keys: Keys) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        response = await http.get("/", headers={"Authorization": "Bearer forged"})
    assert (response.status_code, response.json()["code"]) == (401, "UNAUTHENTICATED")
    assert response.json()["requestId"] == response.headers["x-request-id"]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_scheme_of_the_token_may_have_any_case_and_another_space(keys: Keys, scheme: str) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        response = await http.get("/", headers={"Authorization": f"{scheme} {keys.user('alice')}"})
    assert response.text == "alice: "


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer "])
async def test_request_without_a_token_is_anonymous(keys: Keys, value: str) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        assert (await http.get("/", headers={"Authorization": value})).text == "anonymous: "


@pytest.mark.parametrize("path", ["/me", "/graphql"])
async def test_refused_authorization_has_a_status_and_a_challenge(keys: Keys, path: str) -> None:
    token = keys.user("alice")
    cases = (
        ([token], 401, REALM),
        ([f"Basic {token}"], 401, REALM),
        (["Bearer forged"], 401, f'{REALM}, error="invalid_token"'),
        ([f"Bearer {token}"] * 2, 400, f'{REALM}, error="invalid_request"'),
        ([f"Bearer {token}", "Bearer forged"], 400, f'{REALM}, error="invalid_request"'),
        ([f"Bearer {token}, Bearer {token}"], 400, f'{REALM}, error="invalid_request"'),
        ([f"Basic YTpi, Bearer {token}"], 400, f'{REALM}, error="invalid_request"'),
    )
    async with http_client(with_middleware(echo, keys)) as http:
        for lines, status, challenge in cases:
            response = await http.get(path, headers=[("Authorization", line) for line in lines])
            assert (response.status_code, response.headers["www-authenticate"]) == (status, challenge), lines
            assert token not in response.text


async def test_other_repeated_headers_are_accepted(keys: Keys) -> None:
    headers = [("Authorization", f"Bearer {keys.user('alice')}"), ("X-Extra", "1"), ("X-Extra", "2")]
    async with http_client(with_middleware(echo, keys)) as http:
        assert (await http.get("/", headers=headers)).text == "alice: "


@pytest.mark.parametrize("media_type", ["application/json", "application/graphql-response+json"])
async def test_refusal_before_a_graphql_endpoint_is_a_graphql_error(keys: Keys, media_type: str) -> None:
    headers = {"Authorization": "Bearer forged", "Accept": media_type}
    async with http_client(with_middleware(echo, keys)) as http:
        for path in ("/graphql", "/subgraphs/bank/graphql"):
            response = await http.post(path, headers=headers)
            assert (response.status_code, response.headers["content-type"]) == (401, f"{media_type}; charset=utf-8")
            (error,) = response.json()["errors"]
            assert error["message"] == "the token is not valid: it is malformed: send the access token unchanged"
            assert error["extensions"] == {"code": "UNAUTHENTICATED", "requestId": response.headers["x-request-id"]}


async def test_requests_of_one_kind_do_not_use_up_the_limit_of_another(keys: Keys) -> None:
    """Wrong logins of one user of a network must not end the sessions of the others behind the same address."""
    token = {"Authorization": f"Bearer {keys.user('alice')}"}
    app = with_middleware(echo, keys, rates=RateLimitOptions(login="2/hour", anonymous="2/hour"))
    async with http_client(app) as http:
        for path in ("/auth/login", "/"):
            assert [(await http.post(path)).status_code for _ in range(3)] == [200, 200, 429]
        assert (await http.post("/auth/register")).status_code == 429
        for path, headers in (("/auth/refresh", {}), ("/auth/password", token), ("/", token)):
            assert (await http.post(path, headers=headers)).status_code == 200
        assert [(await http.post("/auth/logout")).status_code for _ in range(2)] == [200, 429]
        assert [(await http.post("/auth/password", headers=token)).status_code for _ in range(2)] == [200, 429]
        bob = {"Authorization": f"Bearer {keys.user('bob')}"}
        assert (await http.post("/auth/password", headers=bob)).status_code == 200


async def test_concurrent_requests_of_one_address_are_limited_but_not_its_health_checks(keys: Keys) -> None:
    started, is_slow, proceed = list[str](), asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.append(scope["path"])
        if scope["path"] == "/slow":
            is_slow.set()
            await proceed.wait()
        await PlainTextResponse("done")(scope, receive, send)

    app = with_middleware(wait, keys, timeout_seconds=60, work=WorkLimits(requests=FairLimit(1)))
    async with http_client(app) as http, http_client(app, address="198.51.100.1") as other:
        slow = asyncio.create_task(http.post("/slow", content=b"x"))
        await is_slow.wait()
        waiting = [asyncio.create_task(http.request(method, "/next")) for method in ("GET", "POST")]
        assert (await other.get("/other")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 200
        assert "/next" not in started
        proceed.set()
        assert [(await each).status_code for each in (slow, *waiting)] == [200] * 3


@pytest.mark.parametrize(("shares_time", "at_once"), [(True, 2), (False, 20)])
async def test_fewer_requests_of_an_address_are_in_progress_while_it_shares_the_time(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, *, shares_time: bool, at_once: int
) -> None:
    started, all_started, proceed = list[str](), asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.append(scope["path"])
        if scope["path"] == "/slow":
            if started.count("/slow") == at_once:
                all_started.set()
            await proceed.wait()
        await PlainTextResponse("done")(scope, receive, send)

    monkeypatch.setattr(RateLimiter, "share_time", AsyncMock(return_value=shares_time))
    app = with_middleware(wait, keys, timeout_seconds=60, work=WorkLimits(requests=FairLimit(2 * BESIDE_OTHERS)))
    async with http_client(app) as http:
        slow = [asyncio.create_task(http.get("/slow")) for _ in range(20)]
        await all_started.wait()
        await http.get("/health/ready")  # passes through the turnstile after the requests that may start
        assert started.count("/slow") == at_once
        proceed.set()
        assert [(await each).status_code for each in slow] == [200] * 20


async def test_request_that_waits_until_its_deadline_is_refused(keys: Keys) -> None:
    work = WorkLimits(requests=FairLimit(1))
    async with (
        work.requests.hold("127.0.0.1"),
        http_client(with_middleware(echo, keys, timeout_seconds=0.05, work=work)) as http,
    ):
        for method in ("GET", "POST"):
            response = await http.request(method, "/")
            assert (response.status_code, response.json()["code"]) == (429, "RESOURCE_EXHAUSTED")
            assert response.headers["retry-after"] == "1"
    assert not work.requests


async def test_token_is_not_verified_on_public_paths(keys: Keys) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        response = await http.post("/auth/refresh", headers={"Authorization": "Bearer expired"})
    assert (response.status_code, response.text) == (200, "anonymous: ")


@pytest.mark.parametrize("value", ["Basic bW9uOnB3", "Bearer forged"])
async def test_authorization_is_ignored_where_no_token_is_needed(keys: Keys, value: str) -> None:
    app = new_app()
    add_pages(app)
    add_health_routes(app, {})
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    assert {"/health/ready", "/docs", "/openapi.json", "/openapi.yaml", "/problems", "/problems/unauthenticated"} <= {
        *paths
    }
    (asset, *_) = re.findall(r'"(/assets/.*?)"', REST_DOCS)
    async with http_client(with_middleware(app, keys)) as http:
        for path in [*paths, asset]:
            response = await http.get(path, headers={"Authorization": value})
            assert response.status_code == 200, path


async def test_authorization_is_ignored_for_graphiql_only(keys: Keys) -> None:
    accept_html = "text/html,application/xhtml+xml,*/*;q=0.8"
    cases = (
        ("GET", "/graphql", accept_html, 200),
        ("HEAD", "/graphql", accept_html, 200),
        ("GET", "/subgraphs/bank/graphql", accept_html, 200),
        ("GET", "/graphql?query={me{id}}", accept_html, 401),
        ("GET", "/graphql?documentId=sha256:0", accept_html, 401),
        ("POST", "/graphql", accept_html, 401),
        ("GET", "/graphql", "application/json", 401),
        ("GET", "/me", accept_html, 401),
    )
    async with http_client(with_middleware(echo, keys)) as http:
        for method, url, accept, status in cases:
            headers = {"Authorization": "Basic bW9uOnB3", "Accept": accept}
            response = await http.request(method, url, headers=headers)
            assert response.status_code == status, (method, url, accept)


async def test_request_id_of_the_caller_is_returned_if_it_is_safe_to_log(keys: Keys) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        assert (await http.get("/", headers={"X-Request-Id": "mine"})).headers["x-request-id"] == "mine"
        response = await http.get("/", headers={"X-Request-Id": "not fit for a log\x7f"})
        assert response.headers["x-request-id"] not in {"", "not fit for a log\x7f"}


async def test_request_id_is_the_trace_id_unless_the_caller_sends_one(keys: Keys) -> None:
    async def respond_with_trace(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(request_context.current_request.get().trace.traceparent)(scope, receive, send)

    async with http_client(with_middleware(respond_with_trace, keys)) as http:
        for sent in ({}, {"traceparent": "nonsense"}, {"traceparent": TRACEPARENT}):
            response = await http.get("/", headers=sent)
            assert response.headers["x-request-id"] == response.text[3:35]
        assert response.text == TRACEPARENT
        response = await http.get("/", headers={"traceparent": TRACEPARENT, "X-Request-Id": "mine"})
        assert (response.text, response.headers["x-request-id"]) == (TRACEPARENT, "mine")


async def test_log_line_has_no_query_body_header_or_card_number(keys: Keys) -> None:
    with capture_logs() as logged:
        async with http_client(with_middleware(echo, keys)) as http:
            await http.post("/accounts/4242424242424242?cvv=739182645", content="4242", headers={"cookie": "4242"})
    (line,) = [each for each in logged if each["event"] == "request completed"]
    assert 0 <= line.pop("ms") < 10_000
    assert line == {
        "event": "request completed",
        "log_level": "info",
        "method": "POST",
        "path": "/accounts/#",
        "status": 200,
    }


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [("/health/ready", 200, "debug"), ("/health/ready", 503, "debug"), ("/accounts", 503, "info")],
)
async def test_health_check_is_logged_at_debug_level(keys: Keys, path: str, status: int, level: str) -> None:
    with capture_logs() as logged:
        async with http_client(with_middleware(PlainTextResponse("", status), keys)) as http:
            await http.get(path)
    assert [each["log_level"] for each in logged if each["event"] == "request completed"] == [level]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health/nowhere"),
        ("GET", "/health/ready/"),
        ("POST", "/health/ready"),
        ("OPTIONS", "/health/live"),
    ],
)
async def test_request_that_resembles_a_health_check_counts_for_the_rate_limit(
    keys: Keys, method: str, path: str
) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        assert "ratelimit" in (await http.request(method, path)).headers
        for check in ("/health/live", "/health/ready"):
            assert "ratelimit" not in (await http.get(check)).headers
            assert "ratelimit" not in (await http.head(check)).headers


async def test_response_to_an_unexpected_error_has_no_details(keys: Keys) -> None:
    async def fail(*_: Any) -> None:
        raise KeyError("password=x")

    async with http_client(with_middleware(fail, keys)) as http:
        response = await http.get("/")
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")
    assert response.json()["requestId"] == response.headers["x-request-id"]
    assert "password" not in response.text


async def test_unexpected_error_after_the_response_started_is_raised_to_the_server(keys: Keys) -> None:
    async def fail_late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("password=x")

    async with http_client(with_middleware(fail_late, keys), raise_app_exceptions=True) as http:
        with pytest.raises(KeyError):
            await http.get("/")


async def test_security_headers_are_on_every_response(keys: Keys) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        for sent in ({}, {"Authorization": "Bearer forged"}):
            headers = (await http.get("/", headers=sent)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-content-type-options"] == "nosniff"


async def test_security_header_of_the_route_is_kept(keys: Keys) -> None:
    cached = PlainTextResponse("cached", headers={"Cache-Control": "max-age=60"})
    async with http_client(with_middleware(cached, keys)) as http:
        assert (await http.get("/")).headers.get_list("cache-control") == ["max-age=60"]


async def test_long_path_is_cut_in_the_log_line(keys: Keys) -> None:
    with capture_logs() as logged:
        async with http_client(with_middleware(echo, keys)) as http:
            await http.get("/" + "%01" * 10_000)
            await http.get("/" + "x" * 250 + "4242424242424242" + "x" * 100)
    assert [each["path"] for each in logged if each["event"] == "request completed"] == [
        "/" + "\x01" * 255 + "…",
        "/" + "x" * 250 + "#xxxx…",
    ]


async def test_refusals_are_logged_a_few_times_a_second(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = LogThrottle(3)
    now = 0.0
    monkeypatch.setattr(throttle, "admits", lambda _: LogThrottle.admits(throttle, now))
    monkeypatch.setattr(exchange, "_refused_requests", throttle)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("later", 429)(scope, receive, send)

    with capture_logs() as logged:
        async with http_client(with_middleware(refuse, keys)) as http:
            for _ in range(50):
                await http.get("/")
            now = 1.0
            await http.get("/")
    lines = [each for each in logged if each["event"] == "request completed"]
    assert [each.get("omitted", 0) for each in lines] == [0, 0, 0, 47]
