"""Batches of transfers: what the gateway makes of a request, and of the bank's results."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from kit.auth.principal import Role
from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT, FakeBank
from tests.integration.gateway.gateway_process import Gateway, run_gateway
from tests.integration.gateway.slow_services import SlowServices

PATH = "/transfers/batch"
BATCH = """
    mutation($inputs: [TransferMoneyInput!]!) {
      transferMoneyBatch(inputs: $inputs) {
        replayed
        result {
          __typename
          ... on TransferMoneySuccess { transfer { id amount { amount } description } }
          ... on InvalidInput { fields { field } }
          ... on Error { code }
        }
      }
    }
"""


def transfer(amount: Any = "1.00", **more: Any) -> dict[str, Any]:
    return {
        "senderId": str(ACCOUNT),
        "recipientId": str(uuid4()),
        "amount": amount,
        "idempotencyKey": uuid4().hex,
    } | more


async def post(http: httpx.AsyncClient, *transfers: Any) -> list[dict[str, Any]]:
    response = await http.post(PATH, json={"transfers": transfers})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


async def mutate(http: httpx.AsyncClient, *inputs: Any) -> dict[str, Any]:
    response = await http.post("/graphql", json={"query": BATCH, "variables": {"inputs": inputs}})
    body: dict[str, Any] = response.json()
    return body


def summary(result: dict[str, Any]) -> tuple[str, bool, str | None]:
    return result["outcome"], result["replayed"], result.get("problem", {}).get("code")


class TestRest:
    async def test_each_transfer_has_its_own_result_in_order(self, gateway: Gateway, bank: FakeBank) -> None:
        amounts = ("1.00", "404.00", "100.00", "503.00", "500.00", "2.00")
        results = await post(gateway.http, *map(transfer, amounts))
        assert list(map(summary, results)) == [
            ("SUCCEEDED", False, None),
            ("REFUSED", False, "ACCOUNT_NOT_FOUND"),
            ("SUCCEEDED", True, None),
            ("UNKNOWN", False, "UNAVAILABLE"),
            ("UNKNOWN", False, "INTERNAL"),
            ("SUCCEEDED", False, None),
        ]
        made = [result["transfer"]["amount"] for result in results if "transfer" in result]
        assert made == ["1.00", "100.00", "2.00"]
        assert [result["problem"]["status"] for result in results if "problem" in result] == [404, 503, 500]

    async def test_words_and_both_forms_of_a_key_reach_the_bank(self, gateway: Gateway, bank: FakeBank) -> None:
        words = {"description": "Rent", "reference": "INV-1", "uniqueReference": True, "metadata": {"order": "42"}}
        await post(gateway.http, transfer(**words), transfer(idempotencyKey='"k1"'))
        (request,) = bank.requests
        first, second = request.transfers
        assert (first.description, first.reference, first.is_reference_unique) == ("Rent", "INV-1", True)
        assert dict(first.metadata) == {"order": "42"}
        assert (second.idempotency_key, second.raw_idempotency_key) == ("k1", '"k1"')

    @pytest.mark.parametrize(
        ("item", "field"),
        [
            ({}, "senderId"),
            (None, "body"),
            ("x", "body"),
            (transfer("1e3"), "amount"),
            (transfer(1), "amount"),
            (transfer(currency="XXX"), "currency"),
            (transfer(senderId="me"), "senderId"),
            (transfer(idempotencyKey="\u00e9"), "idempotencyKey"),
            (transfer(note="x"), "body"),
            (transfer(metadata={f"k{number}": "v" for number in range(17)}), "metadata"),
            (transfer(**{f"x{number}": 1 for number in range(29)}), "transfers"),
        ],
    )
    async def test_invalid_transfer_is_refused_alone(
        self, gateway: Gateway, bank: FakeBank, item: Any, field: str
    ) -> None:
        first, invalid, last = await post(gateway.http, transfer("1.00"), item, transfer("2.00"))
        assert summary(invalid) == ("REFUSED", False, "INVALID_INPUT")
        assert invalid["problem"]["fields"][0]["field"] == field
        assert [each["transfer"]["amount"] for each in (first, last)] == ["1.00", "2.00"]
        assert [each.amount.units for each in bank.requests[0].transfers] == [1, 2]

    async def test_bank_is_not_called_if_no_transfer_is_valid(self, gateway: Gateway, bank: FakeBank) -> None:
        assert [summary(each)[0] for each in await post(gateway.http, {}, {})] == ["REFUSED", "REFUSED"]
        assert bank.requests == []

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"transfers": []},
            {"transfers": [{}] * 1_001},
            {"transfers": {}},
            {"transfers": None},
            {"transfers": [{}], "atomic": True},
            {"transfers": [{}]} | {f"x{number}": 1 for number in range(30_000)},
            [],
        ],
        ids=["nothing", "empty", "1001", "object", "null", "unknown field", "many fields", "array"],
    )
    async def test_body_that_is_no_batch_is_refused(self, gateway: Gateway, bank: FakeBank, body: Any) -> None:
        response = await gateway.http.post(PATH, json=body)
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_INPUT")
        assert bank.requests == []

    async def test_body_of_another_type_is_refused(self, gateway: Gateway) -> None:
        response = await gateway.http.post(PATH, content=b"{}", headers={"Content-Type": "text/plain"})
        assert (response.status_code, response.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")

    async def test_operator_is_refused_before_the_body_is_read(self, gateway: Gateway, keys: Keys) -> None:
        headers = {"Authorization": f"Bearer {keys.user('olga', Role.OPERATOR)}"}
        response = await gateway.http.post(PATH, content=b"{", headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "PERMISSION_DENIED")


class TestSizes:
    @pytest.mark.parametrize("indent", [None, 1], ids=["compact", "indented"])
    async def test_batch_of_1000_transfers_with_words_is_accepted(
        self, gateway: Gateway, bank: FakeBank, indent: int | None
    ) -> None:
        words = {"description": "Salary, for March: thank you", "reference": uuid4().hex, "metadata": {"order": "42"}}
        body = json.dumps({"transfers": [transfer(**words) for _ in range(1_000)]}, indent=indent)
        headers = {"Content-Type": "application/json"}
        response = await gateway.http.post(PATH, content=body, headers=headers)
        assert {each["outcome"] for each in response.json()["results"]} == {"SUCCEEDED"}
        packed = gzip.compress(body.encode())
        response = await gateway.http.post(PATH, content=packed, headers=headers | {"Content-Encoding": "gzip"})
        assert len(response.json()["results"]) == 1_000
        assert [len(each.transfers) for each in bank.requests] == [1_000, 1_000]

    async def test_body_above_1_mib_is_refused(self, gateway: Gateway) -> None:
        headers = {"Content-Type": "application/json"}
        for content, coding in ((b" " * (2**20 + 1), ""), (gzip.compress(b" " * (2**20 + 1)), "gzip")):
            encoding = {"Content-Encoding": coding} if coding else {}
            response = await gateway.http.post(PATH, content=content, headers=headers | encoding)
            assert (response.status_code, response.json()["code"]) == (413, "CONTENT_TOO_LARGE")

    async def test_large_body_with_too_many_values_is_refused(self, gateway: Gateway, bank: FakeBank) -> None:
        for content in (b"[" + b"[]," * 40_000 + b"[]]", b'{"transfers":[' + b'{"x":0},' * 40_000 + b"0]}"):
            for path in (PATH, "/graphql"):
                response = await gateway.http.post(path, content=content, headers={"Content-Type": "application/json"})
                assert response.status_code == 400
                assert "send fewer transfers" in response.text
        assert bank.requests == []

    @pytest.mark.parametrize("path", [PATH, "/graphql"])
    async def test_large_body_needs_a_token_and_a_length(self, gateway: Gateway, path: str) -> None:
        large = b" " * 70_000

        async def chunks() -> AsyncIterator[bytes]:
            yield large

        headers = {"Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as anonymous:
            refused = await anonymous.post(path, content=large, headers=headers)
        assert refused.status_code == 413
        assert (await gateway.http.post(path, content=chunks(), headers=headers)).status_code == 413
        assert (await gateway.http.post(path, content=large, headers=headers)).status_code == 400

    async def test_large_body_is_refused_on_other_paths(self, gateway: Gateway) -> None:
        content, headers = b" " * 70_000, {"Content-Type": "application/json", "Idempotency-Key": "k"}
        response = await gateway.http.post(f"/accounts/{ACCOUNT}/transfers", content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "CONTENT_TOO_LARGE")

    async def test_large_body_has_no_long_query_and_no_array(self, gateway: Gateway) -> None:
        query = "{ __typename } #" + "x" * 70_000
        for body in ({"query": query}, [{"query": "{ __typename }", "variables": {"x": "y" * 70_000}}]):
            response = await gateway.http.post("/graphql", json=body)
            assert response.status_code == 413, response.text
        variables = {"query": "{ __typename }", "variables": {"x": "y" * 70_000}}
        assert (await gateway.http.post("/graphql", json=variables)).json()["data"] == {"__typename": "Query"}


class TestGraphQL:
    async def test_each_transfer_has_its_own_result_in_order(self, gateway: Gateway, bank: FakeBank) -> None:
        amounts = ("1.00", "404.00", "100.00", "503.00", "500.00", "1e3")
        body = await mutate(gateway.http, *map(transfer, amounts))
        results = body["data"]["transferMoneyBatch"]
        assert "errors" not in body
        assert [(each["replayed"], each["result"]["__typename"], each["result"].get("code")) for each in results] == [
            (False, "TransferMoneySuccess", None),
            (False, "AccountNotFound", "ACCOUNT_NOT_FOUND"),
            (True, "TransferMoneySuccess", None),
            (False, "TransferOutcomeUnknown", "UNAVAILABLE"),
            (False, "TransferOutcomeUnknown", "INTERNAL"),
            (False, "InvalidInput", "INVALID_INPUT"),
        ]
        assert results[-1]["result"]["fields"] == [{"field": "amount"}]
        assert [each.amount.units for each in bank.requests[0].transfers] == [1, 404, 100, 503, 500]

    async def test_batch_of_1000_transfers_is_accepted(self, gateway: Gateway, bank: FakeBank) -> None:
        text = "mutation($inputs: [TransferMoneyInput!]!) { transferMoneyBatch(inputs: $inputs) { replayed } }"
        inputs = [transfer() for _ in range(1_000)]
        response = await gateway.http.post("/graphql", json={"query": text, "variables": {"inputs": inputs}})
        assert response.json() == {"data": {"transferMoneyBatch": [{"replayed": False}] * 1_000}}
        assert [each.idempotency_key for each in bank.requests[0].transfers] == [
            each["idempotencyKey"] for each in inputs
        ]

    @pytest.mark.parametrize("size", [0, 1_001])
    async def test_batch_of_another_size_is_refused(self, gateway: Gateway, bank: FakeBank, size: int) -> None:
        text = "mutation($inputs: [TransferMoneyInput!]!) { transferMoneyBatch(inputs: $inputs) { __typename } }"
        body = {"query": text, "variables": {"inputs": [transfer()] * size}}
        (error,) = (await gateway.http.post("/graphql", json=body)).json()["errors"]
        assert error["extensions"]["fields"] == [{"field": "inputs", "message": "must have 1 to 1000 entries"}]
        assert bank.requests == []


class TestRates:
    @pytest.fixture
    async def limited(
        self, slow_target: str, slow_services: SlowServices, keys: Keys, tmp_path: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Client of a gateway that allows 10 requests an hour."""
        slow_services.proceed.set()
        headers = {"Authorization": f"Bearer {keys.user('alice')}"}
        async with (
            run_gateway(keys, tmp_path, slow_target, gateway_rate_requests="10/hour") as url,
            httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http,
        ):
            yield http

    async def test_batch_counts_as_its_transfers(self, limited: httpx.AsyncClient) -> None:
        response = await limited.post(PATH, json={"transfers": [transfer()] * 4})
        assert (response.status_code, response.headers["RateLimit"].split(";")[1]) == (200, "r=6")
        refused = await limited.post(PATH, json={"transfers": [transfer()] * 7})
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["Retry-After"]) > 0
        invalid = await limited.post(PATH, json={"transfers": [{}] * 5})  # invalid transfers count, too
        assert (invalid.status_code, invalid.headers["RateLimit"].split(";")[1]) == (200, "r=0")

    async def test_batch_over_graphql_counts_as_its_transfers(
        self, limited: httpx.AsyncClient, slow_services: SlowServices
    ) -> None:
        assert len((await mutate(limited, *[transfer()] * 9))["data"]["transferMoneyBatch"]) == 9
        (error,) = (await mutate(limited, transfer(), transfer()))["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert error["extensions"]["retryAfter"] > 0
        assert slow_services.started.qsize() == 1


async def test_batch_that_the_bank_does_not_answer_has_an_unknown_outcome(gateway: Gateway, bank: FakeBank) -> None:
    bank.is_away = True
    response = await gateway.http.post(PATH, json={"transfers": [transfer()]})
    assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
    (error,) = (await mutate(gateway.http, transfer()))["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
