"""Traces of the whole system, as received by a collector."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stack.ports import HOST
from stack.system import System
from tests.collector import Collector, ReceivedSpan
from tests.e2e.users import User

PAN, CVV, AMOUNT = "4242424242424242", "739182645", "731.94"
"""The security code is longer than a real one, so that the same digits occur nowhere by chance."""

TRANSFER = """mutation Pay($input: TransferMoneyInput!) {
    transferMoney(input: $input) { ... on TransferMoneySuccess { transfer { id } } ... on Error { code } }
}"""

TRANSFER_SPANS = {
    ("gateway", "SERVER", "POST /accounts/{accountId}/transfers"),
    ("gateway", "CLIENT", "wallet.bank.v1.BankService/TransferMoney"),
    ("bank", "SERVER", "wallet.bank.v1.BankService/TransferMoney"),
    ("bank", "CLIENT", "commit"),
    ("bank", "PRODUCER", "send wallet.operations"),
    ("analytics", "CONSUMER", "store wallet.operations"),
}
"""Spans of a REST transfer, from the browser to ClickHouse."""


class Browser:
    """Client that has started a trace and sends its context with each request."""

    def __init__(self, *, is_sampled: bool = True) -> None:
        self.context = secrets.token_hex(16), secrets.token_hex(8)
        trace, span = self.context
        self.headers = {
            "traceparent": f"00-{trace}-{span}-{is_sampled:02x}",
            "tracestate": "browser=1",
            "Idempotency-Key": trace,
        }


async def pay(browser: Browser, sender: User, recipient: User, **given: Any) -> Any:
    body = {"recipientId": recipient.account, "amount": "1.00"} | given
    return await sender.http.post(f"/accounts/{sender.account}/transfers", json=body, headers=browser.headers)


def span_keys(spans: list[ReceivedSpan]) -> set[tuple[str, str, str]]:
    return {(each.service, each.kind, each.name) for each in spans}


async def wait_for_spans(
    collector: Collector, browser: Browser, expected: set[tuple[str, str, str]]
) -> list[ReceivedSpan]:
    """Return the descendants of the browser's span when all expected spans have arrived."""

    def arrived() -> list[ReceivedSpan]:
        found = collector.list_descendants(browser.context)
        return found if expected <= span_keys(found) else []

    try:
        found: list[ReceivedSpan] = await collector.until(arrived)
    except AssertionError:
        raise AssertionError(
            f"{expected - span_keys(collector.list_descendants(browser.context))} did not arrive"
        ) from None
    return found


class TestOneTransfer:
    async def test_transfer_is_one_trace_from_browser_to_clickhouse(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        made = await pay(browser, alice, bob)
        assert (made.status_code, made.headers["x-request-id"]) == (201, browser.context[0])
        found = {(each.service, each.kind): each for each in await wait_for_spans(collector, browser, TRANSFER_SPANS)}
        assert found["gateway", "SERVER"].parent == browser.context
        assert found["gateway", "CLIENT"].parent == found["gateway", "SERVER"].context
        assert found["bank", "SERVER"].parent == found["gateway", "CLIENT"].context
        for each in (found["bank", "CLIENT"], found["bank", "PRODUCER"], found["analytics", "CONSUMER"]):
            assert found["bank", "SERVER"].context in each.links
        assert found["gateway", "SERVER"].span.trace_state == "browser=1"
        assert found["bank", "SERVER"].span.trace_state == "browser=1"

    async def test_span_attributes_follow_the_semantic_conventions(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        await pay(browser, alice, bob)
        found = {(each.service, each.kind): each for each in await wait_for_spans(collector, browser, TRANSFER_SPANS)}
        assert found["gateway", "SERVER"].attributes == {
            "http.request.method": "POST",
            "http.route": "/accounts/{accountId}/transfers",
            "http.response.status_code": 201,
        }
        rpc = {"rpc.system.name": "grpc", "rpc.method": "wallet.bank.v1.BankService/TransferMoney"}
        assert found["gateway", "CLIENT"].attributes == rpc
        assert found["bank", "SERVER"].attributes == {**rpc, "rpc.response.status_code": "OK"}
        commit = found["bank", "CLIENT"].attributes
        assert (commit["db.system.name"], commit["db.operation.batch.size"] > 0) == ("postgresql", True)
        for each in (found["bank", "PRODUCER"], found["analytics", "CONSUMER"]):
            assert each.attributes["messaging.system"] == "kafka"
            assert each.attributes["messaging.destination.name"] == "wallet.operations"
            assert each.attributes["messaging.batch.message_count"] > 0

    async def test_histograms_have_the_trace_as_an_exemplar(
        self, system: System, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        await pay(browser, alice, bob)
        await wait_for_spans(collector, browser, TRANSFER_SPANS)
        expected = {
            "wallet_gateway_request_duration_seconds": system.ports.gateway_admin,
            "wallet_rpc_duration_seconds": system.ports.bank_admin,
        }
        openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with httpx.AsyncClient(headers=openmetrics, trust_env=False) as http:
            for name, port in expected.items():
                page = await http.get(f"http://{HOST}:{port}/metrics")
                assert page.headers["content-type"].startswith("application/openmetrics-text")
                parsed = text_string_to_metric_families(page.text)  # type: ignore[no-untyped-call]
                families = {family.name: family for family in parsed}
                exemplars = [sample.exemplar.labels for sample in families[name].samples if sample.exemplar]
                assert browser.context[0] in {labels["trace_id"] for labels in exemplars}

    async def test_resource_has_the_version_of_the_service(self, collector: Collector) -> None:
        resources = [group.resource for request in collector.requests for group in request.resource_spans]
        assert resources
        for resource in resources:
            values = {each.key: each.value.string_value for each in resource.attributes}
            assert values["service.version"] == version("wallet")

    async def test_refused_transfer_is_no_server_error(self, collector: Collector, alice: User, bob: User) -> None:
        browser = Browser()
        assert (await pay(browser, alice, bob, amount="1000000")).status_code == 400
        expected = {
            each for each in TRANSFER_SPANS if each[2] not in {"send wallet.operations", "store wallet.operations"}
        }
        found = {(each.service, each.kind): each for each in await wait_for_spans(collector, browser, expected)}
        assert (found["gateway", "CLIENT"].is_error, found["bank", "SERVER"].is_error) == (True, False)
        assert found["gateway", "CLIENT"].attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
        assert not found["gateway", "SERVER"].is_error

    async def test_graphql_trace_has_a_span_for_the_operation(
        self, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        given = {"senderId": alice.account, "recipientId": bob.account, "amount": "1", "idempotencyKey": "k"}
        body = {"query": TRANSFER, "variables": {"input": given}}
        assert (await alice.http.post("/graphql", json=body, headers=browser.headers)).status_code == 200
        expected = {("gateway", "SERVER", "POST /graphql"), ("gateway", "INTERNAL", "mutation Pay"), *TRANSFER_SPANS}
        expected.remove(("gateway", "SERVER", "POST /accounts/{accountId}/transfers"))
        found = {(each.service, each.kind): each for each in await wait_for_spans(collector, browser, expected)}
        operation = found["gateway", "INTERNAL"]
        assert operation.parent == found["gateway", "SERVER"].context
        assert found["gateway", "CLIENT"].parent == operation.context
        assert operation.attributes == {"graphql.operation.type": "mutation", "graphql.operation.name": "Pay"}


class TestManyTransfers:
    async def test_transfers_of_one_batch_keep_their_traces(self, collector: Collector, alice: User, bob: User) -> None:
        browsers = [Browser() for _ in range(50)]
        await asyncio.gather(*(pay(browser, alice, bob) for browser in browsers))
        for browser in browsers:
            await wait_for_spans(collector, browser, TRANSFER_SPANS)
        batches = {each.context: each for each in collector.spans if each.name == "commit"}
        assert max(len(each.links) for each in batches.values()) > 1

    async def test_unsampled_trace_is_not_exported(self, collector: Collector, alice: User, bob: User) -> None:
        unsampled, sampled = Browser(is_sampled=False), Browser()
        made = await pay(unsampled, alice, bob)
        assert made.headers["x-request-id"] == unsampled.context[0]
        await pay(sampled, alice, bob)
        await wait_for_spans(collector, sampled, TRANSFER_SPANS)
        assert not collector.list_descendants(unsampled.context)


class TestSubscription:
    async def test_subscription_span_is_exported_at_its_end(
        self, system: System, collector: Collector, alice: User, bob: User
    ) -> None:
        browser = Browser()
        fields = f'balanceChanged(accountId: "{alice.account}") {{ balance {{ amount }} }}'
        headers = {**browser.headers, "Accept": "text/event-stream", "Authorization": f"Bearer {alice.token}"}
        body = {"query": f"subscription Feed {{ {fields} }}"}
        async with (
            httpx.AsyncClient(base_url=system.url, timeout=15) as http,
            http.stream("POST", "/graphql", json=body, headers=headers) as response,
        ):
            lines = response.aiter_lines()
            await wait_for_line(lines, "1000.00")
            await pay(Browser(), alice, bob)
            await wait_for_line(lines, "999.00")
            assert not collector.list_descendants(browser.context)
        watch = "wallet.analytics.v1.AnalyticsService/WatchOperations"
        expected = {
            ("gateway", "SERVER", "POST /graphql"),
            ("gateway", "INTERNAL", "subscription Feed"),
            ("gateway", "CLIENT", watch),
            ("analytics", "SERVER", watch),
        }
        found = {
            (each.service, each.kind, each.name): each for each in await wait_for_spans(collector, browser, expected)
        }
        feed = found["gateway", "INTERNAL", "subscription Feed"]
        assert found["gateway", "CLIENT", watch].parent == feed.context
        assert not feed.is_error


async def wait_for_line(lines: AsyncIterator[str], text: str) -> None:
    """Wait until a line contains the text."""
    while text not in await anext(lines):
        pass


class TestSecrets:
    @pytest.mark.parametrize("route", ["REST", "GraphQL"])
    async def test_top_up_spans_have_no_card_data_token_or_amount(
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
            await alice.http.get(f"/accounts/{PAN}/{CVV}?number={PAN}", headers=browser.headers)
        else:
            mutation = "mutation M%s($input: TopUpAccountInput!) { topUpAccount(input: $input) { __typename } }"
            for each, name in ((card, ""), (wrong, PAN)):
                given = {"accountId": alice.account, "amount": AMOUNT, "idempotencyKey": "k", "card": each}
                body = {"query": mutation % name, "variables": {"input": given}}
                await alice.http.post("/graphql", json=body, headers=browser.headers)
        expected = {
            ("card", "SERVER", "wallet.card.v1.CardService/ProcessCardTopUp"),
            ("card", "CLIENT", "POST /v1/tokens"),
            ("card", "CLIENT", "POST /v1/payments"),
            ("card", "CLIENT", "POST /v1/payments/{id}/capture"),
            ("card", "CLIENT", "wallet.bank.v1.BankService/DepositMoney"),
            ("bank", "SERVER", "wallet.bank.v1.BankService/DepositMoney"),
            ("analytics", "CONSUMER", "store wallet.operations"),
        }
        await wait_for_spans(collector, browser, expected)
        exported = "\n".join(map(str, collector.requests))
        assert "ProcessCardTopUp" in exported
        for secret in (PAN, CVV, PAN[:8], AMOUNT, alice.token, alice.subject, "Bearer"):
            assert secret not in exported
