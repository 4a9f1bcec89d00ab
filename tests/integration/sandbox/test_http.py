"""HTTP semantics of the sandbox: HEAD, methods, trailing slashes."""

import pytest

from tests.integration.sandbox.running import Merchant


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/v1/payments", "/v1/payments/pay_1"])
async def test_head_is_answered_like_get_without_a_body(merchant: Merchant, path: str) -> None:
    got, asked = await merchant.http.get(path), await merchant.http.head(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert int(asked.headers["content-length"]) == len(got.content) > 0


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/v1/payments", "GET, HEAD, POST"), ("/v1/tokens", "POST"), ("/v1/payments/pay_1", "GET, HEAD")],
)
async def test_allow_has_all_methods_of_the_path(merchant: Merchant, path: str, allow: str) -> None:
    answer = await merchant.http.delete(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/health/ready/", "/v1/payments/"])
async def test_trailing_slash_is_not_redirected(merchant: Merchant, path: str) -> None:
    answer = await merchant.http.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, "location" in answer.headers) == (404, False)
