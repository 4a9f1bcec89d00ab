"""Idempotency keys of REST and GraphQL, over a real bank and a fake card service."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from protos.wallet.card.v1 import card_pb2
from tests.conftest import Keys
from tests.databases import CleanDatabases
from tests.idempotency_keys import earlier_release, quote
from tests.integration.bank.harness import Caller, RunningBank, rub, run_bank
from tests.integration.gateway.fake_services import ACCOUNT, FakeCard
from tests.integration.gateway.gateway_process import Gateway, run_gateway
from tests.openapi import REST
from wallet.errors import AccountClosed

CARD = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2031, "cvv": "123"}

TRANSFER = """
    mutation ($input: TransferMoneyInput!) {
      result: transferMoney(input: $input) {
        ... on TransferMoneySuccess { transfer { id } }
        ... on Error { code }
        ... on InvalidInput { fields { field message } }
        ... on IdempotencyConflict { idempotencyKey }
      }
    }
"""
OPEN = """
    mutation ($input: OpenAccountInput!) {
      result: openAccount(input: $input) {
        ... on OpenAccountSuccess { account { id } }
        ... on InvalidInput { fields { field message } }
      }
    }
"""
TOP_UP = """
    mutation ($input: TopUpAccountInput!) {
      result: topUpAccount(input: $input) {
        ... on TopUpAccountSuccess { topUp { id } }
        ... on InvalidInput { fields { field message } }
      }
    }
"""
NO_STRING = "starts with a quotation mark, so it must be one quoted string"
NO_KEY = "must be 1 to 255 printable ASCII characters"
INVALID_KEYS = [
    ('"k1', NO_STRING),
    ('"k1", "k2"', NO_STRING),
    ('"k1";a=1', NO_STRING),
    ('"', NO_STRING),
    ("k1, k1", "must be sent once"),
    ("k1,k1, k1", "must be sent once"),
    ('k1, "k1"', "must be sent once"),
    ('"k1", k1', "must be sent once"),
    ("k1,", "must be sent once"),
    (', "k1"', "must be sent once"),
    ("k1,,k1", "must be sent once"),
    ('""', NO_KEY),
    ("x" * 256, NO_KEY),
    ('"' + "x" * 256 + '"', NO_KEY),
]
"""Values that neither REST nor GraphQL accepts, and the start of the message."""


async def mutate(http: httpx.AsyncClient, mutation: str, **arguments: Any) -> dict[str, Any]:
    """Execute a mutation with these input fields, and return its result."""
    response = await http.post("/graphql", json={"query": mutation, "variables": {"input": arguments}})
    body = response.json()
    assert "errors" not in body, body
    result: dict[str, Any] = body["data"]["result"]
    return result


class Client:
    """REST client of alice, who has 1000.00 RUB."""

    def __init__(
        self, bank: RunningBank, alice: Caller, http: httpx.AsyncClient, account: UUID, recipient: UUID
    ) -> None:
        self.bank = bank
        self.alice = alice
        self.http = http
        self.account = account
        self.recipient = recipient

    async def transfer(self, *keys: str, amount: str = "1.00") -> httpx.Response:
        """Post a transfer with a header line for each key."""
        headers = [("Idempotency-Key", key) for key in keys]
        body = {"recipientId": str(self.recipient), "amount": amount}
        return await self.http.post(f"/accounts/{self.account}/transfers", json=body, headers=headers)

    async def transfer_by_graph(self, key: str, amount: str = "1.00") -> dict[str, Any]:
        """Make a transfer with the mutation, and return its result."""
        ids = {"senderId": str(self.account), "recipientId": str(self.recipient)}
        return await mutate(self.http, TRANSFER, **ids, amount=amount, idempotencyKey=key)

    async def transfer_by_socket(self, key: str) -> tuple[str, str]:
        """Post a transfer without an HTTP client, because clients remove white space around the key.

        Returns:
            The head and the body of the response.
        """
        body = json.dumps({"recipientId": str(self.recipient), "amount": "1.00"})
        url = self.http.base_url
        head = (
            f"POST /accounts/{self.account}/transfers HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n"
            f"Authorization: {self.http.headers['Authorization']}\r\nIdempotency-Key:{key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write((head + body).encode())
        async with asyncio.timeout(30):
            response = (await reader.read()).decode()
        writer.close()
        head, _, body = response.partition("\r\n\r\n")
        return head, body


@pytest.fixture(scope="module")
async def bank(
    ledgers: CleanDatabases, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBank]:
    async with ledgers.one() as url, run_bank(keys, tmp_path_factory.mktemp("bank"), url) as bank:
        yield bank


@pytest.fixture(scope="module")
async def url(bank: RunningBank, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """URL of a gateway over the bank."""
    async with run_gateway(keys, tmp_path_factory.mktemp("gateway"), bank.target) as url:
        yield url


@pytest.fixture
async def client(bank: RunningBank, url: str, keys: Keys) -> AsyncIterator[Client]:
    alice = f"alice {uuid4()}"  # the keys of a new user are unused
    async with httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {keys.user(alice)}"},
        event_hooks={"response": [REST.check_hook]},
        trust_env=False,
    ) as http:
        yield Client(bank, bank.user(alice), http, await bank.open(alice), await bank.open("bob"))


def replayed(response: httpx.Response) -> str | None:
    value: str | None = response.headers.get("Idempotency-Replayed")
    return value


class TestTransfers:
    async def test_all_forms_of_a_key_are_one_transfer(self, client: Client) -> None:
        responses = [await client.transfer(form) for form in ("k1", '"k1"', "k1", '"k1"')]
        assert [response.status_code for response in responses] == [201] * 4
        assert len({response.text for response in responses}) == 1
        assert [replayed(response) for response in responses] == [None, "true", "true", "true"]
        assert await client.bank.balance(client.account) == 999

    async def test_white_space_around_the_value_is_no_part_of_the_key(self, client: Client) -> None:
        first = await client.transfer("k1")
        for value in ("k1 ", "  k1", "\tk1 \t", ' "k1"\t'):
            head, body = await client.transfer_by_socket(value)
            assert head.startswith("HTTP/1.1 201 "), value
            assert "idempotency-replayed: true" in head.lower()
            assert body == first.text
        assert await client.bank.balance(client.account) == 999

    async def test_escaped_characters_are_part_of_the_key(self, client: Client) -> None:
        responses = [await client.transfer(form) for form in (r"a\"b", r'"a\\\"b"', 'a"b', r'"a\"b"', r'"a\\b"')]
        assert [response.status_code for response in responses] == [201] * 5
        assert [replayed(response) for response in responses] == [None, "true", None, "true", None]
        assert await client.bank.balance(client.account) == 997

    async def test_quoted_key_of_an_earlier_release_returns_the_first_transfer(self, client: Client) -> None:
        alice, transfer = client.alice, client.bank.client.transfer
        with earlier_release():
            earlier = await alice(transfer(client.account, client.recipient, rub("1.00"), '"k1"'))
        again = await client.transfer('"k1"')
        assert (again.status_code, again.json()["id"], replayed(again)) == (201, str(earlier.transfer.id), "true")
        assert await client.bank.balance(client.account) == 999

    @pytest.mark.parametrize("text", ['"k1"', " k1 "])
    async def test_transfer_of_a_text_is_not_found_by_a_key_with_this_raw_form(self, client: Client, text: str) -> None:
        first = await client.transfer(quote(text))
        by_graph = await client.transfer_by_graph(text)
        bare = await client.transfer("k1")
        again = [(await client.transfer(quote(text))).json()["id"], (await client.transfer_by_graph(quote(text)))]
        assert by_graph["transfer"]["id"] == bare.json()["id"] != first.json()["id"]
        assert again == [first.json()["id"], {"transfer": {"id": first.json()["id"]}}]
        assert await client.bank.balance(client.account) == 998

    @pytest.mark.parametrize("text", ['"k1"', " k1 "])
    async def test_raw_form_that_an_earlier_release_stored_is_not_found_by_its_text(
        self, client: Client, text: str
    ) -> None:
        alice, transfer = client.alice, client.bank.client.transfer
        with earlier_release():
            earlier = await alice(transfer(client.account, client.recipient, rub("1.00"), text))
        by_text = await client.transfer(quote(text))
        assert (replayed(by_text), by_text.json()["id"] != str(earlier.transfer.id)) == (None, True)
        assert (await client.transfer_by_graph(text))["transfer"]["id"] == str(earlier.transfer.id)
        assert await client.bank.balance(client.account) == 998

    async def test_repeated_refusals_are_marked_as_replays(self, client: Client) -> None:
        responses = [await client.transfer(form, amount="5000.00") for form in ("k1", '"k1"')]
        assert [(response.status_code, response.json()["code"]) for response in responses] == [
            (400, "INSUFFICIENT_FUNDS")
        ] * 2
        assert [replayed(response) for response in responses] == [None, "true"]
        conflict = await client.transfer("k1", amount="1.00")
        assert (conflict.status_code, conflict.json()["code"], replayed(conflict)) == (
            422,
            "IDEMPOTENCY_CONFLICT",
            None,
        )

    async def test_one_of_concurrent_responses_is_not_marked_as_a_replay(self, client: Client) -> None:
        responses = await asyncio.gather(*(client.transfer(form) for form in ["k1", '"k1"'] * 5))
        assert [replayed(response) for response in responses].count(None) == 1
        assert await client.bank.balance(client.account) == 999

    @pytest.mark.parametrize(
        ("lines", "problem"),
        [
            ((), "is required"),
            (("k1", "k1"), "must be sent once"),
            (("k1", '"k1"'), "must be sent once"),
            *(((value,), problem) for value, problem in INVALID_KEYS),
        ],
    )
    async def test_missing_repeated_or_invalid_header_is_refused(
        self, client: Client, lines: tuple[str, ...], problem: str
    ) -> None:
        refused = await client.transfer(*lines)
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_INPUT")
        (field,) = refused.json()["fields"]
        assert field["field"] == "Idempotency-Key"
        assert field["message"].startswith(problem)
        assert await client.bank.balance(client.account) == 1000

    async def test_invalid_key_and_amount_are_both_named(self, client: Client) -> None:
        refused = await client.transfer('"', amount="1.001")
        assert [field["field"] for field in refused.json()["fields"]] == ["Idempotency-Key", "amount"]


class TestTransfersByGraph:
    async def test_all_forms_of_a_key_are_one_transfer_in_both_apis(self, client: Client) -> None:
        ids = set()
        for form in ('"k1"', "k1", "k1 ", ' "k1"\t'):
            ids.add((await client.transfer_by_graph(form))["transfer"]["id"])
            ids.add((await client.transfer(form.strip())).json()["id"])
        assert len(ids) == 1
        assert await client.bank.balance(client.account) == 999

    async def test_escaped_characters_are_part_of_the_key(self, client: Client) -> None:
        by_graph = [
            await client.transfer_by_graph(form) for form in (r"a\"b", r'"a\\\"b"', 'a"b', r'"a\"b"', r'"a\\b"')
        ]
        by_rest = [await client.transfer(form) for form in (r"a\"b", r'"a\\\"b"', 'a"b', r'"a\"b"', r'"a\\b"')]
        assert [each["transfer"]["id"] for each in by_graph] == [each.json()["id"] for each in by_rest]
        assert await client.bank.balance(client.account) == 997

    @pytest.mark.parametrize("form", ['"k1"', "k1 ", ' "k1" ', '"k1'])
    async def test_key_that_an_earlier_release_stored_as_sent_returns_the_first_transfer(
        self, client: Client, form: str
    ) -> None:
        alice, transfer = client.alice, client.bank.client.transfer
        with earlier_release():
            earlier = await alice(transfer(client.account, client.recipient, rub("1.00"), form))
        # A key that starts with a quotation mark is accepted as a quoted string only.
        now = quote(form) if form == '"k1' else form
        assert (await client.transfer_by_graph(now))["transfer"]["id"] == str(earlier.transfer.id)
        assert await client.bank.balance(client.account) == 999

    async def test_other_request_with_another_form_of_the_key_is_a_conflict(self, client: Client) -> None:
        await client.transfer("k1")
        conflict = await client.transfer_by_graph(' "k1"', amount="2.00")
        assert conflict == {"code": "IDEMPOTENCY_CONFLICT", "idempotencyKey": "k1"}
        assert await client.bank.balance(client.account) == 999

    @pytest.mark.parametrize(("value", "problem"), [*INVALID_KEYS, ("  ", NO_KEY), ("é", NO_KEY), ("k\n", NO_KEY)])
    async def test_invalid_key_is_refused_with_its_field(self, client: Client, value: str, problem: str) -> None:
        refused = await client.transfer_by_graph(value, amount="1.001")
        assert refused["code"] == "INVALID_INPUT"
        assert [each["field"] for each in refused["fields"]] == ["amount", "idempotencyKey"]
        assert refused["fields"][1]["message"].startswith(problem)
        assert await client.bank.balance(client.account) == 1000


class TestAccounts:
    async def test_all_forms_of_a_key_open_one_account(self, client: Client) -> None:
        with earlier_release():
            earlier = await client.alice(client.bank.client.open_account("RUB", '"earlier"'))
        responses = [
            await client.http.post("/accounts", json={"currency": "RUB"}, headers={"Idempotency-Key": form})
            for form in ("k1", '"k1"', '"earlier"')
        ]
        assert [response.status_code for response in responses] == [201] * 3
        assert [replayed(response) for response in responses] == [None, "true", "true"]
        assert responses[0].json() == responses[1].json()
        assert responses[2].json()["id"] == str(earlier.account.id)

    async def test_all_forms_of_a_key_open_one_account_in_both_apis(self, client: Client) -> None:
        with earlier_release():
            earlier = await client.alice(client.bank.client.open_account("RUB", '"earlier"'))
        by_rest = await client.http.post("/accounts", json={"currency": "RUB"}, headers={"Idempotency-Key": "k1"})
        by_graph = [await mutate(client.http, OPEN, idempotencyKey=form) for form in ('"k1"', "k1 ", '"earlier"')]
        assert [each["account"]["id"] for each in by_graph] == [by_rest.json()["id"]] * 2 + [str(earlier.account.id)]

    async def test_invalid_key_of_the_mutation_is_refused(self, client: Client) -> None:
        (field,) = (await mutate(client.http, OPEN, idempotencyKey='"k1'))["fields"]
        assert field["field"] == "idempotencyKey"
        assert field["message"].startswith(NO_STRING)


class TestTopUps:
    @staticmethod
    async def post(gateway: Gateway, key: str) -> httpx.Response:
        body: dict[str, Any] = {"amount": "10.00", "card": CARD}
        return await gateway.http.post(f"/accounts/{ACCOUNT}/topup", json=body, headers={"Idempotency-Key": key})

    async def test_card_service_gets_both_forms_of_a_quoted_key(self, gateway: Gateway, card: FakeCard) -> None:
        for key in ("k1", r'"k\"1"', '"' + "x" * 254 + '"'):
            assert (await self.post(gateway, key)).status_code == 202
        forms = [(request.idempotency_key, request.raw_idempotency_key) for request in card.requests]
        assert forms == [("k1", ""), ('k"1', r'"k\"1"'), ("x" * 254, '"' + "x" * 254 + '"')]

    async def test_card_service_gets_the_same_forms_from_both_apis(self, gateway: Gateway, card: FakeCard) -> None:
        arguments = {"accountId": str(ACCOUNT), "amount": "10.00", "card": CARD}
        for key in ("k1", r'"k\"1"', "k1 "):
            await mutate(gateway.http, TOP_UP, **arguments, idempotencyKey=key)
        forms = [(request.idempotency_key, request.raw_idempotency_key) for request in card.requests]
        assert forms == [("k1", ""), ('k"1', r'"k\"1"'), ("k1", "k1 ")]

    async def test_invalid_key_of_the_mutation_is_refused(self, gateway: Gateway, card: FakeCard) -> None:
        arguments = {"accountId": "5", "amount": "10.00", "card": CARD}
        refused = await mutate(gateway.http, TOP_UP, **arguments, idempotencyKey='"k1')
        assert [each["field"] for each in refused["fields"]] == ["accountId", "idempotencyKey"]
        assert not card.requests

    async def test_repeated_top_ups_are_marked_as_replays(self, gateway: Gateway, card: FakeCard) -> None:
        first = await self.post(gateway, "k1")
        card.is_replay = True
        again = await self.post(gateway, "k1")
        assert (replayed(first), replayed(again)) == (None, "true")
        card.result = AccountClosed(str(ACCOUNT))
        assert replayed(await self.post(gateway, "k2")) is None
        assert isinstance(card.requests[0], card_pb2.ProcessCardTopUpRequest)
