"""HTTP semantics of the sandbox: HEAD, methods, trailing slashes, query parameters, messages."""

import pytest

from tests.integration.sandbox.running import Merchant


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/v1/payments", "/v1/payments/pay_1"])
async def test_response_to_head_is_that_of_get_without_a_body(merchant: Merchant, path: str) -> None:
    get, head = await merchant.http.get(path), await merchant.http.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert int(head.headers["content-length"]) == len(get.content) > 0


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/v1/payments", "GET, HEAD, POST"), ("/v1/tokens", "POST"), ("/v1/payments/pay_1", "GET, HEAD")],
)
async def test_allow_has_all_methods_of_the_path(merchant: Merchant, path: str, allow: str) -> None:
    response = await merchant.http.delete(path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    message = f"the request does not match the contract: correct it; this path has only the methods {allow}"
    assert response.json() == {"code": "INVALID_REQUEST", "message": message}


@pytest.mark.parametrize("path", ["/health/ready/", "/v1/payments/"])
async def test_trailing_slash_is_not_redirected(merchant: Merchant, path: str) -> None:
    response = await merchant.http.get(path, headers={"Host": "evil.example"})
    assert (response.status_code, "location" in response.headers) == (404, False)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=1&limit=2", "limit: must be given once"),
        ("Limit=1", "limit: is spelled differently in the query: write exactly limit"),
        ("x=1", "query: has an unknown parameter: use only idempotencyKey, after, limit"),
        ("limit=0", "limit: must be at least 1"),
        ("limit=1_0", "limit: must be a whole number"),
        ("limit=1.0", "limit: must be a whole number"),
        ("idempotencyKey=a%20b", "idempotencyKey: must be printable ASCII characters without spaces"),
    ],
)
async def test_message_names_the_wrong_query_parameter(merchant: Merchant, query: str, detail: str) -> None:
    response = await merchant.http.get(f"/v1/payments?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "INVALID_REQUEST")
    assert response.json()["message"] == f"the request does not match the contract: correct it; {detail}"


async def test_tracking_and_cache_busting_parameters_are_ignored(merchant: Merchant) -> None:
    assert (await merchant.http.get("/v1/payments?utm_source=x&_=1")).status_code == 200
