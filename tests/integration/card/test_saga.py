"""The saga with failures of the acquirer and the bank, and with several drivers of one top-up."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from kit.rpc import request_context
from kit.runtime import process
from subgraphs.card.service.adapters.acquirer import current_customer
from subgraphs.card.service.adapters.repository import LeaseLostError
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.top_up import Status, Step, TopUp
from tests.integration.bank.harness import rub
from tests.integration.card.environment import LIMITS, NO_DELAYS, CardEnvironment
from tests.integration.card.fake_acquirer import Failure
from tests.waiting import until
from wallet.errors import DeadlineExceeded, IdempotencyConflict, TopUpLimitExceeded, Unavailable

REFUND_REFUSED = "4000000000040024"


@pytest.fixture
def env(shared_env: CardEnvironment) -> CardEnvironment:
    return shared_env.with_new_acquirer()


class TestBankFailures:
    async def test_deposit_is_retried_until_the_bank_responds(
        self, env: CardEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top_up, saga = await env.admit(await env.bank.open("alice", "0")), env.saga()
        deposit, failures = env.ledger.deposit, iter([Unavailable("the bank"), DeadlineExceeded("the bank")] * 10)

        async def fail_deposit(_: object) -> object:
            if error := next(failures, None):
                raise error
            return await deposit(top_up)

        monkeypatch.setattr(env.ledger, "deposit", fail_deposit)
        for attempt in range(1, 21):
            top_up = await saga.drive(top_up)
            assert (top_up.status, top_up.step, top_up.attempts) == (Status.CAPTURED, Step.DEPOSIT, attempt)
        assert (await saga.drive(top_up)).status is Status.COMPLETED
        await env.assert_books_agree(top_up)

    async def test_deposit_whose_responses_are_lost_credits_once(
        self, env: CardEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))
        deposit, failures = env.ledger.deposit, iter([DeadlineExceeded("the bank")] * 2)

        async def lose_response(_: object) -> object:
            result = await deposit(top_up)
            if error := next(failures, None):
                raise error
            return result

        monkeypatch.setattr(env.ledger, "deposit", lose_response)
        assert (await env.finish(top_up)).status is Status.COMPLETED
        await env.assert_books_agree(top_up)

    async def test_card_is_not_charged_for_a_missing_account(self, env: CardEnvironment) -> None:
        top_up = await env.admit(uuid4())
        ended = await env.finish(top_up)
        assert (ended.status, ended.failure) == (Status.VOIDED, "ACCOUNT_NOT_FOUND")
        assert env.acquirer.calls["capture"] == 0
        await env.assert_books_agree(top_up)

    async def test_other_deposit_with_the_same_key_needs_a_review(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        top_up = await env.admit(account)
        await env.bank.service("card")(env.bank.client.deposit(account, rub("0.01"), str(top_up.id), {}))
        stopped = await env.finish(top_up)
        assert (stopped.status, stopped.step) == (Status.NEEDS_REVIEW, Step.DEPOSIT)
        assert stopped.review is not None

    async def test_bank_is_called_with_the_identity_of_the_service(self, env: CardEnvironment) -> None:
        token = request_context.current_request.set(
            request_context.RequestContext("test", token=env.bank.keys.user("alice"))
        )
        try:
            assert (await env.finish(await env.admit(await env.bank.open("bob")))).status is Status.COMPLETED
        finally:
            request_context.current_request.reset(token)


class TestAcquirerFailures:
    async def test_lost_responses_do_not_repeat_an_effect(self, env: CardEnvironment) -> None:
        top_up, saga = await env.admit(await env.bank.open("alice", "0")), env.saga()
        env.acquirer.failures["authorize"] = [Failure.LOST_RESPONSE]
        env.acquirer.failures["find_payment"] = [Failure.LOST_REQUEST] * 20
        env.acquirer.failures["capture"] = [Failure.LOST_RESPONSE] * 2
        while top_up.is_in_progress:
            top_up = await saga.drive(top_up)
        assert top_up.status is Status.COMPLETED
        await env.assert_books_agree(top_up)

    async def test_refused_refund_needs_a_review_and_can_be_retried(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        top_up = await env.admit(account, number=REFUND_REFUSED)
        env.acquirer.after_call["capture"] = lambda: env.close_account(account)
        stopped = await env.finish(top_up)
        assert (stopped.status, stopped.step, stopped.failure) == (Status.NEEDS_REVIEW, Step.REFUND, "ACCOUNT_CLOSED")
        assert stopped.review == "the acquirer refuses to refund: REFUSED"

        env.acquirer.accept_all()
        await env.saga().retry(top_up.id)
        ended = await env.finish(top_up)
        assert (ended.status, ended.failure) == (Status.REFUNDED, "ACCOUNT_CLOSED")
        await env.assert_books_agree(top_up)

    async def test_money_charged_for_an_account_that_was_frozen_comes_back(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        env.acquirer.after_call["capture"] = lambda: env.freeze_account(account)
        ended = await env.finish(await env.admit(account))
        assert (ended.status, ended.failure) == (Status.REFUNDED, "ACCOUNT_FROZEN")
        await env.assert_books_agree(ended)

    async def test_contradictory_payment_needs_a_review(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))

        async def hold_more() -> None:
            payment = env.acquirer.payments[top_up.authorization_key]
            env.acquirer.payments[top_up.authorization_key] = replace(payment, amount=rub("99.00"))

        env.acquirer.after_call["authorize"] = hold_more
        stopped = await env.finish(top_up)
        assert (stopped.status, stopped.step) == (Status.NEEDS_REVIEW, Step.CAPTURE)
        assert "captured 99.00" in (stopped.review or "")

    async def test_acquirer_is_called_on_behalf_of_the_customer_of_the_top_up(self, env: CardEnvironment) -> None:
        customers: list[str] = []

        async def record() -> None:
            customers.append(current_customer.get())

        env.acquirer.after_call |= dict.fromkeys(("authorize", "capture"), record)
        await env.finish(await env.admit(await env.bank.open("alice", "0")))
        assert customers == [env.principal] * 2
        assert current_customer.get() == ""


class TestSaves:
    async def test_authorization_and_capture_are_saved_together(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.open_account())
        ended = await env.saga().drive(top_up)
        assert (ended.status, ended.version) == (Status.COMPLETED, top_up.version + 2)
        assert ended == await env.reload(top_up)

    async def test_authorization_that_takes_long_is_saved_before_the_capture(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.open_account())
        ended = await env.saga(limits=replace(NO_DELAYS, capture_seconds=0.0)).drive(top_up)
        assert (ended.status, ended.version) == (Status.COMPLETED, top_up.version + 3)

    @pytest.mark.parametrize("method", ["find_refusal", "capture"])
    async def test_unknown_outcome_after_the_authorization_is_saved_at_the_capture(
        self, env: CardEnvironment, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        async def fail(*_: object) -> object:
            raise Unavailable(method)

        top_up = await env.admit(await env.open_account())
        with monkeypatch.context() as patched:
            patched.setattr(env.acquirer if method == "capture" else env.ledger, method, fail)
            waiting = await env.saga().drive(top_up)
        assert (waiting.status, waiting.step, waiting.attempts) == (Status.AUTHORIZED, Step.CAPTURE, 1)
        assert waiting.payment_id is not None
        assert (await env.finish(waiting)).status is Status.COMPLETED
        await env.assert_books_agree(waiting)

    async def test_both_steps_are_counted(self, env: CardEnvironment) -> None:
        def counts() -> list[float]:
            name, labels = "wallet_card_steps_total", ("AUTHORIZE", "CAPTURE", "DEPOSIT")
            results = ("Payment", "Payment", "Deposited")
            return [
                REGISTRY.get_sample_value(name, {"step": step, "result": result}) or 0.0
                for step, result in zip(labels, results, strict=True)
            ]

        before = counts()
        await env.saga().drive(await env.admit(await env.open_account()))
        assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [1.0, 1.0, 1.0]


class TestDrivers:
    async def test_concurrent_drivers_have_one_effect(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        for _ in range(5):
            top_up = await env.admit(account)
            results = await asyncio.gather(*(env.saga().drive(top_up) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(result, LeaseLostError) or result.is_final for result in results)  # type: ignore[union-attr]
            assert (await env.finish(top_up)).status is Status.COMPLETED
            await env.assert_books_agree(top_up)
        assert await env.bank.balance(account) == 50

    async def test_concurrent_refunds_return_the_amount_once(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        env.acquirer.after_call["capture"] = lambda: env.close_account(account)
        top_up, saga = await env.admit(account), env.saga()
        env.acquirer.failures["refund"] = [Failure.LOST_REQUEST]
        waiting = await saga.drive(top_up)
        assert waiting.step is Step.REFUND
        results = await asyncio.gather(*(env.saga().drive(waiting) for _ in range(4)), return_exceptions=True)
        assert [result for result in results if not isinstance(result, LeaseLostError)] == [await env.reload(top_up)]
        assert (await env.assert_books_agree(top_up)).status is Status.REFUNDED

    async def test_driver_without_a_lease_saves_nothing(self, env: CardEnvironment) -> None:
        stale = await env.admit(await env.bank.open("alice", "0"))
        assert (await env.finish(stale)).status is Status.COMPLETED
        with pytest.raises(LeaseLostError):
            await env.saga().drive(stale)
        await env.assert_books_agree(stale)

    async def test_leased_top_up_is_claimed_by_one_driver(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))
        claimed = await asyncio.gather(
            *(env.repository.claim(1, lease_seconds=30, id_=top_up.id) for _ in range(5)),
        )
        assert sorted(map(len, claimed)) == [0, 0, 0, 0, 1]

    async def test_renewed_lease_is_not_claimed(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))
        assert await env.repository.claim(1, lease_seconds=0, id_=top_up.id)
        await env.repository.renew_leases({top_up.id: top_up.version}, lease_seconds=30)
        assert not await env.repository.claim(1, lease_seconds=0, id_=top_up.id)

    async def test_lease_of_a_saved_top_up_is_not_renewed(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))
        saved = await env.repository.save(top_up, due_seconds=0)
        await env.repository.renew_leases({top_up.id: top_up.version}, lease_seconds=30)
        assert await env.repository.claim(1, lease_seconds=0, id_=top_up.id) == [saved]
        ended = await env.finish(saved)
        await env.repository.renew_leases({top_up.id: ended.version}, lease_seconds=0)
        assert not await env.repository.claim(1, lease_seconds=0, id_=top_up.id)

    async def test_lease_is_renewed_during_a_slow_step(self, env: CardEnvironment) -> None:
        saga = env.saga(limits=replace(NO_DELAYS, lease_seconds=0.03, capture_seconds=0.0))
        renewals, may_continue = asyncio.Queue[object](), asyncio.Event()
        renew_leases = env.repository.renew_leases

        async def record_renewal(versions: Mapping[UUID, int], *, lease_seconds: float) -> None:
            await renew_leases(versions, lease_seconds=lease_seconds)
            renewals.put_nowait((dict(versions), lease_seconds))

        env.repository.renew_leases = record_renewal  # type: ignore[method-assign]
        env.acquirer.after_call["capture"] = may_continue.wait
        top_up = await env.admit(await env.bank.open("alice", "0"))
        try:
            async with saga.running(), process.background_task(saga.renew_leases(), "leases"):
                saga.start(top_up)
                while await renewals.get() != ({top_up.id: top_up.version + 1}, 0.03):
                    pass  # the authorization is still running
                may_continue.set()
                assert (await saga.wait_for_driver(top_up)).status is Status.COMPLETED
                assert await saga.wait_for_driver(top_up) is top_up  # the driver has ended
        finally:
            env.repository.renew_leases = renew_leases  # type: ignore[method-assign]
        assert not saga._leased_versions


@pytest.mark.parametrize("ahead", ["1 hour", "1 year"])
class TestCorrectedClock:
    """The database's clock was ahead while it stored the time of the next attempt, and is corrected now."""

    async def test_waiting_top_up_is_due_at_once(
        self, env: CardEnvironment, monkeypatch: pytest.MonkeyPatch, ahead: str
    ) -> None:
        deposit, failures = env.ledger.deposit, iter([Unavailable("the bank")])

        async def fail_once(top_up: TopUp) -> object:
            if error := next(failures, None):
                raise error
            return await deposit(top_up)

        monkeypatch.setattr(env.ledger, "deposit", fail_once)
        captured = await env.saga().drive(await env.admit(await env.bank.open("alice", "0")))
        assert (captured.status, captured.attempts) == (Status.CAPTURED, 1)
        await set_next_attempt(env, captured, ahead)
        assert (await env.finish(captured)).status is Status.COMPLETED
        await env.assert_books_agree(captured)

    async def test_completer_continues_a_leased_top_up(self, env: CardEnvironment, ahead: str) -> None:
        saga, top_up = env.saga(), await env.admit(await env.bank.open("alice", "0"))
        await set_next_attempt(env, top_up, ahead)

        async def is_final() -> bool:
            return (await env.reload(top_up)).is_final

        async with saga.running(), process.background_task(saga.run_completer(), "completer"):
            await until(is_final)
        assert (await env.assert_books_agree(top_up)).status is Status.COMPLETED


async def set_next_attempt(env: CardEnvironment, top_up: TopUp, ahead: str) -> None:
    await env.pool.execute(f"UPDATE top_ups SET next_attempt_at = now() + interval '{ahead}' WHERE id = $1", top_up.id)


def test_lease_beyond_the_longest_delay_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not exceed 30\.0 seconds"):
        replace(NO_DELAYS, lease_seconds=30.1)


class TestDayLimit:
    async def use_day_limit(self, env: CardEnvironment, created: str) -> UUID:
        """Use the day's limit with a top-up that is created at an interval from now; return the account."""
        account = await env.open_account()
        await env.finish(await env.admit(account, "0.01"))
        await env.pool.execute(
            f"""
            INSERT INTO top_ups (id, principal, idempotency_key, fingerprint, owner_id, account_id, amount,
                                 currency, card_token, card_brand, card_last_four, created_at)
            SELECT gen_random_uuid(), principal, 'used', fingerprint, owner_id, account_id, 20000, currency,
                   card_token, card_brand, card_last_four, now() + interval '{created}'
            FROM top_ups WHERE principal = $1
            """,
            env.principal,
        )
        return account

    @pytest.mark.parametrize("created", ["-23 hours", "0 hours", "59 seconds"])
    async def test_top_ups_of_the_last_24_hours_count(self, env: CardEnvironment, created: str) -> None:
        account = await self.use_day_limit(env, created)
        with pytest.raises(TopUpLimitExceeded):
            await env.admit(account, "1.00")

    @pytest.mark.parametrize("created", ["-24 hours", "61 seconds", "1 hour", "1 year"])
    async def test_other_top_ups_do_not_count(self, env: CardEnvironment, created: str) -> None:
        account = await self.use_day_limit(env, created)
        assert (await env.finish(await env.admit(account, "10000.00"))).status is Status.COMPLETED


class TestCompleter:
    async def test_due_top_up_is_continued_for_any_number_of_callers(self, env: CardEnvironment) -> None:
        saga, may_continue = env.saga(limits=replace(NO_DELAYS, lease_seconds=30, drivers=1)), asyncio.Event()
        account = await env.bank.open("alice", "0")
        abandoned = await env.admit(account)
        env.acquirer.after_call["authorize"] = may_continue.wait
        requests = [await env.new_top_up(account, rub("10.00")) for _ in range(2)]

        async def are_all_started() -> bool:
            return env.acquirer.calls["authorize"] == 3

        async with saga.running():
            for new in requests:
                await saga.begin(new, LIMITS)
            async with process.background_task(saga.run_completer(), "completer"):
                await until(are_all_started)
            may_continue.set()

            async def is_final() -> bool:
                return (await env.reload(abandoned)).is_final

            await until(is_final)
        assert (await env.assert_books_agree(abandoned)).status is Status.COMPLETED


class TestBegin:
    async def test_concurrent_requests_with_one_key_are_one_top_up(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        saga = env.saga(limits=replace(NO_DELAYS, lease_seconds=30))
        async with saga.running():
            requests = [await env.new_top_up(account, rub("10.00"), key="k") for _ in range(5)]
            started = await asyncio.gather(*(saga.begin(new, LIMITS) for new in requests))
            assert len({top_up.id for top_up in started}) == 1
            with pytest.raises(IdempotencyConflict):
                await saga.begin(await env.new_top_up(account, rub("10.01"), key="k"), LIMITS)
        assert (await env.assert_books_agree(started[0])).status is Status.COMPLETED
        assert env.acquirer.calls["authorize"] == 1

    async def test_repeated_request_continues_the_top_up_of_a_dead_process(self, env: CardEnvironment) -> None:
        account = await env.bank.open("alice", "0")
        abandoned = await env.repository.admit(
            await env.new_top_up(account, rub("10.00"), key="abandoned"), LIMITS, lease_seconds=0
        )
        saga = env.saga()
        async with saga.running():
            replay = await saga.begin(await env.new_top_up(account, rub("10.00"), key="abandoned"), LIMITS)
        assert replay.id == abandoned.id
        assert (await env.assert_books_agree(abandoned)).status is Status.COMPLETED


class TestShutdown:
    async def test_running_steps_finish(self, env: CardEnvironment) -> None:
        top_up, saga, reached = await env.admit(await env.bank.open("alice")), env.saga(), asyncio.Event()

        async def reach() -> None:
            reached.set()

        env.acquirer.after_call["authorize"] = reach
        async with saga.running():
            saga.start(top_up)
            await reached.wait()
        assert (await env.reload(top_up)).status is Status.COMPLETED

    async def test_unfinished_top_up_is_left_to_another_process(
        self, env: CardEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.card.service.application.saga._SHUTDOWN_GRACE_SECONDS", 0.05)
        top_up, saga, reached = await env.admit(await env.bank.open("alice")), env.saga(), asyncio.Event()

        async def hang() -> None:
            reached.set()
            await asyncio.Event().wait()

        env.acquirer.after_call["capture"] = hang
        async with saga.running():
            saga.start(top_up)
            await reached.wait()
        assert (await env.reload(top_up)).step is Step.AUTHORIZE
        env.acquirer.after_call.clear()
        assert (await env.finish(top_up)).status is Status.COMPLETED
        await env.assert_books_agree(top_up)


class TestVerification:
    async def test_contradicted_final_top_up_is_marked_for_review_and_keeps_its_status(
        self, env: CardEnvironment
    ) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))
        await env.finish(top_up)
        key = top_up.authorization_key
        payment = env.acquirer.payments[key]
        env.acquirer.payments[key] = replace(payment, status=PaymentStatus.REFUNDED, refunded=payment.amount)
        assert await env.repository.record_webhook(uuid4().hex, "payment.refunded", top_up.id, PaymentStatus.REFUNDED)

        marked = await env.finish(top_up)
        assert marked.status is Status.COMPLETED
        assert marked.review is not None
        assert marked.id in {reviewed.id for reviewed in await env.repository.list_for_review()}

        env.acquirer.payments[key] = payment  # the acquirer has corrected the payment
        await env.saga().retry(top_up.id)
        await env.finish(top_up)
        await env.assert_books_agree(top_up)

    async def test_verification_is_repeated_until_the_acquirer_responds(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.bank.open("alice", "0"))
        await env.finish(top_up)
        await env.repository.record_webhook(uuid4().hex, "payment.voided", top_up.id, PaymentStatus.VOIDED)
        env.acquirer.failures["find_payment"] = [Failure.LOST_REQUEST] * 3
        await env.finish(top_up)
        assert env.acquirer.calls["find_payment"] == 4
        await env.assert_books_agree(top_up)
