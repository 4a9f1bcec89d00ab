"""Metrics of HTTP requests, WebSockets and event streams."""

import json
from pathlib import Path
from uuid import uuid4

import httpx
from prometheus_client import REGISTRY

from stack.ports import HOST, free_ports
from tests.clock import ManualClock
from tests.conftest import Keys
from tests.integration.gateway.gateway_process import run_gateway
from tests.integration.gateway.slow_services import SlowServices
from tests.integration.gateway.websocket_client import connect_as_alice
from tests.waiting import until

WATCH = {"query": f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ id }} }}'}


def request_count(method: str, route: str, status: str) -> float:
    labels = {"method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("wallet_gateway_request_duration_seconds_count", labels) or 0.0


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"wallet_gateway_{name}")


def route_labels() -> set[str]:
    """Return the values of the route label so far."""
    (family,) = [each for each in REGISTRY.collect() if each.name == "wallet_gateway_request_duration_seconds"]
    return {sample.labels["route"] for sample in family.samples}


class TestRequests:
    async def test_route_label_is_the_path_template(self, http: httpx.AsyncClient) -> None:
        route = "/accounts/{accountId}/transfers/{transferId}"
        before = request_count("GET", route, "4xx")
        for _ in range(2):
            assert (await http.get(f"/accounts/{uuid4()}/transfers/no-id")).status_code == 400
        assert request_count("GET", route, "4xx") == before + 2

    async def test_status_label_is_the_status_class(
        self, slow_target: str, slow_services: SlowServices, keys: Keys, tmp_path: Path
    ) -> None:
        before = request_count("GET", "/accounts/{accountId}", "5xx")
        headers = {"Authorization": f"Bearer {keys.user('alice')}"}
        async with (
            run_gateway(keys, tmp_path, slow_target, gateway_timeout_seconds=0.1) as url,
            httpx.AsyncClient(trust_env=False, headers=headers) as http,
        ):
            assert (await http.get(f"{url}/accounts/{uuid4()}")).status_code == 504
        assert request_count("GET", "/accounts/{accountId}", "5xx") == before + 1

    async def test_graphql_requests_have_the_graphql_route(self, http: httpx.AsyncClient) -> None:
        before = request_count("POST", "/graphql", "2xx")
        assert (await http.post("/graphql", json={"query": "{ __typename }"})).status_code == 200
        assert request_count("POST", "/graphql", "2xx") == before + 1

    async def test_unknown_paths_and_methods_have_the_label_other(self, http: httpx.AsyncClient) -> None:
        unknown_path, unknown_method, id_ = (
            request_count("GET", "other", "4xx"),
            request_count("other", "other", "4xx"),
            str(uuid4()),
        )
        await http.get(f"/nowhere/{id_}")
        await http.get(f"/assets/{id_}")
        await http.request("PROPFIND", f"/nowhere/{id_}")
        assert (request_count("GET", "other", "4xx"), request_count("other", "other", "4xx")) == (
            unknown_path + 2,
            unknown_method + 1,
        )
        assert not [route for route in route_labels() if id_ in route]

    async def test_requests_with_an_invalid_token_are_counted(self, http: httpx.AsyncClient) -> None:
        before = request_count("GET", "other", "4xx")
        await http.get(f"/accounts/{uuid4()}", headers={"Authorization": "Bearer forged"})
        assert request_count("GET", "other", "4xx") == before + 1

    async def test_duration_of_a_stream_ends_when_the_response_starts(
        self, http: httpx.AsyncClient, slow_services: SlowServices, request_clock: ManualClock
    ) -> None:
        labels = {"method": "POST", "route": "/graphql", "status": "2xx"}
        name = "wallet_gateway_request_duration_seconds_sum"
        before, count = REGISTRY.get_sample_value(name, labels) or 0.0, request_count("POST", "/graphql", "2xx")
        headers = {"Accept": "text/event-stream"}
        async with http.stream("POST", "/graphql", json=WATCH, headers=headers) as stream:
            assert stream.status_code == 200
            await slow_services.started.get()
            request_clock.advance(60)

        async def is_counted() -> bool:
            return request_count("POST", "/graphql", "2xx") == count + 1

        await until(is_counted)
        assert REGISTRY.get_sample_value(name, labels) == before


class TestStreams:
    async def test_gauges_count_open_websockets_and_event_streams(
        self, http: httpx.AsyncClient, url: str, keys: Keys, slow_services: SlowServices
    ) -> None:
        sockets, streams = gauge("websockets"), gauge("event_streams")
        assert sockets is not None
        assert streams is not None

        async def are_open(open_sockets: float, open_streams: float) -> bool:
            return (gauge("websockets"), gauge("event_streams")) == (sockets + open_sockets, streams + open_streams)

        async with connect_as_alice(url, keys) as connection:
            await connection.send(json.dumps({"type": "ping"}))
            await until(lambda: are_open(1, 0))
            headers = {"Accept": "text/event-stream"}
            async with http.stream("POST", "/graphql", json=WATCH, headers=headers):
                await slow_services.started.get()
                await until(lambda: are_open(1, 1))
        await until(lambda: are_open(0, 0))


async def test_metrics_are_served_on_the_admin_port_only(slow_target: str, keys: Keys, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with (
        run_gateway(keys, tmp_path, slow_target, gateway_admin_listen=f"{HOST}:{port}") as url,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        assert (await http.get(f"{url}/metrics")).status_code == 404
        assert (await http.get(f"{url}/health/ready")).status_code == 200
        metrics = (await http.get(f"http://{HOST}:{port}/metrics")).text
        assert "# TYPE wallet_gateway_request_duration_seconds histogram" in metrics
        assert (await http.get(f"http://{HOST}:{port}/health/ready")).status_code == 200
