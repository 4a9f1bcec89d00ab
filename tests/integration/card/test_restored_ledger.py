"""Top-ups after the bank's ledger was restored from an older backup: the ledger lacks their deposits."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from subgraphs.card.service.adapters import bank_ledger
from subgraphs.card.service.adapters.bank_ledger import BankLedger
from subgraphs.card.service.domain import transitions
from subgraphs.card.service.domain.deposit import AccountRefused
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.top_up import TopUp
from tests.conftest import Keys
from tests.integration.bank.harness import run_bank
from tests.integration.card.environment import CardEnvironment
from tests.logs import own_warnings
from wallet.errors import TopUpNotFound, Unavailable


class UnavailableLedger(BankLedger):
    """Ledger whose reads fail."""

    def __init__(self) -> None:
        pass

    async def find_deposit(self, top_up: TopUp) -> UUID | None:
        raise Unavailable


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
    restored.refund(top_up)
    await restored.saga().retry(top_up.id)
    ended = await restored.finish(top_up)
    assert (ended.status, ended.failure, ended.transfer_id) == ("REFUNDED", "DEPOSIT_LOST", None)
    await restored.assert_books_agree(top_up)


async def test_webhook_of_a_refund_ends_the_top_up_without_a_retry(restored: CardEnvironment, top_up: TopUp) -> None:
    await restored.saga().review_missing_deposits()
    restored.refund(top_up)
    assert await restored.repository.record_webhook(
        uuid.uuid4().hex, "payment.refunded", top_up.id, PaymentStatus.REFUNDED
    )
    ended = await restored.finish(top_up)
    assert (ended.status, ended.failure) == ("REFUNDED", "DEPOSIT_LOST")
    with pytest.raises(TopUpNotFound):
        await restored.saga().retry(top_up.id)


async def test_deposit_of_a_partly_refunded_payment_stays_under_review(
    restored: CardEnvironment, top_up: TopUp
) -> None:
    await restored.saga().review_missing_deposits()
    payment = restored.acquirer.payments[top_up.authorization_key]
    partly = replace(payment, status=PaymentStatus.REFUNDED, refunded=restored.money("1.00"))
    restored.acquirer.payments[top_up.authorization_key] = partly
    await restored.saga().retry(top_up.id)
    reviewed = await restored.finish(top_up)
    assert reviewed.status == "COMPLETED"
    assert "refunded 1.00" in (reviewed.review or "")


async def test_refunded_payment_of_a_credited_top_up_stays_under_review(env: CardEnvironment, top_up: TopUp) -> None:
    env.refund(top_up)
    await env.repository.save(replace(top_up, review="reported by an operator"), due_seconds=None)
    await env.saga().retry(top_up.id)
    reviewed = await env.finish(top_up)
    assert (reviewed.status, reviewed.transfer_id) == ("COMPLETED", top_up.transfer_id)
    assert reviewed.review == "COMPLETED, but the acquirer's payment is REFUNDED"


async def test_deposit_to_an_account_that_the_ledger_lacks_stays_under_review(
    restored: CardEnvironment, top_up: TopUp
) -> None:
    await restored.bank.sql.execute("DELETE FROM accounts WHERE id = $1", top_up.account_id)
    await restored.saga().review_missing_deposits()
    await restored.saga().retry(top_up.id)
    with capture_logs() as logs:
        reviewed = await restored.finish(top_up)
    assert [each["event"] for each in own_warnings(logs)] == ["final top-up needs review"]
    assert "ACCOUNT_NOT_FOUND" in (reviewed.review or "")
    assert reviewed.transfer_id == top_up.transfer_id


async def test_deposit_to_an_account_that_is_opened_again_is_made_by_a_retry(
    restored: CardEnvironment, top_up: TopUp
) -> None:
    await restored.bank.sql.execute("DELETE FROM accounts WHERE id = $1", top_up.account_id)
    await restored.saga().review_missing_deposits()
    for _ in range(2):
        await restored.saga().retry(top_up.id)
        assert "ACCOUNT_NOT_FOUND" in ((await restored.finish(top_up)).review or "")
    await restored.bank.open("alice", "0", id=top_up.account_id)
    await restored.saga().retry(top_up.id)
    await restored.finish(top_up)
    await restored.assert_books_agree(top_up)


async def test_deposit_of_a_refunded_top_up_stays_refused_after_the_account_is_opened(
    env: CardEnvironment, restored: CardEnvironment
) -> None:
    """After the bank refuses the deposit, the saga refunds the payment: a late deposit must not credit the account."""
    new = await env.admit(await env.bank.open("alice", "0"))
    assert await restored.ledger.deposit(new) == AccountRefused("ACCOUNT_NOT_FOUND")
    await restored.bank.open("alice", "0", id=new.account_id)
    assert await restored.ledger.deposit(new) == AccountRefused("ACCOUNT_NOT_FOUND")
    assert await restored.credited_amount(new.id) == 0


@pytest.fixture
async def deposited_twice(env: CardEnvironment, restored: CardEnvironment, top_up: TopUp) -> TopUp:
    """Top-up whose deposit was made again in the restored ledger. The ledger of `env` has the first deposit."""
    await restored.saga().review_missing_deposits()
    await restored.saga().retry(top_up.id)
    return await restored.finish(top_up)


async def test_entry_is_dropped_when_a_later_restore_brings_the_deposit_back(
    env: CardEnvironment, restored: CardEnvironment, top_up: TopUp
) -> None:
    assert await restored.saga().review_missing_deposits() == 1
    assert await env.saga().review_missing_deposits() == 0
    assert await env.repository.list_for_review() == []
    await env.assert_books_agree(top_up)


async def test_deposit_that_a_later_restore_brings_back_replaces_the_second_deposit(
    env: CardEnvironment, top_up: TopUp, deposited_twice: TopUp
) -> None:
    assert deposited_twice.transfer_id != top_up.transfer_id
    with capture_logs() as logs:
        assert await env.saga().review_missing_deposits() == 0
    assert own_warnings(logs) == []
    settled = await env.assert_books_agree(top_up)
    assert settled.transfer_id == top_up.transfer_id


async def test_refund_of_a_top_up_whose_first_deposit_is_back_stays_under_review(
    env: CardEnvironment, top_up: TopUp, deposited_twice: TopUp
) -> None:
    await env.repository.save(transitions.review_missing_deposit(deposited_twice), due_seconds=None)
    env.refund(top_up)
    await env.repository.record_webhook(uuid.uuid4().hex, "payment.refunded", top_up.id, PaymentStatus.REFUNDED)
    reviewed = await env.finish(top_up)
    assert (reviewed.status, reviewed.transfer_id) == ("COMPLETED", top_up.transfer_id)
    assert reviewed.review == "COMPLETED, but the acquirer's payment is REFUNDED"
    assert await env.saga().review_missing_deposits() == 0
    assert (await env.reload(top_up)).review == reviewed.review


async def test_refund_while_the_ledger_is_unavailable_is_settled_later(
    restored: CardEnvironment, top_up: TopUp
) -> None:
    await restored.saga().review_missing_deposits()
    restored.refund(top_up)
    await restored.repository.record_webhook(uuid.uuid4().hex, "payment.refunded", top_up.id, PaymentStatus.REFUNDED)
    (due,) = await restored.repository.claim(1, lease_seconds=0, id_=top_up.id)
    unavailable = replace(restored, ledger=UnavailableLedger())
    assert (await unavailable.saga().drive(due)).status == "COMPLETED"
    assert (await restored.finish(top_up)).failure == "DEPOSIT_LOST"


async def test_deposit_with_another_id_is_found_on_a_later_page(
    env: CardEnvironment, top_up: TopUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_ledger, "_PAGE_SIZE", 1)
    later = await env.finish(await env.admit(top_up.account_id))
    without_deposit = replace(await env.admit(top_up.account_id), transfer_id=uuid.uuid4())
    assert await env.ledger.find_deposit(replace(later, transfer_id=uuid.uuid4())) == later.transfer_id
    assert await env.ledger.find_deposit(without_deposit) is None
