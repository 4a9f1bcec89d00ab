"""Webhooks: signed or forged, repeated, late and in any order. They never move money."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client import REGISTRY
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from subgraphs.card.client import TopUp
from tests.integration.bank.harness import rub
from tests.integration.card.card_process import RunningCard
from tests.integration.sandbox.running import SECRET
from tests.logs import own_warnings
from tests.waiting import until

SENT_TWICE, REVERSED, LATE = "4000000000050015", "4000000000050023", "4000000000050031"


def event_body(payment: dict[str, Any], kind: str) -> bytes:
    body = {
        "id": f"evt_{uuid.uuid4().hex}",
        "type": f"payment.{kind}",
        "createdAt": datetime.now(UTC).isoformat(),
        "payment": payment,
    }
    return orjson.dumps(body)


def signed_headers(
    body: bytes, secret: str = SECRET, at: datetime | None = None, id_: str | None = None
) -> dict[str, str]:
    at, id_ = at or datetime.now(UTC), id_ or uuid.uuid4().hex
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, at, body.decode()),
    }


async def post(card: RunningCard, body: bytes, headers: dict[str, str], query: str = "") -> int:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return (await http.post(card.webhooks + query, content=body, headers=headers)).status_code


async def row(card: RunningCard, top_up: TopUp) -> dict[str, Any]:
    record = await card.sql.fetchrow("SELECT * FROM top_ups WHERE id = $1", top_up.id)
    assert record is not None
    return dict(record)


@pytest.fixture
async def top_up(card: RunningCard) -> TopUp:
    """Completed top-up, after all its webhooks have arrived."""
    top_up = await card.top_up(await card.bank.open("alice", "0"), rub("1"), uuid.uuid4().hex)
    assert top_up.status == "COMPLETED"
    await wait_for_webhooks(card, top_up, 2)
    return top_up


async def wait_for_webhooks(card: RunningCard, top_up: TopUp, number: int) -> None:
    query = "SELECT count(*) = $2 FROM webhooks WHERE top_up_id = $1"
    await until(lambda: card.sql.fetchval(query, top_up.id, number), every=0.02)


async def get_payment(card: RunningCard, top_up: TopUp) -> dict[str, Any]:
    payment = await card.payment(top_up.id)
    assert payment is not None
    return payment


class TestRefusedWebhooks:
    @pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    async def test_webhook_with_an_invalid_header_is_refused(
        self, card: RunningCard, top_up: TopUp, header: str
    ) -> None:
        body, before = event_body(await get_payment(card, top_up), "refunded"), await row(card, top_up)
        headers = signed_headers(body)
        for value in (None, "x", "v1", "v1,x", "1", "999999999999999999"):
            wrong = {name: text for name, text in headers.items() if name != header}
            wrong |= {} if value is None else {header: value}
            assert await post(card, body, wrong) == 401
        assert await row(card, top_up) == before
        assert await card.sql.fetchval("SELECT count(*) FROM webhooks WHERE id = $1", headers["webhook-id"]) == 0

    async def test_webhook_with_another_secret_changed_body_or_old_time_is_refused(
        self, card: RunningCard, top_up: TopUp
    ) -> None:
        body = event_body(await get_payment(card, top_up), "refunded")
        before = await row(card, top_up)
        assert await post(card, body, signed_headers(body, "whsec_" + "AAAA" * 8)) == 401
        assert await post(card, body + b" ", signed_headers(body)) == 401
        assert await post(card, b"\xff", signed_headers(body)) == 401
        assert await post(card, body, signed_headers(body, at=datetime.now(UTC) - timedelta(minutes=6))) == 401
        assert await row(card, top_up) == before

    async def test_body_above_the_maximum_size_is_refused(self, card: RunningCard) -> None:
        assert await post(card, b" " * 70_000, {}) == 413

    async def test_sender_that_disconnects_within_the_body_causes_no_warning(
        self, card: RunningCard, caplog: pytest.LogCaptureFixture
    ) -> None:
        def count() -> float:
            return REGISTRY.get_sample_value("wallet_card_webhooks_total", {"outcome": "incomplete"}) or 0.0

        before = count()
        address = httpx.URL(card.webhooks)
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(f"POST {address.path} HTTP/1.1\r\nhost: card\r\ncontent-length: 9\r\n\r\nhalf".encode())
        await writer.drain()
        writer.close()

        async def is_counted() -> bool:
            return count() == before + 1

        await until(is_counted)
        assert own_warnings([], caplog.records) == []

    async def test_unreadable_body_is_refused(self, card: RunningCard) -> None:
        for body in (b"", b"{}", b"[1]"):
            assert await post(card, body, signed_headers(body)) == 400


class TestSignedWebhooks:
    async def test_false_webhook_does_not_change_a_final_top_up(self, card: RunningCard, top_up: TopUp) -> None:
        body = event_body(await get_payment(card, top_up), "refunded")
        assert await post(card, body, signed_headers(body)) == 204

        async def is_verified() -> bool:
            now = await row(card, top_up)
            return now["version"] > top_up.version and now["next_attempt_at"] is None

        await until(is_verified, every=0.02)
        now = await row(card, top_up)
        assert (now["status"], now["review"]) == ("COMPLETED", None)
        await card.assert_books_agree(top_up)

    async def test_webhook_without_news_does_not_change_the_top_up(self, card: RunningCard, top_up: TopUp) -> None:
        before, payment = await row(card, top_up), await get_payment(card, top_up)
        for kind in ("captured", "authorized"):
            body = event_body(payment, kind)
            assert await post(card, body, signed_headers(body)) == 204
        assert await row(card, top_up) == before

    async def test_query_parameters_of_the_acquirer_are_ignored(self, card: RunningCard, top_up: TopUp) -> None:
        body = event_body(await get_payment(card, top_up), "captured")
        assert await post(card, body, signed_headers(body), query="?qqqq=1") == 204

    async def test_repeated_webhook_is_stored_once(self, card: RunningCard, top_up: TopUp) -> None:
        body = event_body(await get_payment(card, top_up), "captured")
        headers = signed_headers(body, id_=uuid.uuid4().hex)
        assert [await post(card, body, headers) for _ in range(3)] == [204] * 3
        query = "SELECT count(*) FROM webhooks WHERE id = $1"
        assert await card.sql.fetchval(query, headers["webhook-id"]) == 1

    async def test_webhook_for_an_unknown_payment_is_stored_and_logged_once(
        self, card: RunningCard, top_up: TopUp
    ) -> None:
        payment, before = await get_payment(card, top_up), await row(card, top_up)
        unknown = uuid.uuid4()
        for key, top_up_id in (("unknown", None), (f"{unknown}:authorize", unknown)):
            body = event_body({**payment, "idempotencyKey": key}, "captured")
            headers = signed_headers(body)
            with capture_logs() as logs:
                assert [await post(card, body, headers) for _ in range(2)] == [204] * 2
            unknown_ids = [each["webhook_id"] for each in logs if each["event"] == "webhook for an unknown payment"]
            assert unknown_ids == [headers["webhook-id"]]
            stored = await card.sql.fetchrow("SELECT * FROM webhooks WHERE id = $1", headers["webhook-id"])
            assert stored is not None
            assert (stored["type"], stored["top_up_id"]) == ("payment.captured", top_up_id)
        assert await card.sql.fetchval("SELECT count(*) FROM top_ups WHERE id = $1", unknown) == 0
        assert await row(card, top_up) == before


class TestDelivery:
    @pytest.mark.parametrize("number", [SENT_TWICE, REVERSED, LATE], ids=["twice", "reversed", "late"])
    async def test_top_up_survives_repeated_reversed_and_late_webhooks(self, card: RunningCard, number: str) -> None:
        top_up = await card.top_up(await card.bank.open("alice", "0"), rub("1"), uuid.uuid4().hex, number)
        assert top_up.status == "COMPLETED"
        await wait_for_webhooks(card, top_up, 2)
        await card.assert_books_agree(await card.wait_until_final(top_up.id))
        assert (await row(card, top_up))["review"] is None

    async def test_webhook_makes_a_waiting_top_up_due(self, card: RunningCard) -> None:
        top_up = await card.top_up(await card.bank.open("alice", "0"), rub("1"), uuid.uuid4().hex, "4000000000000002")
        await card.sql.execute(
            """
            INSERT INTO top_ups (id, principal, idempotency_key, fingerprint, owner_id, account_id, amount, currency,
                                 card_token, card_brand, card_last_four, step, attempts, next_attempt_at)
            SELECT $2, principal, $3, fingerprint, owner_id, account_id, amount, currency, card_token, card_brand,
                   card_last_four, 'RESOLVE', 9, now() + interval '30 seconds' FROM top_ups WHERE id = $1
            """,
            top_up.id,
            waiting := uuid.uuid4(),
            uuid.uuid4().hex,
        )
        payment = await get_payment(card, top_up)
        body = event_body({**payment, "idempotencyKey": f"{waiting}:authorize"}, "declined")
        assert await post(card, body, signed_headers(body)) == 204
        ended = await card.wait_until_final(waiting)
        assert (ended.status, ended.failure) == (
            "VOIDED",
            "AUTHORIZATION_UNKNOWN",
        )  # not DECLINED, because the service does not trust the webhook
