"""Top-ups after the bank's ledger was restored from an older backup: the ledger lacks their deposits."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from subgraphs.card.service.adapters.bank_ledger import BankLedger
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.top_up import TopUp
from tests.conftest import Keys
from tests.integration.bank.harness import run_bank
from tests.integration.card.environment import CardEnvironment


@pytest.fixture
async def top_up(env: CardEnvironment) -> TopUp:
    """A completed top-up."""
    return await env.finish(await env.admit(await env.bank.open("alice", "0")))


@pytest.fixture
async def restored(
    env: CardEnvironment, top_up: TopUp, ledger_url: str, keys: Keys, tmp_path: Path
) -> AsyncIterator[CardEnvironment]:
    """Environment of `top_up` with a ledger that has no operations. The account of the top-up exists."""
    async with run_bank(keys, tmp_path, ledger_url) as bank:
        await bank.open("alice", "0", id=top_up.account_id)
        yield replace(env, bank=bank, ledger=BankLedger(bank.client, lambda: bank.keys.service("card")))


async def test_deposit_that_the_ledger_has_needs_no_review(env: CardEnvironment, top_up: TopUp) -> None:
    assert await env.saga().review_missing_deposits() == 0
    await env.assert_books_agree(top_up)


async def test_deposit_that_the_ledger_lacks_is_reviewed_and_made_again(
    restored: CardEnvironment, top_up: TopUp
) -> None:
    assert [await restored.saga().review_missing_deposits() for _ in range(2)] == [1, 0]
    lost = await restored.reload(top_up)
    assert lost.review == f"COMPLETED, but the ledger has no deposit {top_up.transfer_id}"
    assert [each.id for each in await restored.repository.list_for_review()] == [top_up.id]
    await restored.saga().retry(top_up.id)
    settled = await restored.finish(top_up)
    assert settled.transfer_id != top_up.transfer_id
    await restored.assert_books_agree(top_up)


async def test_deposit_of_a_refunded_payment_is_not_made_again(restored: CardEnvironment, top_up: TopUp) -> None:
    await restored.saga().review_missing_deposits()
    payment = restored.acquirer.payments[top_up.authorization_key]
    refunded = replace(payment, status=PaymentStatus.REFUNDED, refunded=payment.captured)
    restored.acquirer.payments[top_up.authorization_key] = refunded
    await restored.saga().retry(top_up.id)
    assert (await restored.finish(top_up)).review is not None
    assert await restored.credited_amount(top_up.id) == 0


async def test_deposit_to_an_account_that_the_ledger_lacks_stays_under_review(
    restored: CardEnvironment, top_up: TopUp
) -> None:
    await restored.bank.sql.execute("DELETE FROM accounts WHERE id = $1", top_up.account_id)
    await restored.saga().review_missing_deposits()
    await restored.saga().retry(top_up.id)
    reviewed = await restored.finish(top_up)
    assert "ACCOUNT_NOT_FOUND" in (reviewed.review or "")
    assert reviewed.transfer_id == top_up.transfer_id
