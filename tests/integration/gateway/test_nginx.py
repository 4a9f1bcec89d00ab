"""nginx as it is deployed, with HTTPS, in front of the gateway."""

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
from tests.integration.gateway.gateway_process import serving
from tests.nginx import Nginx, client, nginx

WATCH = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ status }} }}'


class Halting(FakeCard):
    """Tells the first state of a top-up, and the last one when it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def WatchTopUp(self, request: Any, context: Any) -> AsyncIterator[card_pb2.WatchTopUpResponse]:  # noqa: N802
        yield card_pb2.WatchTopUpResponse(top_up=top_up("CREATED", 1))
        await self.go_on.wait()
        yield card_pb2.WatchTopUpResponse(top_up=top_up("COMPLETED", 4))


@pytest.fixture(scope="module")
def card() -> Halting:
    return Halting()


@pytest.fixture(scope="module")
async def front(card: Halting, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nginx]:
    """In front of two gateways."""
    folder = tmp_path_factory.mktemp("nginx")
    target, bank = f"{HOST}:{free_ports(1)[0]}", FakeBank()  # type: ignore[abstract]  # the rest is not called
    registered = {
        BANK: Service(lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(bank, server), bank_policy.POLICY),
        CARD: Service(lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(card, server), card_policy.POLICY),
    }
    async with (
        grpc_server(target, keys.verifier(), registered),
        serving(keys, folder, target) as one,
        serving(keys, folder, target) as other,
        nginx(folder, one.removeprefix("http://"), other.removeprefix("http://")) as front,
    ):
        yield front


@pytest.fixture(autouse=True)
def halting(card: Halting) -> None:
    card.go_on.clear()


@pytest.fixture
def alice(keys: Keys) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.user('alice')}"}


class TestHTTPS:
    async def test_carries_a_request_and_tells_browsers_to_stay(self, front: Nginx, alice: dict[str, str]) -> None:
        query = f'{{ account(id: "{ACCOUNT}") {{ balance {{ amount }} }} }}'
        async with front.client as http:
            answer = await http.post("/graphql", json={"query": query}, headers=alice)
        assert answer.json() == {"data": {"account": {"balance": {"amount": "990.00"}}}}
        assert answer.headers["strict-transport-security"] == "max-age=63072000"

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_speaks_http_2(self, front: Nginx, version: ssl.TLSVersion) -> None:
        trust = front.trust
        trust.minimum_version = trust.maximum_version = version
        trust.set_alpn_protocols(["h2", "http/1.1"])
        host, port = front.https.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.transport.abort()

    async def test_is_where_plain_http_is_sent_to(self, front: Nginx) -> None:
        async with client(f"http://{front.http}") as http:
            answer = await http.post("/accounts?a=b", json={})
        assert (answer.status_code, answer.headers["location"]) == (308, f"https://{front.https}/accounts?a=b")

    async def test_leaves_it_to_the_gateway_to_refuse_a_body_and_takes_none_much_larger(self, front: Nginx) -> None:
        async with front.client as http:
            told = await http.post("/graphql", content=b"x" * 100_000)
            assert (told.status_code, told.json()["code"]) == (413, "CONTENT_TOO_LARGE")
            cut_off = await http.post("/graphql", content=b"x" * 200_000)
            assert (cut_off.status_code, cut_off.headers["content-type"]) == (413, "text/html")

    async def test_does_not_show_the_metrics(self, front: Nginx) -> None:
        async with front.client as http:
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/metrics")).status_code == 404

    async def test_says_in_the_contracts_words_that_no_gateway_answers(self, tmp_path: Path) -> None:
        nobody = f"{HOST}:{free_ports(1)[0]}"
        async with nginx(tmp_path, nobody) as front, front.client as http:
            answer = await http.post(f"/accounts/{ACCOUNT}/transfers", json={})
        problem = Problem.model_validate_json(answer.content)
        assert (answer.status_code, problem.status, problem.code) == (503, 503, "UNAVAILABLE")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-request-id"] == problem.request_id


class TestStreams:
    async def test_by_server_sent_events_come_as_they_are_sent(
        self, front: Nginx, card: Halting, alice: dict[str, str]
    ) -> None:
        seen = []
        headers = alice | {"Accept": "text/event-stream"}
        async with (
            asyncio.timeout(10),
            front.client as http,
            http.stream("POST", "/graphql", json={"query": WATCH}, headers=headers) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    seen.append(status(json.loads(line.removeprefix("data: "))))
                    card.go_on.set()
        assert seen == ["CREATED", "COMPLETED"]

    async def test_by_websocket_come_as_they_are_sent_to_pages_of_our_own(
        self, front: Nginx, card: Halting, alice: dict[str, str]
    ) -> None:
        url, seen = f"wss://{front.https}/graphql", []
        protocols: Any = ["graphql-transport-ws"]
        origin: Any = f"https://{front.https}"
        async with (
            asyncio.timeout(10),
            connect(url, ssl=front.trust, subprotocols=protocols, origin=origin, proxy=None) as connection,
        ):
            await connection.send(json.dumps({"type": "connection_init", "payload": alice}))
            await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": WATCH}}))
            async for text in connection:
                message = json.loads(text)
                if message["type"] == "next":
                    seen.append(status(message["payload"]))
                    card.go_on.set()
                if message["type"] == "complete":
                    break
        assert seen == ["CREATED", "COMPLETED"]


class TestWhoAsks:
    async def test_is_said_by_nginx_whatever_strangers_say(self, tmp_path: Path) -> None:
        said: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            said.extend((scope["scheme"], scope["client"][0], dict(scope["headers"])[b"x-forwarded-for"].decode()))
            await PlainTextResponse("heard")(scope, receive, send)

        address = f"{HOST}:{free_ports(1)[0]}"
        stranger = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "203.0.113.7"}
        async with (
            http_server(app, address, trusted_proxies=[HOST]),
            nginx(tmp_path, address) as front,
            front.client as http,
        ):
            assert (await http.get("/", headers=stranger)).text == "heard"
        assert said == ["https", HOST, HOST]

    @pytest.mark.parametrize(("trusted", "scheme"), [([], "http"), ([HOST], "https"), (["10.0.0.0/8"], "http")])
    async def test_is_believed_by_the_gateway_of_the_proxies_that_it_is_told(
        self, keys: Keys, tmp_path: Path, trusted: list[str], scheme: str
    ) -> None:
        async with (
            serving(keys, tmp_path, f"{HOST}:1", gateway_trusted_proxies=trusted) as url,
            client(url) as http,
        ):
            answer = await http.get("/docs/", headers={"X-Forwarded-Proto": "https"})
        assert answer.headers["location"] == f"{url}/docs".replace("http:", f"{scheme}:")


def status(payload: dict[str, Any]) -> str:
    told: str = payload["data"]["topUpUpdated"]["status"]
    return told
