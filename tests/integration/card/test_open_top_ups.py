"""Metrics of the top-ups that are in progress or need a review."""

from dataclasses import replace
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from kit.runtime.process import background_task
from subgraphs.card.service.application import saga
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.top_up import Status
from tests.integration.card.environment import CardEnvironment
from tests.waiting import until

REFUND_REFUSED = "4000000000040024"


def open_top_ups() -> dict[str, float]:
    """Return the gauges that are not 0: the numbers of open top-ups by status, and of top-ups that need a review."""
    gauges = {
        status: REGISTRY.get_sample_value("wallet_card_top_ups_open", {"status": status})
        for status in ("CREATED", "AUTHORIZED", "CAPTURED", "NEEDS_REVIEW")
    }
    gauges["to review"] = REGISTRY.get_sample_value("wallet_card_top_ups_to_review")
    return {name: value for name, value in gauges.items() if value}


def oldest_seconds() -> float:
    return REGISTRY.get_sample_value("wallet_card_top_ups_oldest_seconds") or 0.0


async def test_gauges_count_open_top_ups_of_all_replicas(env: CardEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga, "_METRICS_INTERVAL_SECONDS", 0.02)

    async def has_gauges(expected: dict[str, float]) -> bool:
        return open_top_ups() == expected

    async with background_task(env.saga().update_metrics(), "top-up metrics"):
        await until(lambda: has_gauges({}))
        assert oldest_seconds() == 0

        waiting = await env.admit(await env.open_account())
        await until(lambda: has_gauges({"CREATED": 1}))
        await until(lambda: _is_older(0.2))

        ended = await env.finish(await env.admit(await env.open_account()))
        assert ended.status is Status.COMPLETED
        stopped = await env.admit(account := await env.open_account(), number=REFUND_REFUSED)
        env.acquirer.after_call["capture"] = lambda: env.close_account(account)
        assert (await env.finish(stopped)).status is Status.NEEDS_REVIEW
        env.acquirer.after_call.clear()
        await until(lambda: has_gauges({"CREATED": 1, "NEEDS_REVIEW": 1, "to review": 1}))

        await env.finish(waiting)
        await until(lambda: has_gauges({"NEEDS_REVIEW": 1, "to review": 1}))
        assert oldest_seconds() == 0  # a top-up that needs a review is not in progress

        payment = env.acquirer.payments[ended.authorization_key]
        env.acquirer.payments[ended.authorization_key] = replace(payment, status=PaymentStatus.VOIDED)
        await env.repository.record_webhook(uuid4().hex, "payment.voided", ended.id, PaymentStatus.VOIDED)
        await env.finish(ended)
        await until(lambda: has_gauges({"NEEDS_REVIEW": 1, "to review": 2}))


async def _is_older(seconds: float) -> bool:
    return oldest_seconds() > seconds
