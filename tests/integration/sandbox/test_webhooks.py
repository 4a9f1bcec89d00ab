import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.cards import CARDS
from tests.integration.sandbox.running import APPROVED, Listener, Merchant, running
from tests.waiting import until

NUMBERS = {behaviour.name: number for number, behaviour in CARDS.items()}


@pytest.fixture
async def notified(listener: Listener, tmp_path: Path) -> AsyncIterator[Merchant]:
    """Client of a sandbox that sends webhooks."""
    async with (
        listener.listening(),
        running(tmp_path, sandbox_webhook_url=listener.url, sandbox_late_seconds=0.5) as merchant,
    ):
        yield merchant


class TestDelivery:
    async def test_each_change_sends_a_signed_webhook(self, notified: Merchant, listener: Listener) -> None:
        authorized = await notified.create_payment(APPROVED)
        taken = (await notified.change("capture", authorized["id"], "c")).json()
        await listener.wait_for_statuses(authorized["id"], "AUTHORIZED", "CAPTURED")
        assert [event["payment"] for event in listener.events] == [authorized, taken]
        assert [event["type"] for event in listener.events] == ["payment.authorized", "payment.captured"]
        assert len({event["id"] for event in listener.events}) == 2

    async def test_declines_voids_refunds_and_cancellations_send_webhooks(
        self, notified: Merchant, listener: Listener
    ) -> None:
        declined = await notified.create_payment(NUMBERS["decline-do-not-honor"])
        voided = await notified.create_payment(APPROVED, "void")
        refunded = await notified.create_payment(APPROVED, "capture", "refund")
        cancelled = (await notified.authorize(await notified.token(APPROVED), "key")).json()
        await notified.cancel("key")
        await listener.wait_for_statuses(declined["id"], "DECLINED")
        await listener.wait_for_statuses(voided["id"], "AUTHORIZED", "VOIDED")
        await listener.wait_for_statuses(refunded["id"], "AUTHORIZED", "CAPTURED", "REFUNDED")
        await listener.wait_for_statuses(cancelled["id"], "AUTHORIZED", "VOIDED")

    async def test_repeated_request_sends_no_webhook(self, notified: Merchant, listener: Listener) -> None:
        token = await notified.token(APPROVED)
        for _ in range(3):
            paid = (await notified.authorize(token, "key")).json()
        for _ in range(3):
            await notified.change("capture", paid["id"], "c")
        last = await notified.create_payment(APPROVED)
        await listener.wait_for_statuses(last["id"], "AUTHORIZED")
        assert listener.received_statuses(paid["id"]) == ["AUTHORIZED", "CAPTURED"]

    async def test_refused_webhook_is_sent_again(self, notified: Merchant, listener: Listener) -> None:
        listener.statuses += [500, 302, 404]
        paid = await notified.create_payment(APPROVED)
        await listener.wait_for_statuses(paid["id"], *["AUTHORIZED"] * 4)
        assert len({event["id"] for event in listener.events}) == 1

    async def test_webhooks_are_delivered_when_the_listener_starts(self, listener: Listener, tmp_path: Path) -> None:
        async with running(tmp_path, sandbox_webhook_url=listener.url) as merchant:
            paid = await merchant.create_payment(APPROVED, "capture")
            async with listener.listening():

                async def have_both_arrived() -> bool:
                    return set(listener.received_statuses(paid["id"])) == {"AUTHORIZED", "CAPTURED"}

                await until(have_both_arrived, every=0.01)


class TestCards:
    async def test_doubling_card_sends_each_webhook_twice(self, notified: Merchant, listener: Listener) -> None:
        paid = await notified.create_payment(NUMBERS["webhooks-twice"])
        await listener.wait_for_statuses(paid["id"], "AUTHORIZED", "AUTHORIZED")
        assert len({event["id"] for event in listener.events}) == 1
        assert (await notified.change("capture", paid["id"], uuid.uuid4().hex)).status_code == 200
        await listener.wait_for_statuses(paid["id"], "AUTHORIZED", "AUTHORIZED", "CAPTURED", "CAPTURED")

    async def test_reversing_card_sends_the_newest_webhook_first(self, notified: Merchant, listener: Listener) -> None:
        paid = await notified.create_payment(NUMBERS["webhooks-reversed"], "capture", "refund")
        await listener.wait_for_statuses(paid["id"], "REFUNDED", "CAPTURED", "AUTHORIZED")

    async def test_late_card_sends_its_webhooks_after_a_delay(self, notified: Merchant, listener: Listener) -> None:
        late = await notified.create_payment(NUMBERS["webhooks-late"])
        prompt = await notified.create_payment(APPROVED)
        await listener.wait_for_statuses(late["id"], "AUTHORIZED")
        assert [event["payment"]["id"] for event in listener.events] == [prompt["id"], late["id"]]
