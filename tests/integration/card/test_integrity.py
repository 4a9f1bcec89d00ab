"""The integrity check of top-ups is sound during use, and finds a violation of each invariant."""

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
from subgraphs.card.service.application.integrity import Invariant, top_up_integrity
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.top_up import Status, Step, TopUp
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank
from tests.integration.card.card_process import card_settings, run_card
from tests.integration.card.environment import CardEnvironment
from tests.integration.card.fake_acquirer import Failure
from tests.integration.sandbox import running as sandbox
from tests.waiting import until
from wallet.money import EXPONENTS, Money

CURRENCIES = [currency for currency, decimals in EXPONENTS.items() if decimals == 2 and currency != "RUB"]


async def check(env: CardEnvironment, page_size: int = 3) -> tuple[Verdict, list[Violation]]:
    integrity = top_up_integrity(env.repository, env.acquirer, env.ledger, [env.currency], page_size)
    *reports, verdict = [report async for report in integrity.run()]
    assert isinstance(verdict, Verdict)
    return verdict, [report for report in reports if isinstance(report, Violation)]


async def create_finished(env: CardEnvironment, number: str = "4242424242424242") -> TopUp:
    return await env.finish(await env.admit(await env.open_account(), number=number))


@pytest.fixture
def currency() -> str:
    """Currency in which no other test makes deposits."""
    return CURRENCIES.pop()


@pytest.fixture
def env(env: CardEnvironment, currency: str) -> CardEnvironment:
    """Environment with a currency in which the ledger has the test's deposits only."""
    return replace(env, currency=currency)


class TestSound:
    async def test_top_ups_with_every_final_status_and_in_progress_are_sound(self, env: CardEnvironment) -> None:
        await create_finished(env)
        await create_finished(env, "4000000000000002")
        await create_finished(env, "4000000000020042")
        env.acquirer.failures["authorize"] = [Failure.LOST_REQUEST]
        await create_finished(env)
        account = await env.open_account()
        env.acquirer.after_call["capture"] = lambda: env.close_account(account)
        assert (await env.finish(await env.admit(account))).status is Status.REFUNDED
        env.acquirer.after_call.clear()
        for method in ("find_payment", "capture", "void", "refund"):
            env.acquirer.failures[method] = [Failure.LOST_RESPONSE] * 99
        for number in ("4242424242424242", "4000000000020042"):
            top_up = await env.admit(await env.open_account(), number=number)
            await env.saga().drive(top_up)
        env.acquirer.failures.clear()
        verdict, violations = await check(env)
        assert (verdict.verdict, violations) == ("sound", [])
        assert verdict.rows == {"top-ups": 7, "payments": 6, "deposits": 1}
        assert verdict.pending == {"top-ups": 2}

    async def test_check_during_top_ups_is_sound(self, env: CardEnvironment) -> None:
        async def create_many() -> None:
            account = await env.open_account()
            for _ in range(6):
                top_up = await env.admit(account)
                await env.saga().drive(top_up)

        creation = asyncio.gather(*(create_many() for _ in range(3)))
        while not creation.done():
            verdict, violations = await check(env)
            assert (verdict.verdict, violations) == ("sound", [])
        await creation
        verdict, _ = await check(env)
        assert verdict.rows == {"top-ups": 18, "payments": 18, "deposits": 18}

    async def test_check_without_the_acquirer_is_unavailable(self, env: CardEnvironment) -> None:
        await create_finished(env)
        env.acquirer.failures["list_payments"] = [Failure.LOST_REQUEST]
        verdict, _ = await check(env)
        assert verdict.verdict == "unavailable"


class TestViolations:
    async def assert_violation(self, env: CardEnvironment, invariant: Invariant, found: str) -> None:
        verdict, (violation,) = await check(env)
        assert (verdict.verdict, verdict.broken) == ("broken", {invariant: 1})
        assert (violation.invariant, found in violation.found) == (invariant, True), violation

    @pytest.mark.parametrize(
        ("number", "changed_status"),
        [
            ("4242424242424242", PaymentStatus.REFUNDED),
            ("4242424242424242", PaymentStatus.AUTHORIZED),
            ("4000000000020042", PaymentStatus.CAPTURED),
            ("4000000000020042", PaymentStatus.AUTHORIZED),
            ("4000000000000002", PaymentStatus.CAPTURED),
        ],
    )
    async def test_payment_with_another_status_violates_payment_matches_top_up(
        self, env: CardEnvironment, number: str, changed_status: PaymentStatus
    ) -> None:
        top_up = await create_finished(env, number)
        payment = env.acquirer.payments[top_up.authorization_key]
        sums: dict[str, Any] = {
            "captured": env.money("10" if changed_status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED} else "0"),
            "refunded": env.money("10" if changed_status is PaymentStatus.REFUNDED else "0"),
        }
        env.acquirer.payments[payment.key] = replace(payment, status=changed_status, **sums)
        await self.assert_violation(
            env, Invariant.PAYMENT_MATCHES_TOP_UP, f"the acquirer's payment is {changed_status}"
        )

    async def test_payment_with_another_amount_violates_payment_matches_top_up(self, env: CardEnvironment) -> None:
        top_up = await create_finished(env)
        payment = env.acquirer.payments[top_up.authorization_key]
        env.acquirer.payments[payment.key] = replace(payment, captured=env.money("9.99"))
        await self.assert_violation(env, Invariant.PAYMENT_MATCHES_TOP_UP, "captured 9.99")

    async def test_missing_payment_violates_payment_matches_top_up(self, env: CardEnvironment) -> None:
        del env.acquirer.payments[(await create_finished(env)).authorization_key]
        await self.assert_violation(env, Invariant.PAYMENT_MATCHES_TOP_UP, "the acquirer has no payment")

    async def test_payment_without_top_up_violates_payment_has_top_up(self, env: CardEnvironment) -> None:
        top_up = await create_finished(env)
        for key in ("unknown", f"{uuid.uuid4()}:authorize"):
            unknown = replace(env.acquirer.payments[top_up.authorization_key], id="99999999", key=key)
            env.acquirer.payments[key] = unknown
            await self.assert_violation(env, Invariant.PAYMENT_HAS_TOP_UP, "CAPTURED, captured 10.00, refunded 0.00")
            del env.acquirer.payments[key]

    async def test_payment_that_holds_nothing_needs_no_top_up(self, env: CardEnvironment) -> None:
        payment = env.acquirer.payments[(await create_finished(env)).authorization_key]
        zero = env.money("0.00")
        refunded = replace(payment, status=PaymentStatus.REFUNDED, refunded=payment.captured)
        voided = replace(payment, status=PaymentStatus.VOIDED, captured=zero, refunded=zero)
        declined = replace(voided, status=PaymentStatus.DECLINED)
        for number, ended in enumerate((refunded, voided, declined)):
            key = f"{uuid.uuid4()}:authorize"
            env.acquirer.payments[key] = replace(ended, id=f"9999999{number}", key=key)
        assert (await check(env))[1] == []
        partly = replace(refunded, refunded=env.money("9.99"))
        held = replace(voided, status=PaymentStatus.AUTHORIZED)
        for unsettled, found in ((partly, "captured 10.00, refunded 9.99"), (held, "AUTHORIZED, captured 0.00")):
            env.acquirer.payments["unsettled"] = replace(unsettled, id="99999999", key="unsettled")
            await self.assert_violation(env, Invariant.PAYMENT_HAS_TOP_UP, found)

    async def test_deposit_without_top_up_violates_deposit_has_top_up(self, env: CardEnvironment) -> None:
        account = await env.open_account()
        deposit = env.bank.client.deposit(account, env.money("7.00"), uuid.uuid4().hex, {"topUpId": str(uuid.uuid4())})
        await env.bank.service("card")(deposit)
        await self.assert_violation(env, Invariant.DEPOSIT_HAS_TOP_UP, f"7.00 {env.currency} to {account}")

    async def test_second_deposit_violates_deposit_has_top_up(self, env: CardEnvironment) -> None:
        top_up = await create_finished(env)
        deposit = env.bank.client.deposit(top_up.account_id, top_up.amount, uuid.uuid4().hex, top_up.descriptor)
        await env.bank.service("card")(deposit)
        await self.assert_violation(env, Invariant.DEPOSIT_HAS_TOP_UP, f"10.00 {env.currency} to {top_up.account_id}")

    async def test_completed_top_up_without_deposit_violates_deposit_matches_top_up(self, env: CardEnvironment) -> None:
        top_up = await env.admit(await env.open_account())
        env.acquirer.failures["capture"] = [Failure.LOST_RESPONSE]
        waiting = await env.saga().drive(top_up)
        captured = replace(waiting, status=Status.CAPTURED, step=Step.DEPOSIT, attempts=0)
        false_row = replace(captured, status=Status.COMPLETED, step=None, transfer_id=uuid.uuid4())
        await env.repository.save(false_row, due_seconds=None)
        await self.assert_violation(env, Invariant.DEPOSIT_MATCHES_TOP_UP, "no deposit")

    async def test_next_attempt_in_the_far_future_violates_next_attempt_within_delay(
        self, env: CardEnvironment
    ) -> None:
        top_up = await env.admit(await env.open_account())
        await env.pool.execute("UPDATE top_ups SET next_attempt_at = now() + interval '59 seconds'")
        assert (await check(env))[0].verdict == "sound"
        await env.pool.execute("UPDATE top_ups SET next_attempt_at = '2999-12-31Z'")
        await self.assert_violation(env, Invariant.NEXT_ATTEMPT_WITHIN_DELAY, "next attempt at 2999-12-31T00:00:00")
        await env.finish(top_up)
        assert (await check(env))[0].verdict == "sound"

    async def test_deposit_that_names_no_top_up_is_ignored(self, env: CardEnvironment) -> None:
        account = await env.open_account()
        await env.bank.service("card")(env.bank.client.deposit(account, env.money("7.00"), uuid.uuid4().hex, {}))
        assert (await check(env))[0].verdict == "sound"


class TestCommands:
    async def test_integrity_and_review_commands_report_a_contradicted_top_up(
        self,
        bank: RunningBank,
        currency: str,
        card_url: str,
        keys: Keys,
        tmp_path: Any,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        codes: list[int] = []

        async def run(command: Callable[..., int], *arguments: Any) -> list[str]:
            capsys.readouterr()
            codes.append(await asyncio.to_thread(command, *arguments))
            # This process also runs the service, which logs to the same output.
            log_line = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
            return [line for line in capsys.readouterr().out.splitlines() if not log_line.match(line)]

        async with sandbox.running(tmp_path, sandbox_timeout_seconds=60) as merchant:
            settings = card_settings(
                keys,
                tmp_path,
                card_url,
                bank,
                str(merchant.http.base_url),
                card_limits=json.dumps({currency: {"top_up": "1", "day": "1"}}),
            )
            async with run_card(bank, merchant, settings) as card:
                admin = AdminEndpoint(card.admin, keys.user("admin", Role.ADMIN))
                account = await bank.open("alice", "0", currency)
                completed = await card.top_up(account, Money.parse("1", currency), "completed")
                assert await run(list_reviews, admin) == ["0 top-ups need manual review"]
                (sound,) = await run(check_integrity, admin, "card")
                assert sound.startswith("card: sound: all invariants hold for 1 top-ups, 1 payments, 1 deposits (")
                payment = await card.payment(completed.id)
                assert payment is not None
                await merchant.change("refund", payment["id"], "external-refund")
                await card.sql.execute("UPDATE top_ups SET next_attempt_at = now()")
                query = "SELECT review FROM top_ups WHERE next_attempt_at IS NULL AND review IS NOT NULL"
                review = await until(lambda: card.sql.fetchval(query))
                description = f"{completed.id} 1.00 {currency} to {account}, COMPLETED, payment {payment['id']}"
                assert await run(list_reviews, admin) == [f"{description}: {review}", "1 top-ups need manual review"]
                assert await run(retry_top_up, admin, completed.id) == [f"retried: {description}: {review}"]
                assert (await run(check_integrity, admin))[-1].startswith("broken: 1 violations (PAYMENT_IS_TOP_UPS 1)")
                (line,) = await run(retry_top_up, admin, uuid.uuid4())
                assert line.startswith(f"not retried: {card.admin} responds with 404: no top-up")
        (line,) = await run(list_reviews, admin)
        assert line.startswith(f"unknown: no response from {card.admin}")
        assert codes == [
            ReviewResult.LIST_EMPTY,
            IntegrityResult.SOUND,
            ReviewResult.LIST_NOT_EMPTY,
            0,
            IntegrityResult.BROKEN,
            ReviewResult.UNKNOWN,
            ReviewResult.UNKNOWN,
        ]
