"""CORS: allowed origins and headers, and the settings that name them."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse

from gateway.http.cors import DEFAULT_HEADERS, CorsOptions, is_localhost, with_cors
from gateway.http.pacing import AT_ONCE, Pacer
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.settings import Settings

OURS, ANOTHER = "https://wallet.example", "https://another.example"
LOCALHOST = (
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:5173",
    "http://127.0.0.1:8080",
    "http://[::1]:4000",
)
NOT_LOCALHOST = (
    "http://localhost.example",
    "http://localhost:3000.example",
    "http://localhost:80@example",
    "http://127.0.0.1.example",
    "http://example/localhost",
    "ftp://localhost",
    "null",
    "http://localhost:3000\n",
)
REQUIRED = {"auth_issuer": "issuer", "auth_jwks": "https://issuer.example/jwks"}


def settings(**changes: Any) -> Settings:
    return Settings(**REQUIRED | changes)


async def preflight(options: CorsOptions, origin: str, headers: Sequence[str] = ()) -> httpx.Response:
    """Send the preflight request that a browser sends before a POST with these headers."""
    requested = {"Access-Control-Request-Headers": ",".join(headers)} if headers else {}
    return await send(options, "OPTIONS", {"Origin": origin, "Access-Control-Request-Method": "POST"} | requested)


async def send(options: CorsOptions, method: str, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(
        with_cors(PlainTextResponse("the response"), options, RateLimiter(RateLimitOptions()))
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        return await http.request(method, "/graphql", headers=headers)


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 200), ("DELETE", 400)])
async def test_pages_may_use_the_methods_of_the_api(method: str, status: int) -> None:
    requested = {
        "Origin": OURS,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    assert (await send(CorsOptions([OURS]), "OPTIONS", requested)).status_code == status


async def test_pages_may_compress_bodies() -> None:
    response = await preflight(CorsOptions([OURS]), OURS, ["content-encoding", "content-type"])
    assert response.status_code == 200


async def test_pages_may_read_whether_a_response_is_a_replay() -> None:
    response = await send(CorsOptions([OURS]), "POST", {"Origin": OURS})
    assert "Idempotency-Replayed" in response.headers["access-control-expose-headers"].split(", ")


async def test_pages_may_read_the_challenge_of_a_refused_token() -> None:
    response = await send(CorsOptions([OURS]), "POST", {"Origin": OURS})
    assert "WWW-Authenticate" in response.headers["access-control-expose-headers"].split(", ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Origin": ANOTHER}, "pages of this origin may not call the wallet: ask its operator to allow the origin\n"),
        ({"Access-Control-Request-Method": "PUT"}, "pages may use only the methods GET, HEAD, POST\n"),
        ({"Access-Control-Request-Headers": "x-one, x-two"}, "pages may send only the headers "),
        (
            {"Access-Control-Request-Private-Network": "true"},
            "pages of a public network may not call the wallet in a private network\n",
        ),
    ],
)
async def test_response_to_a_refused_preflight_has_the_reason(changes: dict[str, str], message: str) -> None:
    requested = {"Origin": OURS, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-One"}
    options = CorsOptions([OURS], ["x-one"])
    refused = await send(options, "OPTIONS", requested | changes)
    assert (refused.status_code, refused.text.startswith(message)) == (400, True)
    assert refused.headers["vary"].startswith("Origin")
    assert int(refused.headers["content-length"]) == len(refused.content)
    assert (await send(options, "OPTIONS", requested)).status_code == 200


class TestOrigins:
    @pytest.mark.parametrize("origin", LOCALHOST)
    async def test_localhost_is_allowed_on_any_port_in_development(self, origin: str) -> None:
        options = settings().cors_options()
        assert (await preflight(options, origin)).headers["access-control-allow-origin"] == origin
        assert (await send(options, "POST", {"Origin": origin})).headers["access-control-allow-origin"] == origin

    @pytest.mark.parametrize("origin", NOT_LOCALHOST)
    async def test_origin_that_resembles_localhost_is_refused(self, origin: str) -> None:
        assert not is_localhost(origin)

    async def test_other_origin_is_refused_in_development(self) -> None:
        refused = await preflight(settings().cors_options(), ANOTHER)
        assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (400, False)

    async def test_localhost_is_refused_in_production(self) -> None:
        options = settings(production=True, gateway_cors_origins=[OURS]).cors_options()
        for origin in LOCALHOST:
            assert (await preflight(options, origin)).status_code == 400
            assert "access-control-allow-origin" not in (await send(options, "POST", {"Origin": origin})).headers
        assert (await preflight(options, OURS)).status_code == 200

    async def test_app_without_origins_is_unchanged_in_production(self) -> None:
        app = PlainTextResponse("the response")
        assert with_cors(app, settings(production=True).cors_options(), RateLimiter(RateLimitOptions())) is app

    async def test_preflight_requests_of_one_address_are_spread_over_time(self) -> None:
        slept = list[float]()

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        limiter = RateLimiter(RateLimitOptions(), sleep=sleep)
        limiter._pacer = Pacer(lambda: 0.0, sleep)  # all requests arrive at the same time, however slow the machine is
        app = with_cors(PlainTextResponse("the response"), CorsOptions([OURS]), limiter)
        headers = {"Origin": OURS, "Access-Control-Request-Method": "POST"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
            statuses = [(await http.options("/graphql", headers=headers)).status_code for _ in range(AT_ONCE + 700)]
        assert slept
        assert statuses[0] == 200
        assert statuses[-1] == 429

    async def test_response_to_a_request_without_an_origin_varies_if_origins_are_named(self) -> None:
        response = await send(CorsOptions([OURS]), "GET", {})
        assert (response.text, response.headers["vary"]) == ("the response", "Origin")

    async def test_request_without_an_origin_gets_no_cors_headers_in_development(self) -> None:
        response = await send(settings().cors_options(), "GET", {})
        assert (response.text, "vary" in response.headers) == ("the response", False)


class TestHeaders:
    async def test_headers_of_common_clients_are_allowed_by_default(self) -> None:
        headers = (
            "authorization",
            "content-type",
            "idempotency-key",
            "x-request-id",
            "traceparent",
            "tracestate",
            "baggage",
            "sentry-trace",
            "apollographql-client-name",
            "apollographql-client-version",
            "x-apollo-operation-name",
            "graphql-require-preflight",
        )
        assert (await preflight(settings().cors_options(), LOCALHOST[0], headers)).status_code == 200

    async def test_other_header_is_refused(self) -> None:
        refused = await preflight(settings().cors_options(), LOCALHOST[0], ["x-forwarded-for"])
        assert refused.status_code == 400

    async def test_setting_replaces_the_default(self) -> None:
        options = settings(gateway_cors_headers=["x-ours"]).cors_options()
        assert (await preflight(options, LOCALHOST[0], ["x-ours"])).status_code == 200
        assert (await preflight(options, LOCALHOST[0], ["idempotency-key"])).status_code == 400

    def test_default_names_are_lower_case_and_sorted(self) -> None:
        assert list(DEFAULT_HEADERS) == sorted({name.lower() for name in DEFAULT_HEADERS})


class TestSettings:
    @pytest.mark.parametrize(
        "origin", ["a.example", "https://a.example/", "https://A.example", "https://*.example", "null"]
    )
    def test_origin_that_no_browser_sends_is_refused(self, origin: str) -> None:
        with pytest.raises(ValidationError, match="is no origin: write scheme, host in lower case, and port"):
            settings(gateway_cors_origins=[origin])

    @pytest.mark.parametrize("name", ["", "x-one, x-two", "x-one\n", "\u00fcber"])
    def test_invalid_header_name_is_refused(self, name: str) -> None:
        with pytest.raises(ValidationError, match="is no header name"):
            settings(gateway_cors_headers=[name])

    @pytest.mark.parametrize(
        ("origin", "problem"), [("*", "allows all origins"), *((each, "allows localhost") for each in LOCALHOST)]
    )
    def test_production_refuses_the_wildcard_and_localhost(self, origin: str, problem: str) -> None:
        with pytest.raises(ValidationError, match=f"GATEWAY_CORS_ORIGINS {problem}"):
            settings(production=True, gateway_cors_origins=[OURS, origin])
