"""Every error of a service, as REST and GraphQL return it."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from graphql import GraphQLUnionType

from gateway.errors import STATUS, STATUS_OVERRIDES
from gateway.graphql.execution.schemas import build_merged_schema
from tests.integration.gateway.fake_services import ACCOUNT, FakeCard
from tests.integration.gateway.gateway_process import Gateway
from tests.integration.gateway.logs import logs_since
from wallet.errors import ERRORS_BY_REASON, FieldViolation, InvalidInput, RateLimited, WalletError

INPUT = {
    "accountId": str(ACCOUNT),
    "amount": "10.00",
    "card": {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2031, "cvv": "123"},
    "idempotencyKey": "k",
}
TOP_UP = """
    mutation($input: TopUpAccountInput!) {
      topUpAccount(input: $input) {
        __typename
        ... on Error { code message }
        ... on InvalidInput { fields { field message } }
      }
    }
"""
VIOLATIONS = (FieldViolation("amount", "is odd"), FieldViolation("card.cvv", "is, too"))
FIELDS = [{"field": "amount", "message": "is odd"}, {"field": "card.cvv", "message": "is, too"}]
DATA = dict.fromkeys(("needed", "available", "limit"), "1.00") | {
    "currency": "RUB",
    "period": "DAY",
    "problem": "not so",
    "retry_after_seconds": "30",
}
NULLED = {"TOP_UP_NOT_FOUND"}
"""Codes of the errors for which a query returns null and no error."""


def result_types() -> set[str]:
    """Return the names of the types in the union `TopUpAccountResult`."""
    union = build_merged_schema().core_schema.type_map["TopUpAccountResult"]
    assert isinstance(union, GraphQLUnionType)
    return {each.name for each in union.types}


@pytest.fixture(params=list(ERRORS_BY_REASON.values()), ids=list(ERRORS_BY_REASON))
def error(request: pytest.FixtureRequest, card: FakeCard) -> WalletError:
    """Each error of the services. The card service raises it in all unary RPCs."""
    kind: type[WalletError] = request.param
    error = InvalidInput(VIOLATIONS) if kind is InvalidInput else kind.from_metadata(DATA)
    card.result = error
    return error


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Client of alice without contract checks, because the contract does not list all of the errors for top-ups."""
    headers = {"Authorization": f"Bearer {gateway.token}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        yield http


class TestErrorOverRest:
    async def test_error_is_a_problem_with_the_request_id(self, http: httpx.AsyncClient, error: WalletError) -> None:
        body = {name: INPUT[name] for name in ("amount", "card")}
        response = await http.post(f"/accounts/{ACCOUNT}/topup", json=body, headers={"Idempotency-Key": "k"})
        assert response.headers["content-type"] == "application/problem+json"
        assert response.status_code == STATUS_OVERRIDES.get(type(error), STATUS[error.code])
        problem = response.json()
        assert (problem["code"], problem["detail"]) == (error.reason, error.message)
        assert problem["requestId"] == response.headers["x-request-id"]
        assert problem.get("fields", []) == (FIELDS if isinstance(error, InvalidInput) else [])


class TestErrorOverGraphQL:
    async def test_error_of_a_query_has_its_code_and_the_request_id(
        self, http: httpx.AsyncClient, error: WalletError
    ) -> None:
        query = f'{{ topUp(id: "{uuid4()}") {{ id }} }}'
        response = await http.post("/graphql", json={"query": query})
        assert response.json()["data"] == {"topUp": None}
        errors = {each["extensions"]["code"]: each for each in response.json().get("errors", [])}
        assert set(errors) == {error.reason} - NULLED
        for each in errors.values():
            assert (each["message"], each["path"]) == (error.message, ["topUp"])
            assert each["extensions"]["requestId"] == response.headers["x-request-id"]
            assert each["extensions"].get("fields", []) == (FIELDS if isinstance(error, InvalidInput) else [])

    async def test_error_of_a_mutation_is_data_if_the_union_has_its_type(
        self, http: httpx.AsyncClient, error: WalletError
    ) -> None:
        response = await http.post("/graphql", json={"query": TOP_UP, "variables": {"input": INPUT}})
        kind = type(error).__name__
        if kind in result_types():
            result = response.json()["data"]["topUpAccount"]
            assert (result["__typename"], result["code"], result["message"]) == (kind, error.reason, error.message)
            assert result.get("fields", []) == (FIELDS if isinstance(error, InvalidInput) else [])
            assert "errors" not in response.json()
        else:
            (only,) = response.json()["errors"]
            assert (response.json()["data"], only["message"]) == (None, error.message)
            expected: dict[str, object] = {"code": error.reason, "requestId": response.headers["x-request-id"]}
            if isinstance(error, RateLimited):
                expected["retryAfter"] = int(error.retry_after_seconds)
            assert only["extensions"] == expected


class TestUnexpectedError:
    async def test_unexpected_error_is_hidden_and_logged_with_the_request_id(
        self, http: httpx.AsyncClient, gateway: Gateway, card: FakeCard
    ) -> None:
        card.result = "password=x"  # type: ignore[assignment]  # not a message, so the service fails
        start = len(gateway.log_lines)
        over_graphql = await http.post("/graphql", json={"query": TOP_UP, "variables": {"input": INPUT}})
        body = {name: INPUT[name] for name in ("amount", "card")}
        over_rest = await http.post(f"/accounts/{ACCOUNT}/topup", json=body, headers={"Idempotency-Key": "k"})
        (error,) = over_graphql.json()["errors"]
        logged = {json.loads(line).get("request_id") for line in await logs_since(gateway, start)}
        for details, response in ((error["extensions"], over_graphql), (over_rest.json(), over_rest)):
            assert (details["code"], details["requestId"]) == ("INTERNAL", response.headers["x-request-id"])
            assert "password" not in response.text
            assert details["requestId"] in logged
