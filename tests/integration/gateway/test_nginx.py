"""nginx in front of two gateways, with the deployed configuration and HTTPS."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from kit.http.server import http_server
from kit.rpc.server import Service, grpc_server
from openapi.models import Problem
from protos.wallet.bank.v1 import bank_pb2_grpc
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.bank.client import SERVICE as BANK
from subgraphs.bank.service.api import policy as bank_policy
from subgraphs.card.client import SERVICE as CARD
from subgraphs.card.service.api import policy as card_policy
from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT, FakeBank, FakeCard, top_up
from tests.integration.gateway.gateway_process import run_gateway
from tests.nginx import Nginx, client, run_nginx

WATCH = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ status }} }}'


class PausingCard(FakeCard):
    """Card service that sends the first state of a top-up, waits for `proceed`, then sends the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.proceed = asyncio.Event()

    async def WatchTopUp(self, request: Any, context: Any) -> AsyncIterator[card_pb2.WatchTopUpResponse]:  # noqa: N802
        yield card_pb2.WatchTopUpResponse(top_up=top_up("CREATED", 1))
        await self.proceed.wait()
        yield card_pb2.WatchTopUpResponse(top_up=top_up("COMPLETED", 4))


@pytest.fixture(scope="module")
def card() -> PausingCard:
    return PausingCard()  # type: ignore[abstract]  # the tests do not call the missing methods


@pytest.fixture(scope="module")
async def nginx(card: PausingCard, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nginx]:
    """nginx in front of two gateways."""
    folder = tmp_path_factory.mktemp("nginx")
    target, bank = f"{HOST}:{free_ports(1)[0]}", FakeBank()  # type: ignore[abstract]  # the tests do not call the missing methods
    registered = {
        BANK: Service(lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(bank, server), bank_policy.POLICY),
        CARD: Service(lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(card, server), card_policy.POLICY),
    }
    async with (
        grpc_server(target, keys.verifier(), registered),
        run_gateway(keys, folder, target) as one,
        run_gateway(keys, folder, target) as other,
        run_nginx(folder, one.removeprefix("http://"), other.removeprefix("http://")) as nginx,
    ):
        yield nginx


@pytest.fixture(autouse=True)
def reset_card(card: PausingCard) -> None:
    card.proceed.clear()


@pytest.fixture
def alice(keys: Keys) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.user('alice')}"}


class TestHTTPS:
    async def test_response_has_strict_transport_security(self, nginx: Nginx, alice: dict[str, str]) -> None:
        query = f'{{ account(id: "{ACCOUNT}") {{ balance {{ amount }} }} }}'
        async with nginx.new_client() as http:
            response = await http.post("/graphql", json={"query": query}, headers=alice)
        assert response.json() == {"data": {"account": {"balance": {"amount": "990.00"}}}}
        assert response.headers["strict-transport-security"] == "max-age=63072000"

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_http_2_is_negotiated(self, nginx: Nginx, version: ssl.TLSVersion) -> None:
        trust = nginx.trust
        trust.minimum_version = trust.maximum_version = version
        trust.set_alpn_protocols(["h2", "http/1.1"])
        host, port = nginx.https.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.transport.abort()

    async def test_body_of_a_request_with_an_upgrade_is_read(self, nginx: Nginx, alice: dict[str, str]) -> None:
        upgrade = {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
        }
        async with nginx.new_client() as http:
            response = await http.post("/graphql", json={"query": "{ __typename }"}, headers=alice | upgrade)
        assert response.json() == {"data": {"__typename": "Query"}}

    async def test_http_1_0_request_without_a_host_is_served(self, nginx: Nginx) -> None:
        host, port = nginx.https.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=nginx.trust)
        writer.write(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert (await reader.read()).split()[1] == b"200"
        writer.close()

    async def test_plain_http_is_redirected_to_https(self, nginx: Nginx) -> None:
        async with client(f"http://{nginx.http}") as http:
            response = await http.post("/accounts?a=b", json={})
        assert (response.status_code, response.headers["location"]) == (308, f"https://{nginx.https}/accounts?a=b")

    async def test_gateway_rejects_a_large_body_and_nginx_a_larger_one(self, nginx: Nginx) -> None:
        async with nginx.new_client() as http:
            by_gateway = await http.post("/graphql", content=b"x" * 100_000)
            (error,) = by_gateway.json()["errors"]
            assert (by_gateway.status_code, error["extensions"]["code"]) == (413, "CONTENT_TOO_LARGE")
            by_nginx = await http.post("/graphql", content=b"x" * 1_200_000)
            assert (by_nginx.status_code, by_nginx.headers["content-type"]) == (413, "text/html")

    async def test_metrics_are_not_reachable(self, nginx: Nginx) -> None:
        async with nginx.new_client() as http:
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/metrics")).status_code == 404

    async def test_unreachable_gateway_is_reported_as_a_problem_with_503(self, tmp_path: Path) -> None:
        unused = f"{HOST}:{free_ports(1)[0]}"
        async with run_nginx(tmp_path, unused) as nginx, nginx.new_client() as http:
            response = await http.post(f"/accounts/{ACCOUNT}/transfers", json={})
        problem = Problem.model_validate_json(response.content)
        assert (response.status_code, problem.status, problem.code) == (503, 503, "UNAVAILABLE")
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"] == "1"
        assert response.headers["x-request-id"] == problem.request_id


class TestStreams:
    async def test_server_sent_events_are_not_buffered(
        self, nginx: Nginx, card: PausingCard, alice: dict[str, str]
    ) -> None:
        states = []
        headers = alice | {"Accept": "text/event-stream"}
        async with (
            asyncio.timeout(10),
            nginx.new_client() as http,
            http.stream("POST", "/graphql", json={"query": WATCH}, headers=headers) as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    states.append(status(json.loads(line.removeprefix("data: "))))
                    card.proceed.set()
        assert states == ["CREATED", "COMPLETED"]

    async def test_websocket_messages_are_not_buffered(
        self, nginx: Nginx, card: PausingCard, alice: dict[str, str]
    ) -> None:
        url, states = f"wss://{nginx.https}/graphql", []
        protocols: Any = ["graphql-transport-ws"]
        origin: Any = f"https://{nginx.https}"
        async with (
            asyncio.timeout(10),
            connect(url, ssl=nginx.trust, subprotocols=protocols, origin=origin, proxy=None) as connection,
        ):
            await connection.send(json.dumps({"type": "connection_init", "payload": alice}))
            await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": WATCH}}))
            async for text in connection:
                message = json.loads(text)
                if message["type"] == "next":
                    states.append(status(message["payload"]))
                    card.proceed.set()
                if message["type"] == "complete":
                    break
        assert states == ["CREATED", "COMPLETED"]


class TestForwardedHeaders:
    async def test_nginx_replaces_forwarded_headers_of_the_client(self, tmp_path: Path) -> None:
        received: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            received.extend((scope["scheme"], scope["client"][0], dict(scope["headers"])[b"x-forwarded-for"].decode()))
            await PlainTextResponse("ok")(scope, receive, send)

        address = f"{HOST}:{free_ports(1)[0]}"
        forged = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "203.0.113.7"}
        async with (
            http_server(app, address, trusted_proxies=[HOST]),
            run_nginx(tmp_path, address) as nginx,
            nginx.new_client() as http,
        ):
            assert (await http.get("/", headers=forged)).text == "ok"
        assert received == ["https", HOST, HOST]

    @pytest.mark.parametrize(("trusted", "is_used"), [([], False), ([HOST], True), (["10.0.0.0/8"], False)])
    async def test_gateway_uses_forwarded_headers_of_trusted_proxies_only(
        self, keys: Keys, tmp_path: Path, trusted: list[str], *, is_used: bool
    ) -> None:
        """Requests without a token are counted by address, so each client behind a trusted proxy has its own quota."""
        async with (
            run_gateway(keys, tmp_path, f"{HOST}:1", gateway_trusted_proxies=trusted) as url,
            client(url) as http,
        ):
            clients: list[dict[str, str]] = [{}, {"X-Forwarded-For": "203.0.113.7"}]
            first, second = [(await http.get("/docs", headers=each)).headers["ratelimit"] for each in clients]
        remaining = [quota.split(";")[1] for quota in (first, second)]
        assert remaining == (["r=599", "r=599"] if is_used else ["r=599", "r=598"])


def status(payload: dict[str, Any]) -> str:
    text: str = payload["data"]["topUpUpdated"]["status"]
    return text
