"""HTTP semantics of the gateway, with real clients: upgrades, HEAD, content codings, trailing slashes."""

import asyncio
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.auth.principal import Role
from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT, FakeBank, FakeCard
from tests.integration.gateway.gateway_process import Gateway
from tests.openapi import REST
from tests.tools import skip_without_tool

TRANSFERS = f"/accounts/{ACCOUNT}/transfers"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
TRANSFER = {"recipientId": UNKNOWN, "amount": "1.00", "currency": "RUB"}
JSON = {"Content-Type": "application/json"}


async def run(*command: str) -> list[str]:
    """Run a client, and return the lines of its output."""
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()


class TestUpgrades:
    @pytest.mark.slow
    async def test_requests_of_javas_default_client_are_served(self, gateway: Gateway, bank: FakeBank) -> None:
        java = shutil.which("java")
        if java is None or shutil.which("javac") is None:  # a Java runtime alone cannot run a source file
            skip_without_tool("there is no JDK")
        program = str(Path(__file__).with_name("JavaClient.java"))
        lines = await run(java, program, gateway.url, TRANSFERS, json.dumps(TRANSFER), gateway.token)
        responses = [line.split(" ", 2) for line in lines]
        assert [(status, version) for status, version, _ in responses] == [
            ("201", "HTTP_1_1"),
            ("201", "HTTP_1_1"),
            ("201", "HTTP_1_1"),
            ("200", "HTTP_1_1"),
        ]
        assert [json.loads(body)["amount"] for _, _, body in responses[:3]] == ["1.00"] * 3

    @pytest.mark.parametrize("body", [json.dumps(TRANSFER), json.dumps(TRANSFER) + " " * 20_000])
    async def test_post_of_curl_with_an_http2_upgrade_is_served(
        self, gateway: Gateway, bank: FakeBank, body: str
    ) -> None:
        curl = shutil.which("curl")
        if curl is None or "HTTP2" not in "".join(await run(curl, "--version")):
            skip_without_tool("there is no curl with HTTP/2")
        lines = await run(
            *(curl, "--silent", "--http2", gateway.url + TRANSFERS, "--write-out", "\n%{http_code} %{http_version}"),
            *("--data", body, "--header", "Content-Type: application/json", "--header", "Idempotency-Key: curl"),
            *("--header", f"Authorization: Bearer {gateway.token}"),
        )
        assert (json.loads(lines[0])["amount"], lines[1]) == ("1.00", "201 1.1")


class TestHead:
    @pytest.mark.parametrize(
        "path",
        [
            f"/accounts/{ACCOUNT}",
            f"/accounts/{UNKNOWN}",
            f"/accounts/{ACCOUNT}/topups/{UNKNOWN}",
            "/health/live",
            "/health/ready",
            "/.well-known/jwks.json",
            "/docs",
            "/openapi.yaml",
            "/openapi.json",
            "/assets/react-18.3.1/react.production.min.js",
            "/graphql?query={__typename}",
            "/nowhere",
        ],
    )
    async def test_response_to_head_is_that_of_get_without_the_body(
        self, gateway: Gateway, bank: FakeBank, card: FakeCard, path: str
    ) -> None:
        plain = {"Accept-Encoding": "identity"}
        got, head = await gateway.http.get(path, headers=plain), await gateway.http.head(path, headers=plain)
        assert (head.status_code, head.content) == (got.status_code, b"")
        changing = {"date", "x-request-id", "ratelimit"}
        assert without(head.headers, changing) == without(got.headers, changing)
        assert int(head.headers["content-length"]) == len(got.content) > 0

    async def test_head_needs_the_token_of_get(self, gateway: Gateway) -> None:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as anonymous:
            assert (await anonymous.head(f"/accounts/{ACCOUNT}")).status_code == 401

    @pytest.mark.parametrize("path", [f"/accounts/{ACCOUNT}/topup", "/auth/login"])
    async def test_head_of_a_path_without_get_is_405(self, gateway: Gateway, path: str) -> None:
        response = await gateway.http.head(path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


class TestConditionalReads:
    PATH = f"/accounts/{ACCOUNT}"

    async def test_read_has_a_tag_and_is_for_the_private_cache_only(self, gateway: Gateway, bank: FakeBank) -> None:
        first, second = [await gateway.http.get(self.PATH) for _ in range(2)]
        assert first.headers["etag"] == second.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        assert first.headers["vary"] == "Authorization"

    @pytest.mark.parametrize("condition", ["{0}", "W/{0}", '"other", {0}', "*"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_content_that_the_client_has_is_not_sent(
        self, gateway: Gateway, bank: FakeBank, method: str, condition: str
    ) -> None:
        tag = (await gateway.http.get(self.PATH)).headers["etag"]
        unchanged = await gateway.http.request(method, self.PATH, headers={"If-None-Match": condition.format(tag)})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
        assert unchanged.headers["cache-control"] == "private, no-cache"
        assert "content-type" not in unchanged.headers

    async def test_other_content_is_sent(self, gateway: Gateway, bank: FakeBank) -> None:
        changed = await gateway.http.get(self.PATH, headers={"If-None-Match": '"other"'})
        assert (changed.status_code, changed.json()["id"]) == (200, str(ACCOUNT))

    @pytest.mark.parametrize(("path", "status"), [(f"/accounts/{UNKNOWN}", 404), ("/accounts/42", 400)])
    async def test_refusal_has_no_tag_and_is_not_stored(
        self, gateway: Gateway, bank: FakeBank, path: str, status: int
    ) -> None:
        refused = await gateway.http.get(path, headers={"If-None-Match": "*"})
        assert (refused.status_code, refused.headers["cache-control"]) == (status, "no-store")
        assert "etag" not in refused.headers


class TestUnknownQueryParameters:
    """Query parameters that a route does not have, by the rules of `docs/reference/http.md`."""

    @pytest.mark.parametrize(("method", "path"), REST.operations())
    async def test_rest_refuses_them_with_a_message(
        self, gateway: Gateway, bank: FakeBank, card: FakeCard, keys: Keys, method: str, path: str
    ) -> None:
        path = re.sub(r"\{\w+\}", str(ACCOUNT), path)
        headers = {**JSON, "Authorization": f"Bearer {keys.user('root', Role.ADMIN)}"}  # may call every route
        refused = await gateway.http.request(method, f"{path}?qqqq=1&_=2&utm_source=3", headers=headers, content="{}")
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_INPUT")
        (field,) = refused.json()["fields"]
        assert field["field"] == "query"
        assert field["message"].startswith("has an unknown parameter: ")
        assert (bank.requests, card.requests) == ([], [])

    async def test_rest_refuses_more_than_a_hundred_parameters(self, gateway: Gateway) -> None:
        for count, message in ((100, "has an unknown parameter: this route has none"), (101, "must have at most 100")):
            refused = await gateway.http.get("/me?" + "&".join(["qqqq=1"] * count))
            assert refused.status_code == 400
            (field,) = refused.json()["fields"]
            assert (field["field"], field["message"].startswith(message)) == ("query", True)

    @pytest.mark.parametrize(
        "path",
        [
            "/health/live",
            "/health/ready",
            "/docs",
            "/openapi.yaml",
            "/openapi.json",
            "/problems",
            "/problems/invalid-input",
            "/assets/react-18.3.1/react.production.min.js",
            "/graphql?query={__typename}",
        ],
    )
    async def test_pages_health_and_graphql_ignore_them(self, gateway: Gateway, path: str) -> None:
        plain = await gateway.http.get(path)
        more = await gateway.http.get(path + ("&" if "?" in path else "?") + "qqqq=1&qqqq=2")
        assert plain.status_code == more.status_code == 200
        assert plain.content == more.content

    async def test_graphql_by_post_ignores_the_name_of_the_operation(self, gateway: Gateway) -> None:
        response = await gateway.http.post("/graphql?op=Name&query=wrong", json={"query": "query Name { __typename }"})
        assert (response.status_code, response.json()) == (200, {"data": {"__typename": "Query"}})


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/accounts", "GET, HEAD, POST"),
        (f"/accounts/{ACCOUNT}", "GET, HEAD"),
        (TRANSFERS, "GET, HEAD, POST"),
        ("/health/ready", "GET, HEAD"),
        ("/openapi.yaml", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/assets/react-18.3.1/react.production.min.js", "GET, HEAD"),
        ("/graphql", "GET, HEAD, POST"),
    ],
)
async def test_allow_has_all_methods_of_the_path(gateway: Gateway, path: str, allow: str) -> None:
    response = await gateway.http.delete(path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)


class TestBodies:
    async def post(self, gateway: Gateway, path: str, content: bytes, **headers: str) -> httpx.Response:
        return await gateway.http.post(path, content=content, headers={"Idempotency-Key": "k", **JSON} | headers)

    async def test_gzip_transfer_is_executed(self, gateway: Gateway, bank: FakeBank) -> None:
        body = gzip.compress(json.dumps(TRANSFER).encode())
        response = await self.post(gateway, TRANSFERS, body, **{"Content-Encoding": "gzip"})
        assert (response.status_code, response.json()["amount"]) == (201, "1.00")

    async def test_gzip_query_is_executed(self, gateway: Gateway) -> None:
        body = gzip.compress(b'{"query":"{ __typename }"}')
        response = await self.post(gateway, "/graphql", body, **{"Content-Encoding": "gzip"})
        assert response.json() == {"data": {"__typename": "Query"}}

    @pytest.mark.parametrize(
        ("headers", "is_gzipped", "status"),
        [
            ({"Content-Type": "text/plain"}, False, 415),
            ({"Content-Type": ""}, False, 415),
            ({"Content-Type": "application/json; charset=utf-16"}, False, 415),
            ({"Content-Type": "application/json; charset=latin-1"}, False, 415),
            ({"Content-Encoding": "br"}, False, 415),
            ({"Content-Encoding": "gzip"}, False, 400),
            ({"Content-Type": "text/plain", "Content-Encoding": "gzip"}, True, 415),
            ({}, True, 400),
        ],
    )
    @pytest.mark.parametrize(
        ("path", "body"), [(TRANSFERS, TRANSFER), ("/graphql", {"query": "{ __typename }"})], ids=["rest", "graphql"]
    )
    async def test_body_with_a_wrong_type_or_encoding_header_is_not_executed(
        self, gateway: Gateway, path: str, body: Any, headers: dict[str, str], status: int, *, is_gzipped: bool
    ) -> None:
        text = json.dumps(body).encode()
        response = await self.post(gateway, path, gzip.compress(text) if is_gzipped else text, **headers)
        assert response.status_code == status
        assert "data" not in response.json()

    @pytest.mark.parametrize("path", [TRANSFERS, "/graphql"])
    async def test_bomb_is_refused(self, gateway: Gateway, path: str) -> None:
        body = gzip.compress(b'{"query":"' + b" " * 2_000_000 + b'"}')
        response = await self.post(gateway, path, body, **{"Content-Encoding": "gzip"})
        problem = response.json()
        code = problem["errors"][0]["extensions"]["code"] if path == "/graphql" else problem["code"]
        assert (response.status_code, code) == (413, "CONTENT_TOO_LARGE")

    async def test_two_content_types_are_refused(self, gateway: Gateway) -> None:
        for path in (TRANSFERS, "/graphql"):
            headers = [("Content-Type", "application/json"), ("Content-Type", "text/plain"), ("Idempotency-Key", "k")]
            assert (await gateway.http.post(path, content=b"{}", headers=headers)).status_code == 415


@pytest.mark.parametrize("path", ["/accounts/", "/health/ready/", "/docs/", "/graphql/", "//evil.example/accounts/"])
async def test_trailing_slash_is_not_redirected(gateway: Gateway, path: str) -> None:
    response = await gateway.http.get(f"{gateway.url}{path}", headers={"Host": "evil.example"})
    assert (response.status_code, "location" in response.headers) == (404, False)


def without(headers: httpx.Headers, names: set[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}
