"""What each test card does, over real HTTP."""

import uuid
from pathlib import Path

import httpx
import pytest

from sandbox.cards import CARDS
from tests.integration.sandbox.running import Merchant, code, running

IMPATIENT = 0.1
"""How many seconds a merchant waits who knows that there will be silence."""

NUMBERS = {behaviour.name: number for number, behaviour in CARDS.items() if behaviour.name != "approve"}


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


async def give_up_on_authorizing(merchant: Merchant, token: str, key: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await merchant.authorize(token, key, patience=IMPATIENT)


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
    async def test_a_payment_goes_all_the_way(self, merchant: Merchant, number: str, brand: str) -> None:
        token = (await merchant.tokenize(number, cvv="1234" if brand == "AMEX" else "123")).json()
        assert (token["brand"], token["lastFour"]) == (brand, number[-4:])

        paid = await merchant.paid(number)
        assert (paid["status"], paid["captured"], paid["refunded"]) == ("AUTHORIZED", "0", "0")
        assert (paid["amount"], paid["currency"], paid["reference"]) == ("10.00", "RUB", "top-up")
        taken = (await merchant.change("capture", paid["id"], f"c-{paid['id']}")).json()
        assert (taken["status"], taken["captured"], taken["refunded"]) == ("CAPTURED", "10.00", "0")
        given_back = (await merchant.change("refund", paid["id"], f"r-{paid['id']}")).json()
        assert (given_back["status"], given_back["captured"], given_back["refunded"]) == ("REFUNDED", "10.00", "10.00")
        assert given_back == await merchant.payment(paid["id"])

    async def test_what_is_held_can_be_let_go(self, merchant: Merchant) -> None:
        voided = await merchant.paid("4242424242424242", "void")
        assert (voided["status"], voided["captured"]) == ("VOIDED", "0")


class TestDecline:
    @pytest.mark.parametrize("reason", ["DO_NOT_HONOR", "INSUFFICIENT_FUNDS", "EXPIRED_CARD", "STOLEN_CARD"])
    async def test_is_an_outcome_and_stays_one(self, merchant: Merchant, key: str, reason: str) -> None:
        token = await merchant.token(NUMBERS["decline-" + reason.lower().replace("_", "-")])

        declined = await merchant.authorize(token, key)

        assert (declined.status_code, declined.json()["status"]) == (201, "DECLINED")
        assert declined.json()["declineCode"] == reason
        assert (await merchant.authorize(token, key)).json() == declined.json()
        assert await merchant.authorized_by(key) == [declined.json()]
        assert code(await merchant.change("capture", declined.json()["id"], f"{key}:c")) == "WRONG_STATUS"


class TestAuthorizationInTrouble:
    async def test_silence_before_charging_never_comes_to_be(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-timeout-before"])
        for _ in range(2):
            await give_up_on_authorizing(merchant, token, key)
            await merchant.until_free(key)
        assert await merchant.authorized_by(key) == []

    async def test_silence_after_charging_is_known_to_the_lookup_alone(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-timeout-after"])
        for _ in range(2):
            await give_up_on_authorizing(merchant, token, key)
            await merchant.until_free(key)
        (found,) = await merchant.authorized_by(key)
        assert (await merchant.change("capture", found["id"], f"{key}:c")).json()["status"] == "CAPTURED"

    async def test_a_late_one_comes_to_be_after_it_was_given_up(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-late"])
        await give_up_on_authorizing(merchant, token, key)
        assert await merchant.authorized_by(key) == []
        assert code(await merchant.authorize(token, key)) == "KEY_IN_USE"
        await merchant.until_free(key)
        (found,) = await merchant.authorized_by(key)
        assert found["status"] == "AUTHORIZED"

    async def test_a_late_one_is_barred_by_cancelling_its_key(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-late"])
        await give_up_on_authorizing(merchant, token, key)
        assert (await merchant.cancel(key)).json() == {"idempotencyKey": key, "payment": None}
        await merchant.until_free(key)
        assert await merchant.authorized_by(key) == []

    async def test_503_twice_then_approved(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-503-twice"])
        answers = [await merchant.authorize(token, key) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 201]
        assert (await merchant.authorize(token, f"{key}-other")).status_code == 503

    async def test_503_always(self, merchant: Merchant, key: str) -> None:
        token = await merchant.token(NUMBERS["authorize-503"])
        assert {(await merchant.authorize(token, key)).status_code for _ in range(5)} == {503}
        assert await merchant.authorized_by(key) == []


class TestLaterStepsInTrouble:
    async def give_up_on(self, merchant: Merchant, step: str, payment_id: str, key: str) -> str:
        """The status after the silence."""
        with pytest.raises(httpx.ReadTimeout):
            await merchant.change(step, payment_id, key, patience=IMPATIENT)
        await merchant.until_free(key)
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
    async def test_the_first_is_silence_and_the_same_key_again_an_answer(
        self, merchant: Merchant, key: str, behaviour: str, before: tuple[str], step: str, meanwhile: str, after: str
    ) -> None:
        paid = await merchant.paid(NUMBERS[behaviour], *before)
        assert await self.give_up_on(merchant, step, paid["id"], key) == meanwhile
        again = await merchant.change(step, paid["id"], key)
        assert (again.status_code, again.json()["status"]) == (200, after)

    async def test_a_capture_is_503_twice_then_done(self, merchant: Merchant, key: str) -> None:
        paid = await merchant.paid(NUMBERS["capture-503-twice"])
        answers = [await merchant.change("capture", paid["id"], key) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 200]

    @pytest.mark.parametrize("behaviour", ["capture-refused", "void-timeout-after"])
    async def test_a_capture_is_refused_for_good(self, merchant: Merchant, key: str, behaviour: str) -> None:
        paid = await merchant.paid(NUMBERS[behaviour])
        for each in (key, key, f"{key}-other"):
            refused = await merchant.change("capture", paid["id"], each)
            assert (refused.status_code, refused.json()["code"], refused.json()["payment"]) == (409, "REFUSED", paid)

    async def test_what_cannot_be_captured_can_be_voided(self, merchant: Merchant, key: str) -> None:
        paid = await merchant.paid(NUMBERS["capture-refused"])
        assert (await merchant.change("void", paid["id"], key)).json()["status"] == "VOIDED"

    async def test_a_refund_is_refused_for_good(self, merchant: Merchant, key: str) -> None:
        taken = await merchant.paid(NUMBERS["refund-refused"], "capture")
        refused = await merchant.change("refund", taken["id"], key)
        assert (refused.status_code, refused.json()["code"], refused.json()["payment"]) == (409, "REFUSED", taken)


class TestSilence:
    async def test_ends_in_503_for_whoever_waits_long_enough(self, tmp_path: Path, key: str) -> None:
        async with running(tmp_path, sandbox_timeout_seconds=0.05) as merchant:
            for behaviour in ("authorize-timeout-before", "authorize-timeout-after"):
                answer = await merchant.authorize(await merchant.token(NUMBERS[behaviour]), f"{key}-{behaviour}")
                assert (answer.status_code, code(answer)) == (503, "UNAVAILABLE")
