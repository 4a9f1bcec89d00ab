"""The process dies between any two calls to the database, the acquirer and the bank, on every path of a top-up."""

import asyncio
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from subgraphs.card.service.application.saga import SagaLimits
from subgraphs.card.service.domain.top_up import Status, TopUp
from tests.integration.card.environment import LIMITS, NO_DELAYS, CardEnvironment, CrashPoint, ProcessDied
from tests.integration.card.environment import VISA as APPROVED
from tests.integration.card.fake_acquirer import Failure

EXPIRED_WINDOW = replace(NO_DELAYS, authorization_window_seconds=-1.0)
EVERY_STEP_SAVED = replace(NO_DELAYS, capture_seconds=0.0)
"""Each step is saved before the next call, as after a slow authorization. With `NO_DELAYS`, a capture follows its
authorization before the save."""


@dataclass(frozen=True)
class Path:
    """Path of a top-up: failures and events that lead to its final status if the process does not die."""

    final_status: Status
    number: str = APPROVED
    failures: tuple[tuple[str, Failure], ...] = ()
    closes_after: str | None = None
    delivered_after: str | None = None

    async def arrange(self, env: CardEnvironment, account: UUID) -> None:
        for method, failure in self.failures:
            env.acquirer.failures[method].append(failure)
        if self.closes_after:
            env.acquirer.after_call[self.closes_after] = lambda: env.close_account(account)
        if self.delivered_after:
            env.acquirer.after_call[self.delivered_after] = lambda: deliver_delayed(env)


async def deliver_delayed(env: CardEnvironment) -> None:
    env.acquirer.deliver_delayed()


PATHS = {
    "completed": Path(Status.COMPLETED),
    "declined": Path(Status.DECLINED, number="4000000000000002"),
    "voided after a refused capture": Path(Status.VOIDED, number="4000000000020042"),
    "voided because the account was closed before the capture": Path(Status.VOIDED, closes_after="authorize"),
    "refunded because the account was closed after the capture": Path(Status.REFUNDED, closes_after="capture"),
    "authorization request lost": Path(Status.VOIDED, failures=(("authorize", Failure.LOST_REQUEST),)),
    "authorization response lost": Path(Status.COMPLETED, failures=(("authorize", Failure.LOST_RESPONSE),)),
    "authorization delivered after the cancellation": Path(
        Status.VOIDED, failures=(("authorize", Failure.DELAYED_REQUEST),), delivered_after="cancel"
    ),
    "authorization delivered between look-up and cancellation": Path(
        Status.VOIDED, failures=(("authorize", Failure.DELAYED_REQUEST),), delivered_after="find_payment"
    ),
    "capture response lost": Path(Status.COMPLETED, failures=(("capture", Failure.LOST_RESPONSE),)),
    "response to the last capture attempt lost": Path(
        Status.REFUNDED, failures=(*((("capture", Failure.LOST_REQUEST),) * 2), ("capture", Failure.LOST_RESPONSE))
    ),
    "refund response lost": Path(
        Status.REFUNDED,
        closes_after="capture",
        failures=(("refund", Failure.LOST_RESPONSE), ("refund", Failure.LOST_REQUEST)),
    ),
}


async def run(env: CardEnvironment, path: Path, crash_point: CrashPoint, limits: SagaLimits) -> TopUp | None:
    """Run one process until its death or until the top-up is not in progress any more; return the stored top-up."""
    account = await env.open_account()
    await path.arrange(env, account)
    new = await env.new_top_up(account, env.money("10.00"), path.number)
    repository, saga = crash_point.wrap(env.repository), env.saga(crash_point, limits)
    try:
        top_up = await repository.admit(new, LIMITS, lease_seconds=0)
        while top_up.is_in_progress:
            top_up = await saga.drive(top_up)
    except ProcessDied:
        pass
    return await env.repository.find_by_key(new.key)


async def die_and_finish(env: CardEnvironment, path: Path, cut: int, old: SagaLimits, new: SagaLimits) -> None:
    """Run a process with the limits `old` that dies after `cut` calls, then finish the top-up in a new process."""
    top_up = await run(env, path, CrashPoint(cut), old)
    assert (top_up is None) == (cut == 0)
    if top_up is not None:
        await env.finish(top_up, new)
        await env.assert_books_agree(top_up)


class TestProcessDeath:
    @pytest.mark.parametrize("limits", [NO_DELAYS, EVERY_STEP_SAVED], ids=["capture before save", "every step saved"])
    @pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
    async def test_new_process_finishes_the_top_up_of_a_process_that_died_at_any_call(
        self, shared_env: CardEnvironment, path: Path, limits: SagaLimits
    ) -> None:
        crash_point, env = CrashPoint(), shared_env.with_new_acquirer()
        top_up = await run(env, path, crash_point, limits)
        assert top_up is not None
        assert (await env.assert_books_agree(top_up)).status is path.final_status
        await asyncio.gather(
            *(
                die_and_finish(shared_env.with_new_acquirer(), path, cut, limits, NO_DELAYS)
                for cut in range(crash_point.calls)
            ),
            # Here the new process starts after the authorization window, in which a card may be authorized. This
            # matters only if the old process died before it saved the authorization's result: before or after the
            # authorization, the check of the account and the capture (after 1 to 4 calls).
            *(
                die_and_finish(shared_env.with_new_acquirer(), path, cut, limits, EXPIRED_WINDOW)
                for cut in range(1, min(5, crash_point.calls))
            ),
        )
