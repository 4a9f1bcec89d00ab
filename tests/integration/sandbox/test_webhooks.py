import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.cards import CARDS
from tests.integration.sandbox.running import APPROVED, Listener, Merchant, running
from tests.waiting import until

NUMBERS = {behaviour.name: number for number, behaviour in CARDS.items()}


@pytest.fixture
async def told(listener: Listener, tmp_path: Path) -> AsyncIterator[Merchant]:
    """A merchant who is told of changes."""
    async with (
        listener.listening(),
        running(tmp_path, sandbox_webhook_url=listener.url, sandbox_late_seconds=0.5) as merchant,
    ):
        yield merchant


class TestDelivery:
    async def test_each_change_is_told_signed_and_as_it_was_then(self, told: Merchant, listener: Listener) -> None:
        authorized = await told.paid(APPROVED)
        taken = (await told.change("capture", authorized["id"], "c")).json()
        await listener.until_told(authorized["id"], "AUTHORIZED", "CAPTURED")
        assert [event["payment"] for event in listener.events] == [authorized, taken]
        assert [event["type"] for event in listener.events] == ["payment.authorized", "payment.captured"]
        assert len({event["id"] for event in listener.events}) == 2

    async def test_so_are_declines_voids_refunds_and_cancellations(self, told: Merchant, listener: Listener) -> None:
        declined = await told.paid(NUMBERS["decline-do-not-honor"])
        voided = await told.paid(APPROVED, "void")
        refunded = await told.paid(APPROVED, "capture", "refund")
        cancelled = (await told.authorize(await told.token(APPROVED), "key")).json()
        await told.cancel("key")
        await listener.until_told(declined["id"], "DECLINED")
        await listener.until_told(voided["id"], "AUTHORIZED", "VOIDED")
        await listener.until_told(refunded["id"], "AUTHORIZED", "CAPTURED", "REFUNDED")
        await listener.until_told(cancelled["id"], "AUTHORIZED", "VOIDED")

    async def test_a_replay_is_no_change(self, told: Merchant, listener: Listener) -> None:
        token = await told.token(APPROVED)
        for _ in range(3):
            paid = (await told.authorize(token, "key")).json()
        for _ in range(3):
            await told.change("capture", paid["id"], "c")
        last = await told.paid(APPROVED)
        await listener.until_told(last["id"], "AUTHORIZED")
        assert listener.told(paid["id"]) == ["AUTHORIZED", "CAPTURED"]

    async def test_what_is_not_taken_comes_again(self, told: Merchant, listener: Listener) -> None:
        listener.statuses += [500, 302, 404]
        paid = await told.paid(APPROVED)
        await listener.until_told(paid["id"], *["AUTHORIZED"] * 4)
        assert len({event["id"] for event in listener.events}) == 1

    async def test_a_listener_who_is_away_is_told_when_it_comes(self, listener: Listener, tmp_path: Path) -> None:
        async with running(tmp_path, sandbox_webhook_url=listener.url) as merchant:
            paid = await merchant.paid(APPROVED, "capture")
            async with listener.listening():

                async def has_both() -> bool:
                    return set(listener.told(paid["id"])) == {"AUTHORIZED", "CAPTURED"}

                await until(has_both, every=0.01)


class TestCards:
    async def test_twice(self, told: Merchant, listener: Listener) -> None:
        paid = await told.paid(NUMBERS["webhooks-twice"])
        await listener.until_told(paid["id"], "AUTHORIZED", "AUTHORIZED")
        assert len({event["id"] for event in listener.events}) == 1
        assert (await told.change("capture", paid["id"], uuid.uuid4().hex)).status_code == 200
        await listener.until_told(paid["id"], "AUTHORIZED", "AUTHORIZED", "CAPTURED", "CAPTURED")

    async def test_reversed(self, told: Merchant, listener: Listener) -> None:
        paid = await told.paid(NUMBERS["webhooks-reversed"], "capture", "refund")
        await listener.until_told(paid["id"], "REFUNDED", "CAPTURED", "AUTHORIZED")

    async def test_late(self, told: Merchant, listener: Listener) -> None:
        late = await told.paid(NUMBERS["webhooks-late"])
        prompt = await told.paid(APPROVED)
        await listener.until_told(late["id"], "AUTHORIZED")
        assert [event["payment"]["id"] for event in listener.events] == [prompt["id"], late["id"]]
