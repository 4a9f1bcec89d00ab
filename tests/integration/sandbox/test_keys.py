"""Idempotency keys, cancellation, lists of payments, invalid requests and random failures."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.sandbox.running import APPROVED, Merchant, code, running


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


class TestIdempotency:
    async def test_concurrent_requests_with_one_key_create_one_payment(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(APPROVED)
        responses = await asyncio.gather(*(merchant.authorize(token, key) for _ in range(20)))
        created = {response.json()["id"] for response in responses if response.status_code == 201}
        assert len(created) == 1
        assert {code(response) for response in responses if response.status_code != 201} <= {"KEY_IN_USE"}
        assert [payment["id"] for payment in await merchant.find_payments(key)] == list(created)

    async def test_concurrent_request_with_the_key_is_refused(self, tmp_path: Path, key: str) -> None:
        async with running(tmp_path, sandbox_delay_seconds=1) as merchant:
            token = await merchant.token(APPROVED)
            responses = await asyncio.gather(*(merchant.authorize(token, key) for _ in range(5)))
            assert sorted(response.status_code for response in responses) == [201, 409, 409, 409, 409]
            assert {code(response) for response in responses} == {None, "KEY_IN_USE"}

    async def test_repeated_request_returns_the_current_payment(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(APPROVED)
        first = (await merchant.authorize(token, key)).json()
        await merchant.change("capture", first["id"], f"{key}:c")
        again = await merchant.authorize(token, key)
        assert (again.status_code, again.json()) == (201, await merchant.payment(first["id"]))
        assert again.json()["status"] == "CAPTURED"

    async def test_refusal_is_replayed(self, merchant: Merchant, key: str) -> None:
        paid = await merchant.create_payment(APPROVED)
        assert code(await merchant.change("refund", paid["id"], key)) == "WRONG_STATUS"
        await merchant.change("capture", paid["id"], f"{key}:c")
        again = await merchant.change("refund", paid["id"], key)
        assert (code(again), again.json()["payment"]["status"]) == ("WRONG_STATUS", "CAPTURED")

    async def test_key_with_another_request_is_refused(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(APPROVED)
        paid = (await merchant.authorize(token, key)).json()
        assert code(await merchant.authorize(token, key, amount="10.01")) == "KEY_REUSED"
        assert code(await merchant.change("capture", paid["id"], key)) == "KEY_REUSED"
        assert (await merchant.payment(paid["id"]))["status"] == "AUTHORIZED"

    async def test_keys_survive_a_restart(self, tmp_path: Path, key: str) -> None:
        async with running(tmp_path) as merchant:
            token = await merchant.token(APPROVED)
            paid = (await merchant.authorize(token, key)).json()
            taken = (await merchant.change("capture", paid["id"], f"{key}:c")).json()
            await merchant.cancel(f"{key}-barred")
        async with running(tmp_path) as merchant:
            assert await merchant.token(APPROVED) == token
            assert (await merchant.authorize(token, key)).json() == taken
            assert (await merchant.change("capture", paid["id"], f"{key}:c")).json() == taken
            assert code(await merchant.change("capture", paid["id"], f"{key}:c2")) == "WRONG_STATUS"
            assert code(await merchant.authorize(token, f"{key}-barred")) == "KEY_CANCELLED"


class TestCancellation:
    async def test_unused_key_can_be_cancelled(self, merchant: Merchant, key: str) -> None:
        for _ in range(2):
            assert (await merchant.cancel(key)).json() == {"idempotencyKey": key, "payment": None}
        refused = await merchant.authorize(await merchant.token(APPROVED), key)
        assert (refused.status_code, code(refused)) == (409, "KEY_CANCELLED")
        assert await merchant.find_payments(key) == []

    async def test_cancellation_voids_the_payment(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(APPROVED)
        paid = (await merchant.authorize(token, key)).json()
        for _ in range(2):
            cancelled = (await merchant.cancel(key)).json()
            assert (cancelled["payment"]["id"], cancelled["payment"]["status"]) == (paid["id"], "VOIDED")
        assert code(await merchant.authorize(token, key)) == "KEY_CANCELLED"
        assert code(await merchant.change("capture", paid["id"], f"{key}:c")) == "WRONG_STATUS"

    async def test_captured_payment_is_not_cancelled(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(APPROVED)
        paid = (await merchant.authorize(token, key)).json()
        taken = (await merchant.change("capture", paid["id"], f"{key}:c")).json()
        refused = await merchant.cancel(key)
        assert (refused.status_code, code(refused), refused.json()["payment"]) == (409, "WRONG_STATUS", taken)
        assert (await merchant.authorize(token, key)).json() == taken


class TestReading:
    async def test_pages_are_in_order_of_creation(self, tmp_path: Path) -> None:
        async with running(tmp_path) as merchant:
            created = [(await merchant.create_payment(APPROVED))["id"] for _ in range(5)]
            assert created == sorted(created)
            found: list[str] = []
            while True:
                after = found[-1] if found else ""
                response = await merchant.http.get("/v1/payments", params={"after": after, "limit": 2})
                page = response.json()["payments"]
                found += [payment["id"] for payment in page]
                if len(page) < 2:
                    break
            assert found == created


class TestRefusal:
    """Invalid requests."""

    @pytest.mark.parametrize(
        ("number", "changes", "expected"),
        [
            ("4242424242424241", {}, "INVALID_CARD"),
            ("4242 4242 4242 4242", {}, "INVALID_CARD"),
            (APPROVED, {"expiryYear": 2020}, "INVALID_CARD"),
            (APPROVED, {"cvv": "1234"}, "INVALID_CARD"),
            ("42424242", {}, "INVALID_REQUEST"),
            (APPROVED, {"expiryMonth": 13}, "INVALID_REQUEST"),
            (APPROVED, {"name": "extra"}, "INVALID_REQUEST"),
        ],
    )
    async def test_invalid_card_gets_no_token_and_is_not_echoed(
        self, merchant: Merchant, number: str, changes: dict[str, Any], expected: str
    ) -> None:
        refused = await merchant.tokenize(number, **changes)
        assert (refused.status_code, code(refused)) == (422, expected)
        assert number not in refused.text
        assert "1234" not in refused.text

    @pytest.mark.parametrize("changes", [{"amount": "0.00"}, {"amount": "-1"}, {"amount": "1e3"}, {"currency": "rub"}])
    async def test_invalid_order_is_not_authorized(self, merchant: Merchant, key: str, changes: dict[str, Any]) -> None:
        token = await merchant.token(APPROVED)
        assert code(await merchant.authorize(token, key, **changes)) == "INVALID_REQUEST"
        assert (await merchant.authorize(token, key)).status_code == 201, "the invalid request has used the key"

    async def test_unknown_token_is_refused(self, merchant: Merchant, key: str) -> None:
        refused = await merchant.authorize("tok_unknown", key)
        assert (refused.status_code, code(refused)) == (422, "UNKNOWN_TOKEN")

    async def test_unknown_payment_is_not_found(self, merchant: Merchant, key: str) -> None:
        assert (await merchant.http.get("/v1/payments/pay_unknown")).status_code == 404
        for step in ("capture", "void", "refund"):
            assert (await merchant.change(step, "pay_unknown", key)).status_code == 404

    async def test_incomplete_request_is_invalid(self, merchant: Merchant) -> None:
        assert code(await merchant.http.post("/v1/payments/pay_unknown/capture")) == "INVALID_REQUEST"
        assert code(await merchant.http.post("/v1/payments", content=b"{")) == "INVALID_REQUEST"
        assert code(await merchant.http.post("/v1/cancellations", json={"idempotencyKey": "a b"})) == "INVALID_REQUEST"
        assert code(await merchant.http.get("/v1/payments", params={"limit": 0})) == "INVALID_REQUEST"

    async def test_missing_api_key_is_unauthorized(self, merchant: Merchant) -> None:
        stranger = Merchant(str(merchant.http.base_url), headers={})
        async with stranger.http:
            for response in (
                await stranger.tokenize(APPROVED),
                await stranger.authorize("tok_unknown", "key"),
                await stranger.http.get("/v1/payments"),
                await stranger.http.get("/v1/payments/pay_unknown"),
                await stranger.change("capture", "pay_unknown", "key"),
                await stranger.cancel("key"),
            ):
                assert (response.status_code, code(response)) == (401, "UNAUTHORIZED")


class TestFailures:
    async def test_random_failures_lose_no_retried_payment(self, tmp_path: Path) -> None:
        async with running(tmp_path, sandbox_failure_rate=0.5, sandbox_seed=4) as merchant:
            statuses: list[int] = []

            async def retry_until_created(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
                while True:
                    response = await call()
                    statuses.append(response.status_code)
                    if response.status_code == 201:
                        return response

            token = (await retry_until_created(partial(merchant.tokenize, APPROVED))).json()["token"]
            for n in range(20):
                await retry_until_created(partial(merchant.authorize, token, f"key-{n}"))
            assert statuses.count(503) > 5
        async with running(tmp_path) as merchant:
            created = (await merchant.http.get("/v1/payments")).json()["payments"]
            assert [payment["idempotencyKey"] for payment in created] == [f"key-{n}" for n in range(20)]
