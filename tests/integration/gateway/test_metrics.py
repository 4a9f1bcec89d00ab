"""What is counted of requests, and where that can be seen."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import httpx
from prometheus_client import REGISTRY

from stack.ports import HOST, free_ports
from tests.conftest import Keys
from tests.integration.gateway.gateway_process import serving
from tests.integration.gateway.slow_services import Patient
from tests.integration.gateway.websocket_client import connected
from tests.waiting import until

WATCH = {"query": f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ id }} }}'}


def counted(method: str, route: str, status: str) -> float:
    labels = {"method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("wallet_gateway_request_duration_seconds_count", labels) or 0.0


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"wallet_gateway_{name}")


def routes() -> set[str]:
    """That have been counted."""
    (family,) = [each for each in REGISTRY.collect() if each.name == "wallet_gateway_request_duration_seconds"]
    return {sample.labels["route"] for sample in family.samples}


class TestRequests:
    async def test_count_by_the_template_of_their_route(self, http: httpx.AsyncClient) -> None:
        route = "/accounts/{accountId}/transfers/{transferId}"
        before = counted("GET", route, "4xx")
        for _ in range(2):
            assert (await http.get(f"/accounts/{uuid4()}/transfers/no-id")).status_code == 400
        assert counted("GET", route, "4xx") == before + 2

    async def test_count_by_the_class_of_their_status(
        self, patient_services: str, patient: Patient, keys: Keys, tmp_path: Path
    ) -> None:
        before = counted("GET", "/accounts/{accountId}", "5xx")
        headers = {"Authorization": f"Bearer {keys.user('alice')}"}
        async with (
            serving(keys, tmp_path, patient_services, gateway_timeout_seconds=0.1) as url,
            httpx.AsyncClient(trust_env=False, headers=headers) as http,
        ):
            assert (await http.get(f"{url}/accounts/{uuid4()}")).status_code == 504
        assert counted("GET", "/accounts/{accountId}", "5xx") == before + 1

    async def test_of_the_graph_count_as_such(self, http: httpx.AsyncClient) -> None:
        before = counted("POST", "/graphql", "2xx")
        assert (await http.post("/graphql", json={"query": "{ __typename }"})).status_code == 200
        assert counted("POST", "/graphql", "2xx") == before + 1

    async def test_that_are_nowhere_leave_no_trace_of_what_they_asked_for(self, http: httpx.AsyncClient) -> None:
        nowhere, strange, id_ = counted("GET", "other", "4xx"), counted("other", "other", "4xx"), str(uuid4())
        await http.get(f"/nowhere/{id_}")
        await http.get(f"/assets/{id_}")
        await http.request("PROPFIND", f"/nowhere/{id_}")
        assert (counted("GET", "other", "4xx"), counted("other", "other", "4xx")) == (nowhere + 2, strange + 1)
        assert not [route for route in routes() if id_ in route]

    async def test_whose_token_is_refused_count_too(self, http: httpx.AsyncClient) -> None:
        before = counted("GET", "other", "4xx")
        await http.get(f"/accounts/{uuid4()}", headers={"Authorization": "Bearer forged"})
        assert counted("GET", "other", "4xx") == before + 1

    async def test_last_until_their_answer_begins(self, http: httpx.AsyncClient, patient: Patient) -> None:
        labels = {"method": "POST", "route": "/graphql", "status": "2xx", "le": "0.25"}
        name = "wallet_gateway_request_duration_seconds_bucket"
        before = REGISTRY.get_sample_value(name, labels) or 0.0
        headers = {"Accept": "text/event-stream"}
        async with http.stream("POST", "/graphql", json=WATCH, headers=headers) as stream:
            assert stream.status_code == 200
            await patient.begun.get()
            await asyncio.sleep(0.3)  # that time goes by is what this is about

        async def has_counted() -> bool:
            return REGISTRY.get_sample_value(name, labels) == before + 1

        await until(has_counted)


class TestStreams:
    async def test_count_for_as_long_as_they_are_open(
        self, http: httpx.AsyncClient, url: str, keys: Keys, patient: Patient
    ) -> None:
        sockets, streams = gauge("websockets"), gauge("event_streams")
        assert sockets is not None
        assert streams is not None

        async def are(open_sockets: float, open_streams: float) -> bool:
            return (gauge("websockets"), gauge("event_streams")) == (sockets + open_sockets, streams + open_streams)

        async with connected(url, keys) as connection:
            await connection.send(json.dumps({"type": "ping"}))
            await until(lambda: are(1, 0))
            headers = {"Accept": "text/event-stream"}
            async with http.stream("POST", "/graphql", json=WATCH, headers=headers):
                await patient.begun.get()
                await until(lambda: are(1, 1))
        await until(lambda: are(0, 0))


async def test_metrics_are_at_the_admin_port_and_not_for_those_who_come_from_outside(
    patient_services: str, keys: Keys, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    async with (
        serving(keys, tmp_path, patient_services, gateway_admin_listen=f"{HOST}:{port}") as url,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        assert (await http.get(f"{url}/metrics")).status_code == 404
        assert (await http.get(f"{url}/health/ready")).status_code == 200
        told = (await http.get(f"http://{HOST}:{port}/metrics")).text
        assert "# TYPE wallet_gateway_request_duration_seconds histogram" in told
        assert (await http.get(f"http://{HOST}:{port}/health/ready")).status_code == 200
