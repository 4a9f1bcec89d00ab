"""The proof of the top-ups: sound whatever is going on, and each law's breach found and named."""

import asyncio
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cli.admin_client import AdminEndpoint
from cli.integrity import IntegrityResult, check_integrity
from cli.topups import ReviewResult, list_reviews, retry_top_up
from kit.auth.principal import Role
from kit.integrity.check import Verdict, Violation
from subgraphs.card.service.application.integrity import Law, top_up_integrity
from subgraphs.card.service.domain.top_up import PaymentStatus, Status, Step, TopUp
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank
from tests.integration.card.card_process import running, settings_of
from tests.integration.card.environment import World
from tests.integration.card.fake_acquirer import Trouble
from tests.integration.sandbox import running as sandbox
from tests.waiting import until
from wallet.money import EXPONENTS, Money

CURRENCIES = [currency for currency, decimals in EXPONENTS.items() if decimals == 2 and currency != "RUB"]


async def proved(here: World, page: int = 3) -> tuple[Verdict, list[Violation]]:
    integrity = top_up_integrity(here.repository, here.acquirer, here.ledger, [here.currency], page)
    *reports, verdict = [report async for report in integrity.run()]
    assert isinstance(verdict, Verdict)
    return verdict, [report for report in reports if isinstance(report, Violation)]


async def ended(here: World, number: str = "4242424242424242") -> TopUp:
    return await here.finish(await here.admitted(await here.open(), number=number))


@pytest.fixture
def currency() -> str:
    """One that no other test has deposits in."""
    return CURRENCIES.pop()


@pytest.fixture
def here(here: World, currency: str) -> World:
    """A world whose ledger knows no other top-ups than the test's, as far as the proof looks."""
    return replace(here, currency=currency)


class TestSound:
    async def test_of_top_ups_that_ended_in_every_way_and_some_that_have_not(self, here: World) -> None:
        await ended(here)
        await ended(here, "4000000000000002")
        await ended(here, "4000000000020042")
        here.acquirer.troubles["authorize"] = [Trouble.SILENT_BEFORE]
        await ended(here)
        account = await here.open()
        here.acquirer.then["capture"] = lambda: here.close(account)
        assert (await here.finish(await here.admitted(account))).status is Status.REFUNDED
        here.acquirer.then.clear()
        for trouble in ("find", "capture", "void", "refund"):
            here.acquirer.troubles[trouble] = [Trouble.SILENT_AFTER] * 99
        for number in ("4242424242424242", "4000000000020042"):
            top_up = await here.admitted(await here.open(), number=number)
            await here.saga().drive(top_up)
        here.acquirer.troubles.clear()
        verdict, violations = await proved(here)
        assert (verdict.verdict, violations) == ("sound", [])
        assert verdict.rows == {"top-ups": 7, "payments": 6, "deposits": 1}
        assert verdict.pending == {"top-ups": 2}

    async def test_while_top_ups_are_on_their_way(self, here: World) -> None:
        async def many() -> None:
            account = await here.open()
            for _ in range(6):
                top_up = await here.admitted(account)
                await here.saga().drive(top_up)

        running = asyncio.gather(*(many() for _ in range(3)))
        while not running.done():
            verdict, violations = await proved(here)
            assert (verdict.verdict, violations) == ("sound", [])
        await running
        verdict, _ = await proved(here)
        assert verdict.rows == {"top-ups": 18, "payments": 18, "deposits": 18}

    async def test_is_not_said_without_the_acquirer(self, here: World) -> None:
        await ended(here)
        here.acquirer.troubles["payments"] = [Trouble.SILENT_BEFORE]
        verdict, _ = await proved(here)
        assert verdict.verdict == "unavailable"


class TestBroken:
    async def breach(self, here: World, law: Law, found: str) -> None:
        verdict, (violation,) = await proved(here)
        assert (verdict.verdict, verdict.broken) == ("broken", {law: 1})
        assert (violation.invariant, found in violation.found) == (law, True), violation

    @pytest.mark.parametrize(
        ("number", "becomes"),
        [
            ("4242424242424242", PaymentStatus.REFUNDED),
            ("4242424242424242", PaymentStatus.AUTHORIZED),
            ("4000000000020042", PaymentStatus.CAPTURED),
            ("4000000000020042", PaymentStatus.AUTHORIZED),
            ("4000000000000002", PaymentStatus.CAPTURED),
        ],
    )
    async def test_a_payment_that_is_not_as_the_top_up_has_it(
        self, here: World, number: str, becomes: PaymentStatus
    ) -> None:
        top_up = await ended(here, number)
        payment = here.acquirer.books[top_up.authorization_key]
        sums: dict[str, Any] = {
            "captured": here.money("10" if becomes in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED} else "0"),
            "refunded": here.money("10" if becomes is PaymentStatus.REFUNDED else "0"),
        }
        here.acquirer.books[payment.key] = replace(payment, status=becomes, **sums)
        await self.breach(here, Law.PAYMENT_IS_TOP_UPS, f"the acquirer's payment is {becomes}")

    async def test_a_payment_over_another_sum(self, here: World) -> None:
        top_up = await ended(here)
        payment = here.acquirer.books[top_up.authorization_key]
        here.acquirer.books[payment.key] = replace(payment, captured=here.money("9.99"))
        await self.breach(here, Law.PAYMENT_IS_TOP_UPS, "captured 9.99")

    async def test_a_payment_that_is_gone(self, here: World) -> None:
        del here.acquirer.books[(await ended(here)).authorization_key]
        await self.breach(here, Law.PAYMENT_IS_TOP_UPS, "the acquirer has no payment")

    async def test_a_payment_of_no_top_up(self, here: World) -> None:
        top_up = await ended(here)
        for key in ("stranger", f"{uuid.uuid4()}:authorize"):
            stranger = replace(here.acquirer.books[top_up.authorization_key], id="99999999", key=key)
            here.acquirer.books[key] = stranger
            await self.breach(here, Law.PAYMENT_HAS_TOP_UP, "CAPTURED, captured 10.00, refunded 0.00")
            del here.acquirer.books[key]

    async def test_a_deposit_of_no_top_up(self, here: World) -> None:
        account = await here.open()
        deposit = here.bank.client.deposit(
            account, here.money("7.00"), uuid.uuid4().hex, {"topUpId": str(uuid.uuid4())}
        )
        await here.bank.service("card")(deposit)
        await self.breach(here, Law.DEPOSIT_HAS_TOP_UP, f"7.00 {here.currency} to {account}")

    async def test_a_second_deposit_of_a_top_up(self, here: World) -> None:
        top_up = await ended(here)
        again = here.bank.client.deposit(top_up.account_id, top_up.amount, uuid.uuid4().hex, top_up.descriptor)
        await here.bank.service("card")(again)
        await self.breach(here, Law.DEPOSIT_HAS_TOP_UP, f"10.00 {here.currency} to {top_up.account_id}")

    async def test_a_completed_top_up_without_its_deposit(self, here: World) -> None:
        top_up = await here.admitted(await here.open())
        here.acquirer.troubles["capture"] = [Trouble.SILENT_AFTER]
        waiting = await here.saga().drive(top_up)
        captured = replace(waiting, status=Status.CAPTURED, step=Step.DEPOSIT, attempts=0)
        lie = replace(captured, status=Status.COMPLETED, step=None, transfer_id=uuid.uuid4())
        await here.repository.save(lie, due_seconds=None)
        await self.breach(here, Law.DEPOSIT_IS_TOP_UPS, "no deposit")

    async def test_a_deposit_that_is_not_of_a_top_up_is_nobodys_business(self, here: World) -> None:
        account = await here.open()
        await here.bank.service("card")(here.bank.client.deposit(account, here.money("7.00"), uuid.uuid4().hex, {}))
        assert (await proved(here))[0].verdict == "sound"


class TestCommands:
    async def test_prove_and_review_and_retry(
        self,
        bank: RunningBank,
        currency: str,
        card_url: str,
        keys: Keys,
        tmp_path: Any,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        codes: list[int] = []

        async def said(command: Callable[..., int], *arguments: Any) -> list[str]:
            capsys.readouterr()
            codes.append(await asyncio.to_thread(command, *arguments))
            logged = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")  # by this process, which serves as well
            return [line for line in capsys.readouterr().out.splitlines() if not logged.match(line)]

        async with sandbox.running(tmp_path, sandbox_timeout_seconds=60) as merchant:
            settings = settings_of(
                keys,
                tmp_path,
                card_url,
                bank,
                str(merchant.http.base_url),
                card_limits=json.dumps({currency: {"top_up": "1", "day": "1"}}),
            )
            async with running(bank, merchant, settings) as card:
                admin = AdminEndpoint(card.admin, keys.user("admin", Role.ADMIN))
                account = await bank.open("alice", "0", currency)
                done = await card.top_up(account, Money.parse("1", currency), "done")
                assert await said(list_reviews, admin) == ["0 top-ups need manual review"]
                (proven,) = await said(check_integrity, admin, "card")
                assert proven.startswith("card: sound: all invariants hold for 1 top-ups, 1 payments, 1 deposits (")
                payment = await card.payment(done.id)
                assert payment is not None
                await merchant.change("refund", payment["id"], "behind-our-back")
                await card.sql.execute("UPDATE top_ups SET next_attempt_at = now()")
                marked = "SELECT review FROM top_ups WHERE next_attempt_at IS NULL AND review IS NOT NULL"
                why = await until(lambda: card.sql.fetchval(marked))
                shown = f"{done.id} 1.00 {currency} to {account}, COMPLETED, payment {payment['id']}"
                assert await said(list_reviews, admin) == [f"{shown}: {why}", "1 top-ups need manual review"]
                assert await said(retry_top_up, admin, done.id) == [f"retried: {shown}: {why}"]
                assert (await said(check_integrity, admin))[-1].startswith(
                    "broken: 1 violations (PAYMENT_IS_TOP_UPS 1)"
                )
                (told,) = await said(retry_top_up, admin, uuid.uuid4())
                assert told.startswith(f"not retried: {card.admin} answers 404: no top-up")
        (told,) = await said(list_reviews, admin)
        assert told.startswith(f"unknown: no answer from {card.admin}")
        assert codes == [
            ReviewResult.LIST_EMPTY,
            IntegrityResult.SOUND,
            ReviewResult.LIST_NOT_EMPTY,
            0,
            IntegrityResult.BROKEN,
            ReviewResult.UNKNOWN,
            ReviewResult.UNKNOWN,
        ]
