"""Traces of the whole system, as a collector is sent them."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from stack.system import System
from tests.collector import Collector, Seen
from tests.e2e.users import User

PAN, CVV, AMOUNT = "4242424242424242", "739182645", "731.94"
"""The code is longer than any, so that it occurs nowhere by chance."""

TRANSFER = """mutation Pay($input: TransferMoneyInput!) {
    transferMoney(input: $input) { ... on TransferMoneySuccess { transfer { id } } ... on Error { code } }
}"""

ROAD = {
    ("gateway", "SERVER", "POST /accounts/{accountId}/transfers"),
    ("gateway", "CLIENT", "wallet.bank.v1.BankService/TransferMoney"),
    ("bank", "SERVER", "wallet.bank.v1.BankService/TransferMoney"),
    ("bank", "CLIENT", "commit"),
    ("bank", "PRODUCER", "send wallet.operations"),
    ("analytics", "CONSUMER", "store wallet.operations"),
}
"""Of a transfer by REST, from the browser to ClickHouse."""


class Browser:
    """Somebody who begins a trace of their own with each request."""

    def __init__(self, *, is_sampled: bool = True) -> None:
        self.place = secrets.token_hex(16), secrets.token_hex(8)
        trace, span = self.place
        self.headers = {
            "traceparent": f"00-{trace}-{span}-{is_sampled:02x}",
            "tracestate": "browser=1",
            "Idempotency-Key": trace,
        }


async def pay(browser: Browser, sender: User, recipient: User, **given: Any) -> Any:
    body = {"recipientId": recipient.account, "amount": "1.00"} | given
    return await sender.http.post(f"/accounts/{sender.account}/transfers", json=body, headers=browser.headers)


def told(spans: list[Seen]) -> set[tuple[str, str, str]]:
    return {(each.service, each.kind, each.name) for each in spans}


async def followed(collector: Collector, browser: Browser, road: set[tuple[str, str, str]]) -> list[Seen]:
    """The spans that come of a browser's, when all of the road is among them."""

    def arrived() -> list[Seen]:
        found = collector.come_of(browser.place)
        return found if road <= told(found) else []

    try:
        found: list[Seen] = await collector.until(arrived)
    except AssertionError:
        raise AssertionError(f"{road - told(collector.come_of(browser.place))} did not come") from None
    return found


class TestOneTransfer:
    async def test_is_one_trace_from_the_browser_to_clickhouse(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        made = await pay(browser, alice, bob)
        assert (made.status_code, made.headers["x-request-id"]) == (201, browser.place[0])
        found = {(each.service, each.kind): each for each in await followed(collector, browser, ROAD)}
        assert found["gateway", "SERVER"].parent == browser.place
        assert found["gateway", "CLIENT"].parent == found["gateway", "SERVER"].place
        assert found["bank", "SERVER"].parent == found["gateway", "CLIENT"].place
        for each in (found["bank", "CLIENT"], found["bank", "PRODUCER"], found["analytics", "CONSUMER"]):
            assert found["bank", "SERVER"].place in each.links
        assert found["gateway", "SERVER"].span.trace_state == "browser=1"
        assert found["bank", "SERVER"].span.trace_state == "browser=1"

    async def test_says_what_was_done_by_the_semantic_conventions(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        await pay(browser, alice, bob)
        found = {(each.service, each.kind): each for each in await followed(collector, browser, ROAD)}
        assert found["gateway", "SERVER"].attributes == {
            "http.request.method": "POST",
            "http.route": "/accounts/{accountId}/transfers",
            "http.response.status_code": 201,
        }
        rpc = {"rpc.system": "grpc", "rpc.method": "wallet.bank.v1.BankService/TransferMoney"}
        assert found["gateway", "CLIENT"].attributes == rpc
        assert found["bank", "SERVER"].attributes == {**rpc, "rpc.response.status_code": "OK"}
        commit = found["bank", "CLIENT"].attributes
        assert (commit["db.system.name"], commit["db.operation.batch.size"] > 0) == ("postgresql", True)
        for each in (found["bank", "PRODUCER"], found["analytics", "CONSUMER"]):
            assert each.attributes["messaging.system"] == "kafka"
            assert each.attributes["messaging.destination.name"] == "wallet.operations"
            assert each.attributes["messaging.batch.message_count"] > 0

    async def test_that_is_refused_is_no_error_of_the_servers(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        assert (await pay(browser, alice, bob, amount="1000000")).status_code == 400
        road = {each for each in ROAD if each[2] not in {"send wallet.operations", "store wallet.operations"}}
        found = {(each.service, each.kind): each for each in await followed(collector, browser, road)}
        assert (found["gateway", "CLIENT"].is_error, found["bank", "SERVER"].is_error) == (True, False)
        assert found["gateway", "CLIENT"].attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
        assert not found["gateway", "SERVER"].is_error

    async def test_of_the_graph_has_the_operation_between(self, collector: Collector, alice: User, bob: User) -> None:
        browser = Browser()
        given = {"senderId": alice.account, "recipientId": bob.account, "amount": "1", "idempotencyKey": "k"}
        body = {"query": TRANSFER, "variables": {"input": given}}
        assert (await alice.http.post("/graphql", json=body, headers=browser.headers)).status_code == 200
        road = {("gateway", "SERVER", "POST /graphql"), ("gateway", "INTERNAL", "mutation Pay"), *ROAD}
        road.remove(("gateway", "SERVER", "POST /accounts/{accountId}/transfers"))
        found = {(each.service, each.kind): each for each in await followed(collector, browser, road)}
        operation = found["gateway", "INTERNAL"]
        assert operation.parent == found["gateway", "SERVER"].place
        assert found["gateway", "CLIENT"].parent == operation.place
        assert operation.attributes == {"graphql.operation.type": "mutation", "graphql.operation.name": "Pay"}


class TestManyTransfers:
    async def test_each_is_followed_though_they_share_batches(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browsers = [Browser() for _ in range(50)]
        await asyncio.gather(*(pay(browser, alice, bob) for browser in browsers))
        for browser in browsers:
            await followed(collector, browser, ROAD)
        batches = {each.place: each for each in collector.spans if each.name == "commit"}
        assert max(len(each.links) for each in batches.values()) > 1

    async def test_what_is_not_sampled_is_not_told_of(self, collector: Collector, alice: User, bob: User) -> None:
        unknown, known = Browser(is_sampled=False), Browser()
        made = await pay(unknown, alice, bob)
        assert made.headers["x-request-id"] == unknown.place[0]
        await pay(known, alice, bob)
        await followed(collector, known, ROAD)
        assert not collector.come_of(unknown.place)


class TestSubscription:
    async def test_is_told_of_when_it_has_ended(
        self, system: System, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        fields = f'balanceChanged(accountId: "{alice.account}") {{ balance {{ amount }} }}'
        headers = {**browser.headers, "Accept": "text/event-stream", "Authorization": f"Bearer {alice.token}"}
        body = {"query": f"subscription Feed {{ {fields} }}"}
        async with (
            httpx.AsyncClient(base_url=system.url, timeout=15) as http,
            http.stream("POST", "/graphql", json=body, headers=headers) as answer,
        ):
            lines = answer.aiter_lines()
            await said(lines, "1000.00")
            await pay(Browser(), alice, bob)
            await said(lines, "999.00")
            assert not collector.come_of(browser.place)
        watch = "wallet.analytics.v1.AnalyticsService/WatchOperations"
        road = {
            ("gateway", "SERVER", "POST /graphql"),
            ("gateway", "INTERNAL", "subscription Feed"),
            ("gateway", "CLIENT", watch),
            ("analytics", "SERVER", watch),
        }
        found = {(each.service, each.kind, each.name): each for each in await followed(collector, browser, road)}
        feed = found["gateway", "INTERNAL", "subscription Feed"]
        assert found["gateway", "CLIENT", watch].parent == feed.place
        assert not feed.is_error


async def said(lines: AsyncIterator[str], text: str) -> None:
    """Returns when one of the lines has the text."""
    while text not in await anext(lines):
        pass


class TestSecrets:
    @pytest.mark.parametrize("route", ["REST", "GraphQL"])
    async def test_no_span_of_a_top_up_has_a_card_a_token_or_an_amount(
        self, collector: Collector, alice: User, route: str
    ) -> None:
        browser = Browser()
        card = {"number": PAN, "expiryMonth": 12, "expiryYear": 2040, "cvv": CVV[:3]}
        wrong = card | {"number": 1, "cvv": CVV, "expiryMonth": PAN}
        if route == "REST":
            path = f"/accounts/{alice.account}/topup"
            for each in (card, wrong):
                body = {"amount": AMOUNT, "card": each}
                await alice.http.post(path, json=body, headers=browser.headers)
            http = alice.http
            http.event_hooks = {}  # no such route is in the contract
            await http.get(f"/accounts/{PAN}/{CVV}?number={PAN}", headers=browser.headers)
        else:
            mutation = "mutation M%s($input: TopUpAccountInput!) { topUpAccount(input: $input) { __typename } }"
            for each, name in ((card, ""), (wrong, PAN)):
                given = {"accountId": alice.account, "amount": AMOUNT, "idempotencyKey": "k", "card": each}
                body = {"query": mutation % name, "variables": {"input": given}}
                await alice.http.post("/graphql", json=body, headers=browser.headers)
        road = {
            ("card", "SERVER", "wallet.card.v1.CardService/ProcessCardTopUp"),
            ("card", "CLIENT", "POST /v1/tokens"),
            ("card", "CLIENT", "POST /v1/payments"),
            ("card", "CLIENT", "POST /v1/payments/{id}/capture"),
            ("card", "CLIENT", "wallet.bank.v1.BankService/DepositMoney"),
            ("bank", "SERVER", "wallet.bank.v1.BankService/DepositMoney"),
            ("analytics", "CONSUMER", "store wallet.operations"),
        }
        await followed(collector, browser, road)
        said = "\n".join(map(str, collector.requests))
        assert "ProcessCardTopUp" in said
        for secret in (PAN, CVV, PAN[:8], AMOUNT, alice.token, alice.subject, "Bearer"):
            assert secret not in said
