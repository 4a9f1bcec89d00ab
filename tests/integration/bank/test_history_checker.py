"""The history checker of the load tests reports each planted bug of the bank as a violation of the expected invariant.

Each test runs two banks on one ledger in this process, and plants the bug by a patch of the bank's code.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from loadtests.history.model import Invariant
from subgraphs.bank.service.adapters.postgres import batch
from subgraphs.bank.service.adapters.postgres.batch import Batch
from subgraphs.bank.service.adapters.postgres.rows import account_from_row
from subgraphs.bank.service.application.ledger import Ledger
from subgraphs.bank.service.application.service import Bank
from subgraphs.bank.service.domain import rules
from subgraphs.bank.service.domain.model import Account, Command, Decision, Outcome, Transfer
from tests.conftest import Keys
from tests.databases import CleanDatabases
from tests.integration.bank.fault_trial import FaultTrial
from tests.integration.bank.future import dates_transfers_in_the_future
from tests.integration.bank.harness import run_bank
from wallet.errors import InsufficientFunds
from wallet.money import Money

pytestmark = pytest.mark.slow

SECONDS = 0.3
FREEZE_SECONDS = 5.0
"""Time for three freezes of an account, each after a pause of at most 1.5 s."""
TRIALS = 20
"""Maximum number of trials. Some bugs show only if both banks change an account at once: rarely on a busy machine."""

Plant = Callable[[pytest.MonkeyPatch], None]


def ignores_locks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batch, "_READ_AND_LOCK", batch._READ_ONLY)
    always_true = "SELECT $25::uuid[] IS NOT NULL AND $26::bigint[] IS NOT NULL AND $27::bigint[] IS NOT NULL"
    always_true += " AND $28::timestamptz[] IS NOT NULL AS holds"
    for name in ("_WRITE_IF_UNCHANGED", "_WRITE_IF_UNCHANGED_WITH_WORDS"):
        patch.setattr(batch, name, getattr(batch, name).replace(batch._UNCHANGED, always_true))


def stores_no_keys(patch: pytest.MonkeyPatch) -> None:
    write = Batch.write

    async def write_without_keys(self: Batch, decision: Decision) -> None:
        await write(self, replace(decision, new_records={}))

    patch.setattr(Batch, "write", write_without_keys)


def responds_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    commit, later = Ledger.commit, set[asyncio.Task[Sequence[Outcome]]]()

    async def commit_later(self: Ledger, commands: Sequence[Command], *, locking: bool = True) -> Sequence[Outcome]:
        async with batch.locking_batch(self._pool) as reading:
            state = await reading.read(commands)
        decision = rules.decide(state.accounts, state.records, commands, state.now)
        later.add(asyncio.create_task(commit(self, commands, locking=True)))
        return decision.outcomes

    patch.setattr(Ledger, "commit", commit_later)


def acknowledges_rolled_back_transfers(patch: pytest.MonkeyPatch) -> None:
    commit, rng = Ledger.commit, random.Random(1)

    async def commit_sometimes(self: Ledger, commands: Sequence[Command], *, locking: bool = True) -> Sequence[Outcome]:
        if rng.random() > 0.1:
            return await commit(self, commands, locking=locking)
        async with batch.locking_batch(self._pool) as reading:
            state = await reading.read(commands)
        return rules.decide(state.accounts, state.records, commands, state.now).outcomes

    patch.setattr(Ledger, "commit", commit_sometimes)


def returns_the_previous_balance(patch: pytest.MonkeyPatch) -> None:
    execute = Bank._execute

    async def execute_with_previous_balance(self: Bank, command: Command) -> Transfer:
        transfer = await execute(self, command)
        before = transfer.sender.balance_after + transfer.amount
        return replace(transfer, sender=replace(transfer.sender, balance_after=before))

    patch.setattr(Bank, "_execute", execute_with_previous_balance)


def skips_a_version(patch: pytest.MonkeyPatch) -> None:
    with_balance = Account.with_balance

    def with_skipped_version(self: Account, balance: Money, at: datetime) -> Account:
        after = with_balance(self, balance, at)
        return replace(after, version=after.version + (after.version % 7 == 0))

    patch.setattr(Account, "with_balance", with_skipped_version)


def patch_apply(
    patch: pytest.MonkeyPatch, change: Callable[[Any, dict[Any, Account], Command, datetime], Outcome]
) -> None:
    apply = rules._apply

    def changed(accounts: dict[Any, Account], command: Command, now: datetime, **rest: Any) -> Outcome:
        return change(partial(apply, **rest), accounts, command, now)

    patch.setattr(rules, "_apply", changed)


def allows_overdrafts(patch: pytest.MonkeyPatch) -> None:
    def apply_with_overdraft(apply: Any, accounts: dict[Any, Account], command: Command, now: datetime) -> Outcome:
        sender = accounts.get(command.sender_id)
        if sender and sender.min_balance is not None:
            accounts[sender.id] = replace(sender, min_balance=sender.min_balance - 1_000_000)
        outcome: Outcome = apply(accounts, command, now)
        return outcome

    patch_apply(patch, apply_with_overdraft)


def refuses_covered_transfers(patch: pytest.MonkeyPatch) -> None:
    def apply_with_false_refusal(apply: Any, accounts: dict[Any, Account], command: Command, now: datetime) -> Outcome:
        sender = accounts.get(command.sender_id)
        if sender and not sender.is_clearing and sender.balance.amount < 2 * command.amount.amount:
            available = str(sender.balance)
            return InsufficientFunds(str(sender.id), str(command.amount), available, command.amount.currency)
        outcome: Outcome = apply(accounts, command, now)
        return outcome

    patch_apply(patch, apply_with_false_refusal)


def ignores_the_fingerprint(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Command, "fingerprint", property(lambda self: b"constant"))


def marks_first_responses_as_replays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Command, "is_replay", lambda self, transfer: True)


def marks_no_replay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Command, "is_replay", lambda self, transfer: False)


def allows_used_references(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batch, "_USED_REFERENCES", f"SELECT * FROM ({batch._USED_REFERENCES}) AS used LIMIT 0")


def reads_a_stale_freeze(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batch, "account_from_row", lambda row: replace(account_from_row(row), frozen=None))


def reads_a_stale_floor(patch: pytest.MonkeyPatch) -> None:
    floors: dict[Any, Any] = {}

    def account_with_lowest_floor(row: asyncpg.Record) -> Account:
        account = account_from_row(row)
        if account.is_clearing:
            return account
        assert account.min_balance is not None
        floors[account.id] = min(floors.get(account.id, account.min_balance), account.min_balance)
        return replace(account, min_balance=floors[account.id])

    patch.setattr(batch, "account_from_row", account_with_lowest_floor)


def writes_a_wrong_entry(patch: pytest.MonkeyPatch) -> None:
    for name in (
        "_WRITE_LOCKED",
        "_WRITE_IF_UNCHANGED",
        "_WRITE_LOCKED_WITH_WORDS",
        "_WRITE_IF_UNCHANGED_WITH_WORDS",
    ):
        right = "recipient_version, id, amount, recipient_balance"
        assert right in getattr(batch, name)
        patch.setattr(batch, name, getattr(batch, name).replace(right, f"{right} + 1"))


def decreases_times(patch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)

    def apply_with_earlier_time(apply: Any, accounts: dict[Any, Account], command: Command, now: datetime) -> Outcome:
        outcome: Outcome = apply(accounts, command, now)
        if isinstance(outcome, Transfer):
            return replace(outcome, created_at=outcome.created_at - timedelta(seconds=rng.uniform(0, 9)))
        return outcome

    patch_apply(patch, apply_with_earlier_time)


async def drop_check_constraints(ledger_url: str) -> None:
    """Drop the check constraints and the index of unique references, which would prevent some of the bugs."""
    connection = await asyncpg.connect(ledger_url)
    for check in await connection.fetch(
        "SELECT conname, conrelid::regclass::text AS of FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
    ):
        await connection.execute(f"ALTER TABLE {check['of']} DROP CONSTRAINT {check['conname']}")
    await connection.execute("DROP INDEX transfer_words_unique_reference")
    await connection.close()


async def cause_no_fault() -> None:
    await asyncio.sleep(SECONDS)


@pytest.mark.parametrize(
    ("plant", "invariant"),
    [
        (ignores_locks, Invariant.DEFECT),
        (stores_no_keys, Invariant.ONE_KEY),
        (responds_before_the_commit, Invariant.ACKNOWLEDGED),
        (acknowledges_rolled_back_transfers, Invariant.ACKNOWLEDGED),
        (returns_the_previous_balance, Invariant.RECEIPT),
        (skips_a_version, Invariant.ORDER),
        (allows_overdrafts, Invariant.RULES),
        (refuses_covered_transfers, Invariant.JUSTIFIED),
        (ignores_the_fingerprint, Invariant.CONFLICT),
        (marks_first_responses_as_replays, Invariant.REPLAY),
        (marks_no_replay, Invariant.REPLAY),
        (allows_used_references, Invariant.REFERENCE),
        (reads_a_stale_freeze, Invariant.FROZEN),
        (reads_a_stale_floor, Invariant.FLOOR),
        (writes_a_wrong_entry, Invariant.ENTRIES),
        (decreases_times, Invariant.TIME),
        (dates_transfers_in_the_future, Invariant.FUTURE),
    ],
    ids=lambda value: value.__name__ if callable(value) else value.name,
)
async def test_history_checker_finds_the_planted_bug(
    ledgers: CleanDatabases,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    invariant: Invariant,
) -> None:
    plant(monkeypatch)
    for seed in range(1, TRIALS + 1):
        # Each trial has a ledger of its own: the rows of an earlier trial, which this one did not request, would be
        # violations, too.
        async with ledgers.one() as ledger_url, AsyncExitStack() as stack:
            await drop_check_constraints(ledger_url)
            banks = [await stack.enter_async_context(run_bank(keys, tmp_path, ledger_url)) for _ in range(2)]
            trial = FaultTrial(seed, keys, ledger_url, [], [bank.client for bank in banks])
            if plant is reads_a_stale_freeze:
                violations = await trial.find_violations(4, [trial.freeze_account] * 3, FREEZE_SECONDS)
            elif plant is reads_a_stale_floor:
                violations = await trial.find_violations(4, [trial.change_floor] * 4, FREEZE_SECONDS)
            else:
                violations = await trial.find_violations(4, [cause_no_fault], SECONDS)
        violated = {each.invariant for each in violations}
        print(sorted(each.name for each in violated), trial.summary)  # noqa: T201  shown when the test fails
        if invariant in violated:
            break
    assert invariant in violated
