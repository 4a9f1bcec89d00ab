"""Behaviour of each test card over HTTP."""

import asyncio
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.acquirer import Acquirer, WaitForDisconnect
from sandbox.cards import CARDS
from tests.integration.sandbox.running import Merchant, code, running

NUMBERS = {behaviour.name: number for number, behaviour in CARDS.items() if behaviour.name != "approve"}


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


_is_withheld = asyncio.Event()
"""Set when the sandbox withholds the response to a request."""


@pytest.fixture(autouse=True)
def _signal_withheld_response(monkeypatch: pytest.MonkeyPatch) -> None:
    withhold_answer = Acquirer._withhold_answer

    async def signal_and_withhold(self: Acquirer, wait_for_disconnect: WaitForDisconnect) -> None:
        _is_withheld.set()
        await withhold_answer(self, wait_for_disconnect)

    monkeypatch.setattr(Acquirer, "_withhold_answer", signal_and_withhold)


async def send_and_disconnect(request: Coroutine[Any, Any, httpx.Response]) -> None:
    """Send a request that gets no response, and disconnect as soon as the sandbox has processed the request."""
    _is_withheld.clear()
    sent, withheld = asyncio.create_task(request), asyncio.create_task(_is_withheld.wait())
    await asyncio.wait({sent, withheld}, return_when=asyncio.FIRST_COMPLETED)
    assert not sent.done(), "the sandbox responded"
    sent.cancel()
    with suppress(asyncio.CancelledError):
        await sent


async def authorize_and_disconnect(merchant: Merchant, token: str, key: str) -> None:
    await send_and_disconnect(merchant.authorize(token, key))


class TestApprove:
    @pytest.mark.parametrize(
        ("number", "brand"),
        [
            ("4242424242424242", "VISA"),
            ("5555555555554444", "MASTERCARD"),
            ("2200000000000004", "MIR"),
            ("378282246310005", "AMEX"),
            ("6200000000000005", "UNIONPAY"),
            ("6011111111111117", "OTHER"),
        ],
    )
    async def test_payment_is_authorized_captured_and_refunded(
        self, merchant: Merchant, number: str, brand: str
    ) -> None:
        token = (await merchant.tokenize(number, cvv="1234" if brand == "AMEX" else "123")).json()
        assert (token["brand"], token["lastFour"]) == (brand, number[-4:])

        paid = await merchant.create_payment(number)
        assert (paid["status"], paid["captured"], paid["refunded"]) == ("AUTHORIZED", "0", "0")
        assert (paid["amount"], paid["currency"], paid["reference"]) == ("10.00", "RUB", "top-up")
        taken = (await merchant.change("capture", paid["id"], f"c-{paid['id']}")).json()
        assert (taken["status"], taken["captured"], taken["refunded"]) == ("CAPTURED", "10.00", "0")
        refunded = (await merchant.change("refund", paid["id"], f"r-{paid['id']}")).json()
        assert (refunded["status"], refunded["captured"], refunded["refunded"]) == ("REFUNDED", "10.00", "10.00")
        assert refunded == await merchant.payment(paid["id"])

    async def test_authorized_payment_can_be_voided(self, merchant: Merchant) -> None:
        voided = await merchant.create_payment("4242424242424242", "void")
        assert (voided["status"], voided["captured"]) == ("VOIDED", "0")


class TestDecline:
    @pytest.mark.parametrize("reason", ["DO_NOT_HONOR", "INSUFFICIENT_FUNDS", "EXPIRED_CARD", "STOLEN_CARD"])
    async def test_decline_is_final(self, merchant: Merchant, key: str, reason: str) -> None:
        token = await merchant.token(NUMBERS["decline-" + reason.lower().replace("_", "-")])

        declined = await merchant.authorize(token, key)

        assert (declined.status_code, declined.json()["status"]) == (201, "DECLINED")
        assert declined.json()["declineCode"] == reason
        assert (await merchant.authorize(token, key)).json() == declined.json()
        assert await merchant.find_payments(key) == [declined.json()]
        assert code(await merchant.change("capture", declined.json()["id"], f"{key}:c")) == "WRONG_STATUS"


class TestAuthorizationFaults:
    async def test_timeout_before_authorization_creates_no_payment(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-timeout-before"])
        for _ in range(2):
            await authorize_and_disconnect(merchant, token, key)
            await merchant.wait_until_free(key)
        assert await merchant.find_payments(key) == []

    async def test_payment_whose_authorization_timed_out_is_found_by_key(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-timeout-after"])
        for _ in range(2):
            await authorize_and_disconnect(merchant, token, key)
            await merchant.wait_until_free(key)
        (found,) = await merchant.find_payments(key)
        assert (await merchant.change("capture", found["id"], f"{key}:c")).json()["status"] == "CAPTURED"

    async def test_late_authorization_happens_after_the_disconnect(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-late"])
        await authorize_and_disconnect(merchant, token, key)
        assert await merchant.find_payments(key) == []
        assert code(await merchant.authorize(token, key)) == "KEY_IN_USE"
        await merchant.wait_until_free(key)
        (found,) = await merchant.find_payments(key)
        assert found["status"] == "AUTHORIZED"

    async def test_cancelled_key_prevents_a_late_authorization(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-late"])
        await authorize_and_disconnect(merchant, token, key)
        assert (await merchant.cancel(key)).json() == {"idempotencyKey": key, "payment": None}
        await merchant.wait_until_free(key)
        assert await merchant.find_payments(key) == []

    async def test_authorization_is_503_twice_then_approved(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-503-twice"])
        responses = [await merchant.authorize(token, key) for _ in range(3)]
        assert [response.status_code for response in responses] == [503, 503, 201]
        assert (await merchant.authorize(token, f"{key}-other")).status_code == 503

    async def test_authorization_is_always_503(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-503"])
        assert {(await merchant.authorize(token, key)).status_code for _ in range(5)} == {503}
        assert await merchant.find_payments(key) == []


class TestLaterStepFaults:
    async def status_after_disconnect(self, merchant: Merchant, step: str, payment_id: str, key: str) -> str:
        """Send a request that gets no response, disconnect, and return the payment's status."""
        await send_and_disconnect(merchant.change(step, payment_id, key))
        await merchant.wait_until_free(key)
        status: str = (await merchant.payment(payment_id))["status"]
        return status

    @pytest.mark.parametrize(
        ("behaviour", "before", "step", "meanwhile", "after"),
        [
            ("capture-timeout-before", (), "capture", "AUTHORIZED", "CAPTURED"),
            ("capture-timeout-after", (), "capture", "CAPTURED", "CAPTURED"),
            ("void-timeout-after", (), "void", "VOIDED", "VOIDED"),
            ("refund-timeout-after", ("capture",), "refund", "REFUNDED", "REFUNDED"),
        ],
    )
    async def test_first_request_times_out_and_the_retry_succeeds(
        self, merchant: Merchant, key: str, behaviour: str, before: tuple[str], step: str, meanwhile: str, after: str
    ) -> None:
        paid = await merchant.create_payment(NUMBERS[behaviour], *before)
        assert await self.status_after_disconnect(merchant, step, paid["id"], key) == meanwhile
        again = await merchant.change(step, paid["id"], key)
        assert (again.status_code, again.json()["status"]) == (200, after)

    async def test_capture_is_503_twice_then_captured(self, merchant: Merchant, key: str) -> None:
        paid = await merchant.create_payment(NUMBERS["capture-503-twice"])
        responses = [await merchant.change("capture", paid["id"], key) for _ in range(3)]
        assert [response.status_code for response in responses] == [503, 503, 200]

    @pytest.mark.parametrize("behaviour", ["capture-refused", "void-timeout-after"])
    async def test_capture_is_refused_permanently(self, merchant: Merchant, key: str, behaviour: str) -> None:
        paid = await merchant.create_payment(NUMBERS[behaviour])
        for each in (key, key, f"{key}-other"):
            refused = await merchant.change("capture", paid["id"], each)
            assert (refused.status_code, refused.json()["code"], refused.json()["payment"]) == (409, "REFUSED", paid)

    async def test_payment_with_refused_capture_can_be_voided(self, merchant: Merchant, key: str) -> None:
        paid = await merchant.create_payment(NUMBERS["capture-refused"])
        assert (await merchant.change("void", paid["id"], key)).json()["status"] == "VOIDED"

    async def test_refund_is_refused_permanently(self, merchant: Merchant, key: str) -> None:
        taken = await merchant.create_payment(NUMBERS["refund-refused"], "capture")
        refused = await merchant.change("refund", taken["id"], key)
        assert (refused.status_code, refused.json()["code"], refused.json()["payment"]) == (409, "REFUSED", taken)


class TestTimeout:
    async def test_simulated_timeout_ends_with_503(self, tmp_path: Path, key: str) -> None:
        async with running(tmp_path, sandbox_timeout_seconds=0.05) as merchant:
            for behaviour in ("authorize-timeout-before", "authorize-timeout-after"):
                response = await merchant.authorize(await merchant.token(NUMBERS[behaviour]), f"{key}-{behaviour}")
                assert (response.status_code, code(response)) == (503, "UNAVAILABLE")
