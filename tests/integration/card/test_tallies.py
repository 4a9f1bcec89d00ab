"""What is told of the top-ups that are under way or need a person."""

from dataclasses import replace
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from kit.runtime.process import background_task
from subgraphs.card.service.application import saga
from subgraphs.card.service.domain.top_up import PaymentStatus, Status
from tests.integration.card.environment import World
from tests.waiting import until

REFUND_REFUSED = "4000000000040024"


def shown() -> dict[str, float]:
    """The metrics: how many of each status are open, and how many a person has to look at."""
    told = {
        status: REGISTRY.get_sample_value("wallet_card_top_ups_open", {"status": status})
        for status in ("CREATED", "AUTHORIZED", "CAPTURED", "NEEDS_REVIEW")
    }
    told["to review"] = REGISTRY.get_sample_value("wallet_card_top_ups_to_review")
    return {name: value for name, value in told.items() if value}


def oldest() -> float:
    return REGISTRY.get_sample_value("wallet_card_top_ups_oldest_seconds") or 0.0


async def test_what_is_open_is_told_whoever_drives_it(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga, "_MEASURE_SECONDS", 0.02)

    async def are(expected: dict[str, float]) -> bool:
        return shown() == expected

    async with background_task(here.saga().measure(), "tallies"):
        await until(lambda: are({}))
        assert oldest() == 0

        waiting = await here.admitted(await here.open())
        await until(lambda: are({"CREATED": 1}))
        await until(lambda: _is_older(0.2))

        ended = await here.finish(await here.admitted(await here.open()))
        assert ended.status is Status.COMPLETED
        stopped = await here.admitted(account := await here.open(), number=REFUND_REFUSED)
        here.acquirer.then["capture"] = lambda: here.close(account)
        assert (await here.finish(stopped)).status is Status.NEEDS_REVIEW
        here.acquirer.then.clear()
        await until(lambda: are({"CREATED": 1, "NEEDS_REVIEW": 1, "to review": 1}))

        await here.finish(waiting)
        await until(lambda: are({"NEEDS_REVIEW": 1, "to review": 1}))
        assert oldest() == 0  # it waits for a person, and for nobody else

        payment = here.acquirer.books[ended.authorization_key]
        here.acquirer.books[ended.authorization_key] = replace(payment, status=PaymentStatus.VOIDED)
        await here.repository.receive(uuid4().hex, "payment.voided", ended.id, PaymentStatus.VOIDED)
        await here.finish(ended)
        await until(lambda: are({"NEEDS_REVIEW": 1, "to review": 2}))


async def _is_older(seconds: float) -> bool:
    return oldest() > seconds
