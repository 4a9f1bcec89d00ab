"""`make demo`: start the system on free ports, run a tour of all features, print the responses, and stop."""

# ruff: noqa: T201  the demo prints for people
import asyncio
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from provisioning.seed import CUSTOMERS, SeededCustomer
from stack.console import Console, Lines
from stack.engines.cluster import remove_cluster
from stack.plan import AUDIENCE, ISSUER
from stack.ports import Ports
from stack.system import System, run_system

_TIMEOUT_SECONDS: Final = 15.0
_TOKEN_SECONDS: Final = 600.0

_TRANSFER: Final = """mutation($input: TransferMoneyInput!) {
  transferMoney(input: $input) {
    ... on TransferMoneySuccess { transfer { id } balance { amount currency } }
    ... on Error { code message }
  }
}"""
_HISTORY: Final = """query($id: ID!) {
  account(id: $id) {
    balance { amount currency }
    operations(first: 10) { edges { node { type direction amount { amount } balanceAfter { amount } } } }
  }
}"""
_STATISTICS: Final = """query($id: ID!, $from: DateTime!, $to: DateTime!) {
  account(id: $id) {
    statistics(from: $from, to: $to, granularity: DAY) {
      buckets { opening { amount } incoming { count } outgoing { count amount { amount } } closing { amount } }
    }
  }
}"""
_LIVE: Final = "subscription($id: ID!) { balanceChanged(accountId: $id) { balance { amount currency } } }"

# Test cards of the sandbox; docs/reference/test-cards.md lists all of them.
_GOOD, _DECLINED, _SILENT = "4242424242424242", "4000000000000002", "4000000000010027"

ALICE, BOB = CUSTOMERS["alice"], CUSTOMERS["bob"]


class StepError(Exception):
    """A response differs from what the step expects."""


class Tour:
    """Tour of a running system. Each step prints the responses and raises StepError for an unexpected one."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._signer = TokenSigner.from_file(ISSUER, system.data / "keys" / "development.pem", AUDIENCE)

    async def run(self) -> None:
        """Run all steps in order."""
        async with self._client(ALICE) as alice, self._client(BOB) as bob:
            _title("Alice's account, over REST")
            _expect(_show_response(await alice.get(f"/accounts/{ALICE.account}")), balance="1000.00")

            _title("Alice sends Bob 10 roubles, over REST")
            first = _show_response(await _pay(alice, "10.00", "demo-1"), 201)

            _title("The same request again: the same response, and the money has moved once")
            _expect(_show_response(await _pay(alice, "10.00", "demo-1"), 201), id=first["id"])
            _expect(_show_response(await alice.get(f"/accounts/{ALICE.account}")), balance="990.00")

            _title("The same key with another amount is refused")
            _expect(_show_response(await _pay(alice, "11.00", "demo-1"), 422), code="IDEMPOTENCY_CONFLICT")

            _title("A transfer above the balance is refused")
            _expect(_show_response(await _pay(alice, "5000.00", "demo-2"), 400), code="INSUFFICIENT_FUNDS")

            _title("Bob reads Alice's account: not found")
            _expect(_show_response(await bob.get(f"/accounts/{ALICE.account}"), 404), code="ACCOUNT_NOT_FOUND")

            _title("Bob subscribes to his balance; Alice pays over GraphQL; he sees it at once")
            await self._watch(alice)

            _title("Alice's balance and history, over GraphQL")
            await self._history(alice, operations=2)

            _title("Today's statistics of Alice's account, computed from the ledger's operations")
            await self._statistics(alice)

            _title("Bob's history, over REST")
            page = _show_response(await bob.get(f"/accounts/{BOB.account}/operations"))
            _expect(page["operations"][0], direction="IN", amount="25.00", balanceAfter="535.00")

            _title("Alice pays in 250 roubles by card")
            _expect(_show_response(await _top_up(alice, _GOOD, "demo-6"), 202), status="COMPLETED")
            _expect(_show_response(await alice.get(f"/accounts/{ALICE.account}")), balance="1215.00")

            _title("A card that is declined")
            _expect(
                _show_response(await _top_up(alice, _DECLINED, "demo-7"), 202),
                status="DECLINED",
                failure="DO_NOT_HONOR",
            )

            _title("The acquirer does not respond after the authorization: the top-up is completed nevertheless")
            await self._wait_until_completed(alice, _show_response(await _top_up(alice, _SILENT, "demo-8"), 202)["id"])
            _expect(_show_response(await alice.get(f"/accounts/{ALICE.account}")), balance="1465.00")

            _title("The bank is killed (kill -9): it restarts, and nothing is lost")
            os.kill(self._system.pid("bank"), signal.SIGKILL)
            _show_response(await self._pay_until_answered(alice, "demo-4"), 201)
            _expect(_show_response(await alice.get(f"/accounts/{ALICE.account}")), balance="1464.00")

            _title("Kafka is stopped: transfers continue. After its restart the history is complete")
            await self._system.supervisor.stop_process("kafka")
            _show_response(await _pay(alice, "1.00", "demo-5"), 201)
            await self._system.supervisor.start_process("kafka")
            await self._history(alice, operations=6)

            _title("Carol registers, logs in and opens an account; Alice sends her 3 roubles")
            await self._register_carol(alice)

            _title("The integrity checks of bank, card and analytics, as run by `make integrity`")
            ports = self._system.ports
            token = self._signer.sign("demo", _TOKEN_SECONDS, [Role.ADMIN])
            for port in (ports.bank_admin, ports.card_admin, ports.analytics_admin):
                headers = {"Authorization": f"Bearer {token}"}
                proof = await alice.get(f"http://127.0.0.1:{port}/integrity", headers=headers)
                *_, verdict = proof.text.splitlines()
                _expect(_print_json(json.loads(verdict)), verdict="sound", violations=0)

    def _client(self, owner: SeededCustomer) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self._signer.sign(owner.user, _TOKEN_SECONDS, [Role.CUSTOMER])}"}
        return httpx.AsyncClient(base_url=self._system.url, headers=headers, timeout=15)

    async def _watch(self, alice: httpx.AsyncClient) -> None:
        token = self._signer.sign(BOB.user, _TOKEN_SECONDS, [Role.CUSTOMER])
        async with aclosing(_subscription(self._system.url, token, _LIVE, {"id": BOB.account})) as feed:
            _expect(_print_json(await anext(feed))["balanceChanged"]["balance"], amount="510.00")
            money = {"senderId": ALICE.account, "recipientId": BOB.account, "amount": "25.00"}
            request = {"query": _TRANSFER, "variables": {"input": money | {"idempotencyKey": "demo-3"}}}
            paid = _show_response(await alice.post("/graphql", json=request))["data"]["transferMoney"]
            answered_at = time.monotonic()
            _expect(paid["balance"], amount="965.00")
            _expect(_print_json(await anext(feed))["balanceChanged"]["balance"], amount="535.00")
            print(f"  … {1000 * (time.monotonic() - answered_at):.0f} ms after Alice's response")

    async def _register_carol(self, alice: httpx.AsyncClient) -> None:
        carol = {"username": "carol", "password": secrets.token_urlsafe()}
        async with httpx.AsyncClient(base_url=self._system.url, timeout=15) as http:
            _expect(_show_response(await http.post("/auth/register", json=carol), 201), role="CUSTOMER")
            tokens = (await http.post("/auth/login", json=carol)).raise_for_status().json()
            http.headers["Authorization"] = f"Bearer {tokens['accessToken']}"
            opened = await http.post("/accounts", json={"currency": "RUB"}, headers={"Idempotency-Key": "demo-9"})
            account = _show_response(opened, 201)["id"]
            _show_response(await _pay(alice, "3.00", "demo-10", to=account), 201)
            (account_of_carol,) = _show_response(await http.get("/accounts"))["accounts"]
            _expect(account_of_carol, id=account, balance="3.00")

    async def _history(self, alice: httpx.AsyncClient, *, operations: int) -> None:
        request = {"query": _HISTORY, "variables": {"id": ALICE.account}}
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                response = await alice.post("/graphql", json=request)
                account = (response.json().get("data") or {}).get("account") or {}
                if len((account.get("operations") or {}).get("edges", ())) == operations:
                    break
                await asyncio.sleep(0.1)
        _show_response(response)

    async def _wait_until_completed(self, alice: httpx.AsyncClient, top_up: str) -> None:
        path = f"/accounts/{ALICE.account}/topups/{top_up}"
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                response = await alice.get(path)
                if response.json()["status"] == "COMPLETED":
                    break
                await asyncio.sleep(0.1)
        _show_response(response)

    async def _statistics(self, alice: httpx.AsyncClient) -> None:
        now = datetime.now(UTC)
        hour = timedelta(hours=1)
        variables = {"id": ALICE.account, "from": (now - hour).isoformat(), "to": (now + hour).isoformat()}
        answer = _show_response(await alice.post("/graphql", json={"query": _STATISTICS, "variables": variables}))
        buckets = answer["data"]["account"]["statistics"]["buckets"]  # two buckets if the range crosses midnight
        _expect(buckets[0]["opening"], amount="1000.00")
        _expect(buckets[-1]["closing"], amount="965.00")

    async def _pay_until_answered(self, alice: httpx.AsyncClient, key: str) -> httpx.Response:
        """Pay with one key until the outcome is known, as a client has to after UNAVAILABLE."""
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while (response := await _pay(alice, "1.00", key)).status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                wait = response.headers["retry-after"]
                print(f"  {response.status_code}: retry with the same key after {wait} s")
                await asyncio.sleep(0.5)
        return response


async def _pay(client: httpx.AsyncClient, amount: str, key: str, *, to: str = BOB.account) -> httpx.Response:
    return await client.post(
        f"/accounts/{ALICE.account}/transfers",
        json={"recipientId": to, "amount": amount},
        headers={"Idempotency-Key": key},
    )


async def _top_up(client: httpx.AsyncClient, number: str, key: str) -> httpx.Response:
    card = {"number": number, "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}
    return await client.post(
        f"/accounts/{ALICE.account}/topup",
        json={"amount": "250.00", "card": card},
        headers={"Idempotency-Key": key},
    )


async def _subscription(url: str, token: str, query: str, variables: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
    """Yield the data of a subscription over graphql-transport-ws."""
    protocol = Subprotocol("graphql-transport-ws")
    async with connect(f"{url.replace('http', 'ws', 1)}/graphql", subprotocols=[protocol]) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}))
        payload = {"query": query, "variables": variables}
        await socket.recv()
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), _TIMEOUT_SECONDS))
            if message["type"] != "next" or "errors" in message["payload"]:
                raise StepError(f"the subscription sent {message}")
            yield message["payload"]["data"]


def _title(text: str) -> None:
    print(f"\n{text}")


def _print_json(answer: dict[str, Any]) -> dict[str, Any]:
    print(f"  {json.dumps(answer)}")
    return answer


def _show_response(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    print(f"  {response.request.method} {response.request.url.path} → {response.status_code}")
    answer = _print_json(response.json())
    if response.status_code != status or "errors" in answer:
        raise StepError(f"expected {status} and no errors")
    return answer


def _expect(answer: dict[str, Any], **fields: Any) -> None:
    for name, value in fields.items():
        if answer.get(name) != value:
            raise StepError(f"expected {name} to be {value!r}, not {answer.get(name)!r}")


async def demo() -> int:
    """Run the tour on a temporary system.

    Returns:
        Exit code: 0 if every step got the expected responses, else 1.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wallet-demo-") as folder:
        data = Path(folder) / "data"
        _title("Starting PostgreSQL, Kafka, ClickHouse and the services on free ports")
        try:
            async with run_system(Ports.free(), data, console=Console(data / "logs", lines=Lines.NONE)) as system:
                await Tour(system).run()
        except (StepError, TimeoutError) as error:
            print(f"\nfailed: {error or 'time-out'}")
            return 1
        finally:
            remove_cluster(data)
    print(f"\nAll steps passed in {time.monotonic() - started:.0f} s.")
    return 0
