"""Admin interface: readiness, metrics and authorized routes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

from kit.auth.access import ADMIN_ACCESS, OPERATOR_ACCESS
from kit.auth.keys import KeySet
from kit.auth.principal import MAX_TOKEN_BYTES, Role, TokenVerifier
from kit.http import admin
from kit.http.admin import HealthCheck, JsonLinesResponse, add_authorized_routes, admin_app, run_checks
from kit.http.routing import answer_head
from kit.http.server import http_server
from kit.telemetry import metrics
from stack.ports import free_ports
from tests.conftest import AUDIENCE, USERS, Keys


async def passing_check() -> None:
    """Check of an available dependency."""


async def failing_check() -> None:
    raise ConnectionRefusedError("with a secret: postgresql://bank:password@…")


@asynccontextmanager
async def serve_admin(checks: Mapping[str, HealthCheck]) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the admin interface; yield a client."""
    (port,) = free_ports(1)
    async with (
        http_server(admin_app(checks), f"127.0.0.1:{port}"),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


class TestErrors:
    async def test_unknown_path_returns_404_with_our_message(self) -> None:
        async with serve_admin({}) as client:
            response = await client.get("/nosuch")
        assert response.status_code == 404
        assert response.json() == {"detail": "there is no such path: see the reference of this port"}

    async def test_refusal_of_a_method_lists_the_allowed_methods(self) -> None:
        async with serve_admin({}) as client:
            response = await client.post("/metrics")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
        assert response.json() == {"detail": "this path has only the methods GET, HEAD"}


class TestReadiness:
    async def test_passed_checks_are_ok(self) -> None:
        assert await run_checks({"database": passing_check, "broker": passing_check}) == {
            "database": "ok",
            "broker": "ok",
        }

    async def test_state_of_a_failed_check_is_the_type_of_its_error(self) -> None:
        states = await run_checks({"database": failing_check, "broker": passing_check})
        assert states == {"database": "ConnectionRefusedError", "broker": "ok"}

    async def test_checks_run_concurrently_and_time_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admin, "_CHECK_TIMEOUT_SECONDS", 0.5)
        running = most = 0

        async def hangs() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await asyncio.Event().wait()
            finally:
                running -= 1

        states = await run_checks({f"part {n}": hangs for n in range(20)} | {"good": passing_check})
        assert (running, most) == (0, 20)
        assert states == {f"part {n}": "TimeoutError" for n in range(20)} | {"good": "ok"}

    async def test_process_without_checks_is_ready(self) -> None:
        assert await run_checks({}) == {}


class TestAdmin:
    async def test_admin_is_ready_when_all_checks_pass(self) -> None:
        async with serve_admin({"database": passing_check}) as http:
            response = await http.get("/health/ready")
        assert (response.status_code, response.json()) == (200, {"status": "ready", "checks": {"database": "ok"}})

    async def test_failed_check_returns_503_without_the_message_of_its_error(self) -> None:
        async with serve_admin({"database": failing_check, "broker": passing_check}) as http:
            response = await http.get("/health/ready")
        assert response.status_code == 503
        assert response.json() == {
            "status": "not ready",
            "checks": {"database": "ConnectionRefusedError", "broker": "ok"},
        }

    async def test_admin_becomes_ready_when_the_dependency_recovers(self) -> None:
        is_available = False

        async def recovering_check() -> None:
            if not is_available:
                raise ConnectionRefusedError

        async with serve_admin({"database": recovering_check}) as http:
            assert (await http.get("/health/ready")).status_code == 503
            is_available = True
            assert (await http.get("/health/ready")).status_code == 200

    async def test_liveness_does_not_depend_on_checks(self) -> None:
        async with serve_admin({"database": failing_check}) as http:
            response = await http.get("/health/live")
        assert (response.status_code, response.json()) == (200, {"status": "live"})

    @pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/nowhere"])
    async def test_head_responds_like_get_without_a_body(self, path: str) -> None:
        async with serve_admin({"database": failing_check}) as http:
            by_get, by_head = await http.get(path), await http.head(path)
        assert (by_head.status_code, by_head.content) == (by_get.status_code, b"")
        assert by_head.headers["content-type"] == by_get.headers["content-type"]
        if path != "/metrics":  # the metrics change with each request
            assert int(by_head.headers["content-length"]) == len(by_get.content) > 0

    async def test_other_method_returns_405_with_the_methods_of_the_route(self) -> None:
        async with serve_admin({}) as http:
            response = await http.post("/health/ready")
        assert (response.status_code, set(response.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})

    async def test_trailing_slash_is_not_redirected(self) -> None:
        async with serve_admin({}) as http:
            response = await http.get("/health/ready/", headers={"Host": "evil.example"})
        assert (response.status_code, "location" in response.headers) == (404, False)

    async def test_head_request_for_a_stream_does_not_start_its_generator(self) -> None:
        started = False

        async def lines() -> AsyncGenerator[dict[str, object], None]:
            nonlocal started
            started = True
            yield {"line": 1}

        app, (port,) = admin_app({}), free_ports(1)

        @app.get("/lines")
        async def read_lines() -> JsonLinesResponse:
            return JsonLinesResponse(lines())

        answer_head(app.router.routes)
        url = f"http://127.0.0.1:{port}/lines"
        async with http_server(app, f"127.0.0.1:{port}"), httpx.AsyncClient(trust_env=False) as http:
            response = await http.head(url)
            assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
            assert not started
            assert (await http.get(url)).text == '{"line":1}\n'

    async def test_invalid_parameters_are_described_without_the_messages_of_libraries(self) -> None:
        app = admin_app({})

        @app.get("/things/{id}")
        async def read_thing(id: UUID, limit: int) -> None:  # noqa: A002
            pass

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as http:
            response = await http.get("/things/1?limit=x")
        assert (response.status_code, response.json()) == (
            422,
            {"detail": "id: must be a UUID; limit: must be a whole number"},
        )

    @pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
    async def test_query_parameters_of_monitoring_are_ignored(self, path: str) -> None:
        async with serve_admin({}) as http:
            assert (await http.get(f"{path}?qqqq=1&qqqq=2")).status_code == 200

    async def test_metrics_have_the_prometheus_format(self) -> None:
        metrics.RPC_SECONDS.labels("/test.Admin/Metrics", "OK").observe(0.1)
        async with serve_admin({}) as http:
            response = await http.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert "# TYPE wallet_rpc_duration_seconds histogram" in response.text
        assert 'wallet_rpc_duration_seconds_count{code="OK",method="/test.Admin/Metrics"} 1.0' in response.text

    @pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
    async def test_other_tasks_run_between_the_metrics(self, accept: str) -> None:
        encode, _ = choose_encoder(accept)
        registry, collected, seen = CollectorRegistry(), list[int](), set[int]()

        def collect() -> float:
            collected.append(1)
            return 1.0

        for number in range(3):
            Gauge(f"test_{number}", "A gauge.", registry=registry).set_function(collect)

        async def watch() -> None:
            while True:
                seen.add(len(collected))
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        text = await admin.render_metrics(encode, registry)
        watching.cancel()
        assert text == encode(registry)
        assert {1, 2} <= seen


class TestAuthorizedRoutes:
    @pytest.fixture
    def router(self) -> APIRouter:
        router = APIRouter()

        @router.get("/look")
        async def look() -> str:
            return "seen"

        @router.post("/things/{thing}/mend")
        async def mend(thing: str) -> str:
            return f"mended {thing}"

        return router

    async def test_route_is_authorized_by_the_policy(self, router: APIRouter, keys: Keys) -> None:
        app, (port,) = admin_app({}), free_ports(1)
        policy = {"GET /look": OPERATOR_ACCESS, "POST /things/{thing}/mend": ADMIN_ACCESS}
        add_authorized_routes(app, keys.verifier(), policy, router)
        tokens = {
            "": (401, 401),
            "forged": (401, 401),
            keys.user("alice"): (403, 403),
            keys.service("card"): (403, 403),
            keys.user("operator", Role.OPERATOR): (200, 403),
            keys.user("admin", Role.ADMIN): (200, 200),
        }
        async with (
            http_server(app, f"127.0.0.1:{port}"),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
        ):
            for token, statuses in tokens.items():
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                looked = await http.get("/look", headers=headers)
                mended = await http.post("/things/7/mend", headers=headers)
                assert (looked.status_code, mended.status_code) == statuses
                assert (await http.head("/look", headers=headers)).status_code == looked.status_code
            assert (await http.get("/health/live")).status_code == (await http.get("/metrics")).status_code == 200

    async def test_scheme_may_have_any_case_and_the_challenge_names_the_tokens_error(
        self, router: APIRouter, keys: Keys
    ) -> None:
        app, (port,) = admin_app({}), free_ports(1)
        policy = {"GET /look": OPERATOR_ACCESS, "POST /things/{thing}/mend": ADMIN_ACCESS}
        add_authorized_routes(app, keys.verifier(), policy, router)
        token = keys.user("operator", Role.OPERATOR)
        realm = 'Bearer realm="wallet"'
        cases: tuple[tuple[list[str], int, str | None], ...] = (
            ([f"bearer {token}"], 200, None),
            ([f"BEARER  {token}"], 200, None),
            ([], 401, realm),
            ([token], 401, realm),
            (["Bearer forged"], 401, f'{realm}, error="invalid_token"'),
            ([f"Bearer {'x' * (MAX_TOKEN_BYTES + 1)}"], 431, f'{realm}, error="invalid_token"'),
            ([f"Bearer {token}", f"Bearer {token}"], 400, f'{realm}, error="invalid_request"'),
        )
        async with (
            http_server(app, f"127.0.0.1:{port}"),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
        ):
            for lines, status, challenge in cases:
                response = await http.get("/look", headers=[("Authorization", line) for line in lines])
                assert (response.status_code, response.headers.get("www-authenticate")) == (status, challenge), lines

    async def test_missing_key_set_returns_503_instead_of_a_refusal(self, router: APIRouter, keys: Keys) -> None:
        app, (port, unused_port) = admin_app({}), free_ports(2)
        async with KeySet.from_url(f"http://127.0.0.1:{unused_port}/") as key_set:
            verifier = TokenVerifier(USERS, {USERS: key_set}, AUDIENCE)
            add_authorized_routes(
                app, verifier, {"GET /look": ADMIN_ACCESS, "POST /things/{thing}/mend": ADMIN_ACCESS}, router
            )
            async with http_server(app, f"127.0.0.1:{port}"), httpx.AsyncClient(trust_env=False) as http:
                headers = {"Authorization": f"Bearer {keys.user('admin', Role.ADMIN)}"}
                assert (await http.get(f"http://127.0.0.1:{port}/look", headers=headers)).status_code == 503

    @pytest.mark.parametrize("rows", [[], ["GET /look"], ["GET /look", "POST /things/{thing}/mend", "GET /"]])
    def test_policy_that_differs_from_the_routes_is_an_error_at_the_start(
        self, router: APIRouter, keys: Keys, rows: list[str]
    ) -> None:
        with pytest.raises(RuntimeError, match="differ"):
            add_authorized_routes(admin_app({}), keys.verifier(), dict.fromkeys(rows, ADMIN_ACCESS), router)
