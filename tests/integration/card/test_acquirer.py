"""One contract for every acquirer: the one in memory, and the adapter with the sandbox. Then what is HTTP's own."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY
from pydantic import SecretStr

from kit.http.server import http_server
from kit.rpc import circuit_breaker
from stack.ports import free_ports
from subgraphs.card.service.adapters.acquirer import Acquirer
from subgraphs.card.service.adapters.acquirer_http import HttpAcquirer, Patience
from subgraphs.card.service.domain.top_up import Brand, NoPayment, Payment, PaymentStatus, Refusal, Token
from tests.clock import ManualClock
from tests.integration.bank.harness import rub
from tests.integration.card.environment import card
from tests.integration.card.fake_acquirer import FakeAcquirer
from tests.integration.sandbox import running as sandbox
from tests.integration.sandbox.running import API_KEY
from wallet.errors import Unavailable

AMOUNT = rub("10.00")


@pytest.fixture(scope="module")
async def over_http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Acquirer]:
    async with (
        sandbox.running(tmp_path_factory.mktemp("sandbox"), sandbox_timeout_seconds=60) as merchant,
        HttpAcquirer.connect(str(merchant.http.base_url), SecretStr(API_KEY)) as acquirer,
    ):
        yield acquirer


@pytest.fixture(scope="module")
def in_memory() -> Acquirer:
    return FakeAcquirer()


@pytest.fixture(params=["in_memory", "over_http"])
def acquirer(request: pytest.FixtureRequest) -> Acquirer:
    found: Acquirer = request.getfixturevalue(request.param)
    return found


async def token(acquirer: Acquirer, number: str = "4242424242424242") -> Token:
    made = await acquirer.tokenize(card(number))
    assert isinstance(made, Token)
    return made


async def authorized(acquirer: Acquirer, number: str = "4242424242424242") -> Payment:
    made = await acquirer.authorize(uuid.uuid4().hex, await token(acquirer, number), AMOUNT, "reference")
    assert isinstance(made, Payment)
    return made


def sums(payment: object) -> tuple[PaymentStatus, str, str]:
    assert isinstance(payment, Payment)
    return payment.status, str(payment.captured), str(payment.refunded)


def wrong(payment: object) -> Refusal:
    """What is answered to a change that the payment is past."""
    assert isinstance(payment, Payment)
    return Refusal("WRONG_STATUS", payment)


class TestContract:
    async def test_a_card_has_one_token_whatever_its_code(self, acquirer: Acquirer) -> None:
        first = await token(acquirer)
        assert (first.brand, first.last_four) == (Brand.VISA, "4242")
        assert await acquirer.tokenize(card(cvv="321")) == first
        assert (await token(acquirer, "5555555555554444")).token != first.token
        assert await acquirer.tokenize(card("4242424242424241")) == Refusal("INVALID_CARD")

    async def test_a_key_authorizes_once(self, acquirer: Acquirer) -> None:
        key, of_card = uuid.uuid4().hex, await token(acquirer)
        first = await acquirer.authorize(key, of_card, AMOUNT, "reference")
        assert sums(first) == (PaymentStatus.AUTHORIZED, "0.00", "0.00")
        assert await acquirer.authorize(key, of_card, AMOUNT, "reference") == first
        assert await acquirer.find(key) == first
        assert await acquirer.authorize(key, of_card, rub("10.01"), "reference") == Refusal("KEY_REUSED")

    async def test_a_decline_is_an_outcome(self, acquirer: Acquirer) -> None:
        key, declined = uuid.uuid4().hex, await token(acquirer, "4000000000000002")
        payment = await acquirer.authorize(key, declined, AMOUNT, "reference")
        assert sums(payment) == (PaymentStatus.DECLINED, "0.00", "0.00")
        assert isinstance(payment, Payment)
        assert payment.decline_code == "DO_NOT_HONOR"
        assert await acquirer.cancel(key) == payment

    async def test_an_unknown_card_is_refused(self, acquirer: Acquirer) -> None:
        unknown = Token("tok_of_nobody", Brand.VISA, "4242")
        assert await acquirer.authorize(uuid.uuid4().hex, unknown, AMOUNT, "reference") == Refusal("UNKNOWN_TOKEN")

    async def test_a_sum_is_captured_once_and_refunded_once(self, acquirer: Acquirer) -> None:
        payment = await authorized(acquirer)
        for _ in range(2):
            captured = await acquirer.capture(payment.id, f"{payment.key}:capture")
            assert sums(captured) == (PaymentStatus.CAPTURED, "10.00", "0.00")
        assert await acquirer.void(payment.id, f"{payment.key}:void") == wrong(captured)
        assert await acquirer.cancel(payment.key) == wrong(captured)
        for _ in range(2):
            refunded = await acquirer.refund(payment.id, f"{payment.key}:refund")
            assert sums(refunded) == (PaymentStatus.REFUNDED, "10.00", "10.00")
        assert await acquirer.capture(payment.id, f"{payment.key}:capture") == refunded  # a replay, as it is now
        assert await acquirer.find(payment.key) == refunded

    async def test_a_hold_is_let_go_of_once(self, acquirer: Acquirer) -> None:
        payment = await authorized(acquirer)
        for _ in range(2):
            voided = await acquirer.void(payment.id, f"{payment.key}:void")
            assert sums(voided) == (PaymentStatus.VOIDED, "0.00", "0.00")
        assert await acquirer.capture(payment.id, f"{payment.key}:capture") == wrong(voided)
        assert await acquirer.refund(payment.id, f"{payment.key}:refund") == wrong(voided)

    async def test_a_cancelled_key_authorizes_nothing_any_more(self, acquirer: Acquirer) -> None:
        key, of_card = uuid.uuid4().hex, await token(acquirer)
        assert await acquirer.find(key) == NoPayment()
        for _ in range(2):
            assert await acquirer.cancel(key) == NoPayment()
        assert await acquirer.authorize(key, of_card, AMOUNT, "reference") == Refusal("KEY_CANCELLED")
        assert await acquirer.find(key) == NoPayment()

    async def test_cancelling_a_key_that_has_authorized_voids(self, acquirer: Acquirer) -> None:
        payment = await authorized(acquirer)
        for _ in range(2):
            assert sums(await acquirer.cancel(payment.key)) == (PaymentStatus.VOIDED, "0.00", "0.00")

    async def test_what_is_refused_for_good_stays_as_it_was(self, acquirer: Acquirer) -> None:
        uncapturable = await authorized(acquirer, "4000000000020042")
        assert await acquirer.capture(uncapturable.id, "c" + uncapturable.key) == Refusal("REFUSED", uncapturable)
        unrefundable = await authorized(acquirer, "4000000000040024")
        captured = await acquirer.capture(unrefundable.id, "c" + unrefundable.key)
        assert await acquirer.refund(unrefundable.id, "r" + unrefundable.key) == Refusal("REFUSED", captured)  # type: ignore[arg-type]

    async def test_nothing_is_known_of_a_payment_that_is_not_there(self, acquirer: Acquirer) -> None:
        answer = await acquirer.capture("pay_of_nobody", uuid.uuid4().hex)
        assert answer == Refusal("NOT_FOUND")

    async def test_all_payments_are_listed_by_pages(self, acquirer: Acquirer) -> None:
        made = [await authorized(acquirer) for _ in range(3)]
        listed: list[Payment] = []
        while page := await acquirer.payments(listed[-1].id if listed else None, 2):
            listed += page
        assert listed[-3:] == made


class Answers:
    """An HTTP server that answers what it is told to, in turn; the last answer stays."""

    def __init__(self, *answers: tuple[int, Any] | str) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def serving(self, **patience: Any) -> AsyncIterator[HttpAcquirer]:
        app, (port,) = FastAPI(openapi_url=None), free_ports(1)

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(request: Request) -> Response:
            self.calls += 1
            self.asked.set()
            told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if told == DRIPS:
                return StreamingResponse(drips())
            if isinstance(told, str):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                return Response()
            status, body = told
            return Response(body, status, media_type="application/json")

        settings = {"timeout_seconds": 1.0, "attempts": 1, "failures": 100} | patience
        async with (
            http_server(app, f"127.0.0.1:{port}"),
            HttpAcquirer.connect(f"http://127.0.0.1:{port}", SecretStr("key"), Patience(**settings)) as acquirer,
        ):
            yield acquirer


SILENCE = "silence"
DRIPS = "drips"


async def drips() -> AsyncIterator[bytes]:
    """An answer that never lets anybody wait for long, and has no end."""
    while True:
        yield b" "
        await asyncio.sleep(0.02)


NONE = (200, '{"payments": []}')
BUSY = (503, '{"code": "UNAVAILABLE", "message": "not now"}')


async def ask(acquirer: HttpAcquirer) -> object:
    return await acquirer.find("key")


async def fails(acquirer: HttpAcquirer) -> None:
    with pytest.raises(Unavailable, match="the card acquirer is not available now"):
        await ask(acquirer)


def circuit() -> str:
    """The state that the metric shows."""
    states = ("closed", "half-opened", "opened")
    name = "wallet_card_acquirer_circuit"
    (shown,) = [state for state in states if REGISTRY.get_sample_value(name, {name: state})]
    return shown


class TestAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            BUSY,
            SILENCE,
            DRIPS,
            (500, "<html>"),
            (200, '{"payments": [{}]}'),
            (200, "nothing"),
            (404, "<html>no such page"),
            (401, '{"code": "UNAUTHORIZED", "message": "who?"}'),
            (409, '{"code": "KEY_IN_USE", "message": "at work"}'),
            (301, ""),
            (422, '{"code": "INVALID_REQUEST", "message": "a look-up has nothing to refuse"}'),
        ],
    )
    async def test_that_are_not_clear_leave_the_outcome_unknown(self, answer: Any) -> None:
        async with Answers(answer).serving() as acquirer:
            await fails(acquirer)

    async def test_are_asked_for_again_a_few_times_by_the_same_key(self) -> None:
        answers = Answers(BUSY, SILENCE, NONE)
        async with answers.serving(attempts=3) as acquirer:
            assert await ask(acquirer) == NoPayment()
        assert answers.calls == 3

    async def test_are_not_asked_for_longer_than_the_budget(self) -> None:
        answers = Answers(SILENCE)
        async with answers.serving(attempts=100, budget_seconds=0.1) as acquirer:
            await fails(acquirer)
        assert answers.calls == 1

    async def test_where_nobody_is_there_are_none(self) -> None:
        (port,) = free_ports(1)
        patience = Patience(attempts=2)
        async with HttpAcquirer.connect(f"http://127.0.0.1:{port}", SecretStr("key"), patience) as acquirer:
            await fails(acquirer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock of every circuit breaker."""
    clock = ManualClock()
    monkeypatch.setattr(circuit_breaker, "time", clock)
    return clock


class TestCircuit:
    async def test_opens_after_failures_in_a_row_and_closes_when_one_call_succeeds(self, clock: ManualClock) -> None:
        answers = Answers(BUSY, BUSY, NONE)
        async with answers.serving(failures=2, open_seconds=60) as acquirer:
            await fails(acquirer)
            await fails(acquirer)
            assert circuit() == "opened"
            await fails(acquirer)
            assert answers.calls == 2  # that one was not made
            clock.advance(60)
            assert await ask(acquirer) == NoPayment()
            assert circuit() == "closed"

    async def test_lets_one_call_try_and_opens_again_when_it_fails(self, clock: ManualClock) -> None:
        answers = Answers(BUSY, SILENCE)
        async with answers.serving(failures=1, open_seconds=60) as acquirer:
            await fails(acquirer)
            clock.advance(60)
            answers.asked.clear()
            trying = asyncio.create_task(fails(acquirer))
            await answers.asked.wait()
            assert circuit() == "half-opened"
            await fails(acquirer)
            assert answers.calls == 2
            await trying
            assert circuit() == "opened"

    async def test_learns_nothing_from_a_call_that_is_cancelled(self, clock: ManualClock) -> None:
        answers = Answers(BUSY, SILENCE, NONE)
        async with answers.serving(failures=1, open_seconds=60, timeout_seconds=30) as acquirer:
            await fails(acquirer)
            clock.advance(60)
            answers.asked.clear()
            trying = asyncio.create_task(ask(acquirer))
            await answers.asked.wait()
            trying.cancel()
            await asyncio.wait({trying})
            assert circuit() == "half-opened"
            assert await ask(acquirer) == NoPayment()
            assert circuit() == "closed"

    @pytest.mark.parametrize(
        "answer",
        [
            NONE,
            (409, '{"code": "KEY_IN_USE", "message": "at work"}'),
            (401, '{"code": "UNAUTHORIZED", "message": "who?"}'),
            (422, '{"code": "UNKNOWN_TOKEN", "message": "no"}'),
        ],
    )
    async def test_stays_closed_whatever_the_acquirer_refuses(self, answer: Any) -> None:
        answers = Answers(answer)
        async with answers.serving(failures=1, timeout_seconds=30) as acquirer:
            for _ in range(3):
                await asyncio.gather(ask(acquirer), return_exceptions=True)
        assert answers.calls == 3

    async def test_forgets_failures_that_were_not_in_a_row(self) -> None:
        answers = Answers(*[BUSY, NONE] * 3)
        async with answers.serving(failures=2, timeout_seconds=30) as acquirer:
            for _ in range(3):
                await fails(acquirer)
                await ask(acquirer)
        assert answers.calls == 6
