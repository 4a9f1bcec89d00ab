"""What becomes of a top-up when the acquirer, the bank or other drivers get in its way."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from kit.rpc import request_context
from kit.runtime import process
from subgraphs.card.service.adapters.repository import LeaseLostError
from subgraphs.card.service.domain.top_up import PaymentStatus, Status, Step
from tests.integration.bank.harness import rub
from tests.integration.card.environment import AT_ONCE, LIMITS, World
from tests.integration.card.fake_acquirer import Trouble
from tests.waiting import until
from wallet.errors import DeadlineExceeded, IdempotencyConflict, Unavailable

REFUND_REFUSED = "4000000000040024"


@pytest.fixture
def here(shared: World) -> World:
    return shared.anew()


class TestBank:
    async def test_away_after_the_capture_is_waited_for(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        top_up, saga = await here.admitted(await here.bank.open("alice", "0")), here.saga()
        deposit, failures = here.ledger.deposit, iter([Unavailable("the bank"), DeadlineExceeded("the bank")] * 10)

        async def away(wanted: object) -> object:
            if error := next(failures, None):
                raise error
            return await deposit(top_up)

        monkeypatch.setattr(here.ledger, "deposit", away)
        for attempt in range(1, 21):
            top_up = await saga.drive(top_up)
            assert (top_up.status, top_up.step, top_up.attempts) == (Status.CAPTURED, Step.DEPOSIT, attempt)
        assert (await saga.drive(top_up)).status is Status.COMPLETED
        await here.agree(top_up)

    async def test_that_answers_too_late_has_credited_once(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        deposit, failures = here.ledger.deposit, iter([DeadlineExceeded("the bank")] * 2)

        async def late(wanted: object) -> object:
            done = await deposit(top_up)
            if error := next(failures, None):
                raise error
            return done

        monkeypatch.setattr(here.ledger, "deposit", late)
        assert (await here.finish(top_up)).status is Status.COMPLETED
        await here.agree(top_up)

    async def test_an_account_that_is_gone_after_the_authorization_is_not_charged(self, here: World) -> None:
        top_up = await here.admitted(uuid4())
        ended = await here.finish(top_up)
        assert (ended.status, ended.failure) == (Status.VOIDED, "ACCOUNT_NOT_FOUND")
        assert here.acquirer.calls["capture"] == 0
        await here.agree(top_up)

    async def test_another_deposit_by_the_same_key_needs_a_person(self, here: World) -> None:
        account = await here.bank.open("alice", "0")
        top_up = await here.admitted(account)
        await here.bank.service("card")(here.bank.client.deposit(account, rub("0.01"), str(top_up.id), {}))
        stopped = await here.finish(top_up)
        assert (stopped.status, stopped.step) == (Status.NEEDS_REVIEW, Step.DEPOSIT)
        assert stopped.review is not None

    async def test_is_called_under_the_services_own_name(self, here: World) -> None:
        token = request_context.current_request.set(
            request_context.RequestContext("test", token=here.bank.keys.user("alice"))
        )
        try:
            assert (await here.finish(await here.admitted(await here.bank.open("bob")))).status is Status.COMPLETED
        finally:
            request_context.current_request.reset(token)


class TestAcquirer:
    async def test_without_a_clear_answer_for_long_does_nothing_twice(self, here: World) -> None:
        top_up, saga = await here.admitted(await here.bank.open("alice", "0")), here.saga()
        here.acquirer.troubles["authorize"] = [Trouble.SILENT_AFTER]
        here.acquirer.troubles["find"] = [Trouble.SILENT_BEFORE] * 20
        here.acquirer.troubles["capture"] = [Trouble.SILENT_AFTER] * 2
        while top_up.is_under_way:
            top_up = await saga.drive(top_up)
        assert top_up.status is Status.COMPLETED
        await here.agree(top_up)

    async def test_a_refund_that_is_refused_needs_a_person_who_may_retry_it(self, here: World) -> None:
        account = await here.bank.open("alice", "0")
        top_up = await here.admitted(account, number=REFUND_REFUSED)
        here.acquirer.then["capture"] = lambda: here.close(account)
        stopped = await here.finish(top_up)
        assert (stopped.status, stopped.step, stopped.failure) == (Status.NEEDS_REVIEW, Step.REFUND, "ACCOUNT_CLOSED")
        assert stopped.review == "the acquirer refuses to refund: REFUSED"

        here.acquirer.relent()
        await here.saga().retry(top_up.id)
        ended = await here.finish(top_up)
        assert (ended.status, ended.failure) == (Status.REFUNDED, "ACCOUNT_CLOSED")
        await here.agree(top_up)

    async def test_that_contradicts_itself_needs_a_person(self, here: World) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))

        async def holds_more() -> None:
            payment = here.acquirer.books[top_up.authorization_key]
            here.acquirer.books[top_up.authorization_key] = replace(payment, amount=rub("99.00"))

        here.acquirer.then["authorize"] = holds_more
        stopped = await here.finish(top_up)
        assert (stopped.status, stopped.step) == (Status.NEEDS_REVIEW, Step.CAPTURE)
        assert "captured 99.00" in (stopped.review or "")


class TestDrivers:
    async def test_two_at_once_do_everything_once(self, here: World) -> None:
        account = await here.bank.open("alice", "0")
        for _ in range(5):
            top_up = await here.admitted(account)
            ends = await asyncio.gather(*(here.saga().drive(top_up) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(end, LeaseLostError) or end.is_final for end in ends)  # type: ignore[union-attr]
            assert (await here.finish(top_up)).status is Status.COMPLETED
            await here.agree(top_up)
        assert await here.bank.balance(account) == 50

    async def test_two_refunds_at_once_give_back_once(self, here: World) -> None:
        account = await here.bank.open("alice", "0")
        here.acquirer.then["capture"] = lambda: here.close(account)
        top_up, saga = await here.admitted(account), here.saga()
        here.acquirer.troubles["refund"] = [Trouble.SILENT_BEFORE]
        waiting = await saga.drive(top_up)
        assert waiting.step is Step.REFUND
        ends = await asyncio.gather(*(here.saga().drive(waiting) for _ in range(4)), return_exceptions=True)
        assert [end for end in ends if not isinstance(end, LeaseLostError)] == [await here.now(top_up)]
        assert (await here.agree(top_up)).status is Status.REFUNDED

    async def test_one_that_lost_its_lease_saves_nothing(self, here: World) -> None:
        slow = await here.admitted(await here.bank.open("alice", "0"))
        assert (await here.finish(slow)).status is Status.COMPLETED
        with pytest.raises(LeaseLostError):
            await here.saga().drive(slow)
        await here.agree(slow)

    async def test_nobody_else_is_given_a_leased_one(self, here: World) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        claimed = await asyncio.gather(
            *(here.repository.claim(1, lease_seconds=60, id_=top_up.id) for _ in range(5)),
        )
        assert sorted(map(len, claimed)) == [0, 0, 0, 0, 1]

    async def test_a_lease_that_is_renewed_goes_on(self, here: World) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        assert await here.repository.claim(1, lease_seconds=0, id_=top_up.id)
        await here.repository.renew({top_up.id: top_up.version}, lease_seconds=60)
        assert not await here.repository.claim(1, lease_seconds=0, id_=top_up.id)

    async def test_what_was_saved_since_is_not_renewed(self, here: World) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        saved = await here.repository.save(top_up, due_seconds=0)
        await here.repository.renew({top_up.id: top_up.version}, lease_seconds=60)
        assert await here.repository.claim(1, lease_seconds=0, id_=top_up.id) == [saved]
        ended = await here.finish(saved)
        await here.repository.renew({top_up.id: ended.version}, lease_seconds=0)
        assert not await here.repository.claim(1, lease_seconds=0, id_=top_up.id)

    async def test_a_slow_step_keeps_its_lease_until_its_end(self, here: World) -> None:
        saga = here.saga(timing=replace(AT_ONCE, lease_seconds=0.03))
        renewed, goes_on = asyncio.Queue[object](), asyncio.Event()
        renew = here.repository.renew

        async def tell(versions: Mapping[UUID, int], *, lease_seconds: float) -> None:
            await renew(versions, lease_seconds=lease_seconds)
            renewed.put_nowait((dict(versions), lease_seconds))

        here.repository.renew = tell  # type: ignore[method-assign]
        here.acquirer.then["capture"] = goes_on.wait
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        try:
            async with saga.running(), process.background_task(saga.hold(), "leases"):
                saga.start(top_up)
                while await renewed.get() != ({top_up.id: top_up.version + 1}, 0.03):
                    """The authorization is not over yet."""
                goes_on.set()
                assert (await saga.paused(top_up)).status is Status.COMPLETED
                assert await saga.paused(top_up) is top_up  # not driven any more
        finally:
            here.repository.renew = renew  # type: ignore[method-assign]
        assert not saga._leased


class TestCompleter:
    async def test_takes_up_what_is_due_however_many_callers_there_are(self, here: World) -> None:
        saga, goes_on = here.saga(timing=replace(AT_ONCE, lease_seconds=30, drivers=1)), asyncio.Event()
        account = await here.bank.open("alice", "0")
        left = await here.admitted(account)
        here.acquirer.then["authorize"] = goes_on.wait
        wishes = [await here.wish(account, rub("10.00")) for _ in range(2)]

        async def are_all_begun() -> bool:
            return here.acquirer.calls["authorize"] == 3

        async with saga.running():
            for wish in wishes:
                await saga.begin(wish, LIMITS)
            async with process.background_task(saga.complete(), "completer"):
                await until(are_all_begun)
            goes_on.set()
        assert (await here.agree(left)).status is Status.COMPLETED


class TestBegin:
    async def test_the_same_key_at_once_is_one_top_up(self, here: World) -> None:
        account = await here.bank.open("alice", "0")
        saga = here.saga(timing=replace(AT_ONCE, lease_seconds=30))
        async with saga.running():
            wishes = [await here.wish(account, rub("10.00"), key="k") for _ in range(5)]
            begun = await asyncio.gather(*(saga.begin(wish, LIMITS) for wish in wishes))
            assert len({top_up.id for top_up in begun}) == 1
            with pytest.raises(IdempotencyConflict):
                await saga.begin(await here.wish(account, rub("10.01"), key="k"), LIMITS)
        assert (await here.agree(begun[0])).status is Status.COMPLETED
        assert here.acquirer.calls["authorize"] == 1

    async def test_asking_again_takes_up_what_a_dead_process_left(self, here: World) -> None:
        account = await here.bank.open("alice", "0")
        left = await here.repository.admit(await here.wish(account, rub("10.00"), key="left"), LIMITS, lease_seconds=0)
        saga = here.saga()
        async with saga.running():
            again = await saga.begin(await here.wish(account, rub("10.00"), key="left"), LIMITS)
        assert again.id == left.id
        assert (await here.agree(left)).status is Status.COMPLETED


class TestEnd:
    async def test_steps_that_are_being_taken_may_end(self, here: World) -> None:
        top_up, saga, reached = await here.admitted(await here.bank.open("alice")), here.saga(), asyncio.Event()

        async def reach() -> None:
            reached.set()

        here.acquirer.then["authorize"] = reach
        async with saga.running():
            saga.start(top_up)
            await reached.wait()
        assert (await here.now(top_up)).status is Status.COMPLETED

    async def test_and_what_does_not_end_is_left_to_the_next_process(
        self, here: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.card.service.application.saga._GRACE_SECONDS", 0.05)
        top_up, saga, reached = await here.admitted(await here.bank.open("alice")), here.saga(), asyncio.Event()

        async def hang() -> None:
            reached.set()
            await asyncio.Event().wait()

        here.acquirer.then["capture"] = hang
        async with saga.running():
            saga.start(top_up)
            await reached.wait()
        assert (await here.now(top_up)).step is Step.CAPTURE
        here.acquirer.then.clear()
        assert (await here.finish(top_up)).status is Status.COMPLETED
        await here.agree(top_up)


class TestVerification:
    async def test_a_contradicted_end_is_marked_and_stays(self, here: World) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        await here.finish(top_up)
        key = top_up.authorization_key
        payment = here.acquirer.books[key]
        here.acquirer.books[key] = replace(payment, status=PaymentStatus.REFUNDED, refunded=payment.amount)
        assert await here.repository.receive(uuid4().hex, "payment.refunded", top_up.id, PaymentStatus.REFUNDED)

        marked = await here.finish(top_up)
        assert marked.status is Status.COMPLETED
        assert marked.review is not None
        assert marked.id in {each.id for each in await here.repository.to_review()}

        here.acquirer.books[key] = payment  # somebody has put it right
        await here.saga().retry(top_up.id)
        await here.finish(top_up)
        await here.agree(top_up)

    async def test_waits_for_an_acquirer_that_is_away(self, here: World) -> None:
        top_up = await here.admitted(await here.bank.open("alice", "0"))
        await here.finish(top_up)
        await here.repository.receive(uuid4().hex, "payment.voided", top_up.id, PaymentStatus.VOIDED)
        here.acquirer.troubles["find"] = [Trouble.SILENT_BEFORE] * 3
        await here.finish(top_up)
        assert here.acquirer.calls["find"] == 4
        await here.agree(top_up)
