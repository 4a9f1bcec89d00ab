"""The checker can fail: banks that are broken on purpose, each in one way, and the invariant that it violates.

Two on one ledger, in this process, patched for the length of a test: nothing in the bank itself can be switched so.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from loadtests.history.model import Invariant
from subgraphs.bank.service.adapters.postgres import batch
from subgraphs.bank.service.adapters.postgres.batch import Batch
from subgraphs.bank.service.application.ledger import Ledger
from subgraphs.bank.service.application.service import Bank
from subgraphs.bank.service.domain import rules
from subgraphs.bank.service.domain.model import Account, Command, Decision, Outcome, Transfer
from tests.conftest import Keys
from tests.integration.bank.fault_trial import Trial
from tests.integration.bank.harness import run_bank
from wallet.errors import InsufficientFunds
from wallet.money import Money

pytestmark = pytest.mark.slow

SECONDS = 1.0

Plant = Callable[[pytest.MonkeyPatch], None]


def forgets_the_locks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batch, "_READ_AND_LOCK", batch._READ_ONLY)
    unseen = "SELECT $25::uuid[] IS NOT NULL AND $26::bigint[] IS NOT NULL AND $27::text[] IS NOT NULL AS holds"
    patch.setattr(batch, "_WRITE_IF_UNCHANGED", batch._WRITE.format(precondition=unseen))


def pins_nothing(patch: pytest.MonkeyPatch) -> None:
    write = Batch.write

    async def forgetful(self: Batch, decision: Decision) -> None:
        await write(self, replace(decision, new_records={}))

    patch.setattr(Batch, "write", forgetful)


def answers_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    commit, later = Ledger.commit, set[asyncio.Task[Sequence[Outcome]]]()

    async def hasty(self: Ledger, commands: Sequence[Command], *, locking: bool = True) -> Sequence[Outcome]:
        async with batch.locking_batch(self._pool) as reading:
            accounts, remembered = await reading.read(commands)
        decision = rules.decide(accounts, remembered, commands, datetime.now().astimezone())
        later.add(asyncio.create_task(commit(self, commands, locking=True)))
        return decision.outcomes

    patch.setattr(Ledger, "commit", hasty)


def acknowledges_what_it_rolls_back(patch: pytest.MonkeyPatch) -> None:
    commit, chance = Ledger.commit, random.Random(1)

    async def careless(self: Ledger, commands: Sequence[Command], *, locking: bool = True) -> Sequence[Outcome]:
        if chance.random() > 0.1:
            return await commit(self, commands, locking=locking)
        async with batch.locking_batch(self._pool) as reading:
            accounts, remembered = await reading.read(commands)
        return rules.decide(accounts, remembered, commands, datetime.now().astimezone()).outcomes

    patch.setattr(Ledger, "commit", careless)


def tells_the_balance_before(patch: pytest.MonkeyPatch) -> None:
    made = Bank._execute

    async def stale(self: Bank, command: Command) -> Transfer:
        transfer = await made(self, command)
        before = transfer.sender.balance_after + transfer.amount
        return replace(transfer, sender=replace(transfer.sender, balance_after=before))

    patch.setattr(Bank, "_execute", stale)


def skips_a_version(patch: pytest.MonkeyPatch) -> None:
    with_balance = Account.with_balance

    def skipping(self: Account, balance: Money, at: datetime) -> Account:
        after = with_balance(self, balance, at)
        return replace(after, version=after.version + (after.version % 7 == 0))

    patch.setattr(Account, "with_balance", skipping)


def applied(patch: pytest.MonkeyPatch, change: Callable[[Any, dict[Any, Account], Command, datetime], Outcome]) -> None:
    apply = rules._apply
    patch.setattr(rules, "_apply", lambda accounts, command, now: change(apply, accounts, command, now))


def lets_anybody_overdraw(patch: pytest.MonkeyPatch) -> None:
    def generous(apply: Any, accounts: dict[Any, Account], command: Command, now: datetime) -> Outcome:
        sender = accounts.get(command.sender_id)
        if sender and sender.min_balance is not None:
            accounts[sender.id] = replace(sender, min_balance=sender.min_balance - 1_000_000)
        outcome: Outcome = apply(accounts, command, now)
        return outcome

    applied(patch, generous)


def refuses_who_has_enough(patch: pytest.MonkeyPatch) -> None:
    def stingy(apply: Any, accounts: dict[Any, Account], command: Command, now: datetime) -> Outcome:
        sender = accounts.get(command.sender_id)
        if sender and not sender.is_clearing and sender.balance.amount < 2 * command.amount.amount:
            available = str(sender.balance)
            return InsufficientFunds(str(sender.id), str(command.amount), available, command.amount.currency)
        outcome: Outcome = apply(accounts, command, now)
        return outcome

    applied(patch, stingy)


def takes_a_key_for_any_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Command, "fingerprint", property(lambda self: b"all the same"))


def writes_a_wrong_entry(patch: pytest.MonkeyPatch) -> None:
    for name in ("_WRITE_LOCKED", "_WRITE_IF_UNCHANGED"):
        right = "recipient_version, id, amount, recipient_balance"
        assert right in getattr(batch, name)
        patch.setattr(batch, name, getattr(batch, name).replace(right, f"{right} + 1"))


def lets_time_run_backwards(patch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)

    def unsteady(apply: Any, accounts: dict[Any, Account], command: Command, now: datetime) -> Outcome:
        outcome: Outcome = apply(accounts, command, now)
        if isinstance(outcome, Transfer):
            return replace(outcome, created_at=outcome.created_at - timedelta(seconds=chance.uniform(0, 9)))
        return outcome

    applied(patch, unsteady)


async def without_checks(ledger_url: str) -> None:
    """The database would stop some of it."""
    connection = await asyncpg.connect(ledger_url)
    for check in await connection.fetch(
        "SELECT conname, conrelid::regclass::text AS of FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
    ):
        await connection.execute(f"ALTER TABLE {check['of']} DROP CONSTRAINT {check['conname']}")
    await connection.close()


async def undisturbed() -> None:
    await asyncio.sleep(SECONDS)


@pytest.mark.parametrize(
    ("plant", "invariant"),
    [
        (forgets_the_locks, Invariant.DEFECT),
        (pins_nothing, Invariant.ONE_KEY),
        (answers_before_it_commits, Invariant.ACKNOWLEDGED),
        (acknowledges_what_it_rolls_back, Invariant.ACKNOWLEDGED),
        (tells_the_balance_before, Invariant.RECEIPT),
        (skips_a_version, Invariant.ORDER),
        (lets_anybody_overdraw, Invariant.RULES),
        (refuses_who_has_enough, Invariant.JUSTIFIED),
        (takes_a_key_for_any_request, Invariant.CONFLICT),
        (writes_a_wrong_entry, Invariant.ENTRIES),
        (lets_time_run_backwards, Invariant.TIME),
    ],
    ids=lambda value: value.__name__ if callable(value) else value.name,
)
async def test_history_checker_finds_the_planted_bug(
    ledger_url: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant, invariant: Invariant
) -> None:
    await without_checks(ledger_url)
    plant(monkeypatch)
    async with AsyncExitStack() as stack:
        banks = [await stack.enter_async_context(run_bank(keys, tmp_path, ledger_url)) for _ in range(2)]
        held = Trial(1, keys, ledger_url, [], [bank.client for bank in banks])
        violations = await held.judged(4, [undisturbed], SECONDS)
    broken = {violation.invariant for violation in violations}
    print(sorted(each.name for each in broken), held.summary)  # noqa: T201  shown when the test fails
    assert invariant in broken
