"""Decisions on batches of commands, compared with a simple model, and decisions on single commands."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgraphs.bank.service.domain.model import (
    Account,
    AccountStatus,
    Command,
    Decision,
    Freeze,
    IdempotencyKey,
    IdempotencyRecord,
    Outcome,
    Purpose,
    Transfer,
    TransferKind,
)
from subgraphs.bank.service.domain.rules import decide
from wallet.accounts import clearing_account_id
from wallet.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    CurrencyMismatch,
    IdempotencyConflict,
    InsufficientFunds,
    WalletError,
)
from wallet.money import Money

START = datetime(2025, 1, 1, tzinfo=UTC)
IDS = [UUID(int=n) for n in range(1, 7)]
UNKNOWN = UUID(int=99)
CURRENCIES = ("RUB", "JPY")
OWNERS = ("alice", "bob")


@st.composite
def ledgers(draw: st.DrawFn) -> dict[UUID, Account]:
    """Generate accounts of two currencies, and the clearing account of each currency.

    Some accounts are closed, some may have a negative balance, some have no owner.
    """
    accounts = {}
    for id_ in IDS:
        floor = draw(st.sampled_from([Decimal(0), Decimal(0), Decimal(-5), Decimal(3)]))
        last = START + timedelta(seconds=draw(st.integers(-5, 5)))
        accounts[id_] = Account(
            id_,
            draw(st.sampled_from([*OWNERS, None])),
            draw(st.sampled_from([AccountStatus.OPEN, AccountStatus.OPEN, AccountStatus.OPEN, AccountStatus.CLOSED])),
            Money(floor + draw(st.integers(0, 12)), draw(st.sampled_from(CURRENCIES))),
            floor,
            draw(st.integers(0, 3)),
            START - timedelta(days=1),
            last,
            frozen=draw(st.sampled_from([None, None, None, *Freeze])),
        )
    for currency in CURRENCIES:
        id_ = clearing_account_id(currency)
        balance = Money(Decimal(-100), currency)
        accounts[id_] = Account(id_, None, AccountStatus.OPEN, balance, None, 7, START, START, purpose=Purpose.CLEARING)
    return accounts


@st.composite
def command(draw: st.DrawFn) -> Command:
    """Generate a command that passes `check`; about half of the commands are refused."""
    amount = Money(Decimal(draw(st.integers(1, 9))), draw(st.sampled_from(CURRENCIES)))
    is_deposit = draw(st.booleans())
    clearing = [clearing_account_id(currency) for currency in CURRENCIES]
    sender = clearing_account_id(amount.currency) if is_deposit else draw(st.sampled_from([*IDS, UNKNOWN]))
    recipient = draw(st.sampled_from([*IDS, *clearing, UNKNOWN]).filter(lambda id_: id_ != sender))
    scope = ("card", "deposit") if is_deposit else (draw(st.sampled_from(OWNERS)), "transfer")
    return Command(
        draw(st.uuids(version=4)),
        TransferKind.DEPOSIT if is_deposit else TransferKind.TRANSFER,
        sender,
        recipient,
        amount,
        IdempotencyKey(*scope, draw(st.sampled_from("abcdefgh"))),
        owner_id=None if is_deposit else draw(st.sampled_from([*OWNERS, None])),
        descriptor={"note": draw(st.sampled_from("xy"))} if is_deposit else {},
    )


@st.composite
def batches(draw: st.DrawFn) -> list[Command]:
    """Generate commands. Some keys are used again, with the same request or another one."""
    batch = draw(st.lists(command(), max_size=20))
    for _ in range(draw(st.integers(0, 5)) if batch else 0):
        again = replace(draw(st.sampled_from(batch)), transfer_id=draw(st.uuids(version=4)))
        if draw(st.booleans()):
            again = replace(again, amount=replace(again.amount, amount=again.amount.amount + 1))
        batch.insert(draw(st.integers(0, len(batch))), again)
    return batch


@dataclass
class Model:
    """Simple model of the ledger's rules, with balances as integers."""

    balance: dict[UUID, int]
    version: dict[UUID, int]
    accounts: dict[UUID, Account]
    outcomes: dict[tuple[str, str, str], tuple[tuple[Any, ...], tuple[Any, ...]]] = field(default_factory=dict)

    @classmethod
    def from_accounts(cls, accounts: dict[UUID, Account]) -> "Model":
        return cls(
            {id_: int(account.balance.amount) for id_, account in accounts.items()},
            {id_: account.version for id_, account in accounts.items()},
            accounts,
        )

    def decide(self, request: Command) -> tuple[Any, ...]:
        key = (request.key.principal, request.key.operation, request.key.key)
        body = (
            request.kind,
            request.sender_id,
            request.recipient_id,
            request.amount,
            tuple(request.descriptor.items()),
        )
        if key in self.outcomes:
            first_body, outcome = self.outcomes[key]
            return outcome if body == first_body else ("conflict", request.key.key)
        outcome = self._apply(request)
        self.outcomes[key] = (body, outcome)
        return outcome

    def _apply(self, request: Command) -> tuple[Any, ...]:  # noqa: PLR0911  one return per reason
        sender, recipient = request.sender_id, request.recipient_id
        if sender not in self.accounts:
            return ("no account", sender)
        if request.owner_id is not None and self.accounts[sender].owner_id != request.owner_id:
            return ("no account", sender)
        if recipient not in self.accounts:
            return ("no account", recipient)
        if request.kind == "TRANSFER" and self.accounts[recipient].is_clearing:
            return ("no account", recipient)
        for id_, direction in ((sender, "OUTGOING"), (recipient, "INCOMING")):
            if self.accounts[id_].status == "CLOSED":
                return ("closed", id_)
            if self.accounts[id_].frozen in {direction, "ALL"}:
                return ("frozen", id_)
            if self.accounts[id_].balance.currency != request.amount.currency:
                return ("currency", id_)
        floor, amount = self.accounts[sender].min_balance, int(request.amount.amount)
        if floor is not None and self.balance[sender] - amount < floor:
            return ("insufficient", sender, amount, self.balance[sender] - int(floor))
        self.balance[sender] -= amount
        self.balance[recipient] += amount
        self.version[sender] += 1
        self.version[recipient] += 1
        return (
            "done",
            (sender, self.version[sender], self.balance[sender]),
            (recipient, self.version[recipient], self.balance[recipient]),
            amount,
        )


def model_outcome(outcome: Outcome) -> tuple[Any, ...]:  # noqa: PLR0911  one return per reason
    """Convert an outcome to the model's form."""
    match outcome:
        case Transfer():
            sides = ((side.account_id, side.version, side.balance_after.amount) for side in _sides(outcome))
            return ("done", *sides, outcome.amount.amount)
        case AccountNotFound(account_id):
            return ("no account", UUID(account_id))
        case AccountClosed(account_id):
            return ("closed", UUID(account_id))
        case AccountFrozen(account_id):
            return ("frozen", UUID(account_id))
        case CurrencyMismatch(account_id, _):
            return ("currency", UUID(account_id))
        case InsufficientFunds(account_id, needed, available, _):
            return ("insufficient", UUID(account_id), Decimal(needed), Decimal(available))
        case IdempotencyConflict(key):
            return ("conflict", key)
    raise AssertionError(outcome)


def _sides(completed: Transfer) -> tuple[Any, Any]:
    return completed.sender, completed.recipient


def totals(accounts: dict[UUID, Account]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for account in accounts.values():
        sums[account.balance.currency] += account.balance.amount
    return sums


def accounts_after(accounts: dict[UUID, Account], decision: Decision) -> dict[UUID, Account]:
    return accounts | {account.id: account for account in decision.accounts}


class TestAgainstTheModel:
    @given(ledgers(), batches())
    def test_outcomes_and_balances_match_the_model(self, accounts: dict[UUID, Account], batch: list[Command]) -> None:
        model = Model.from_accounts(accounts)
        decision = decide(accounts, {}, batch, START)
        assert [model_outcome(outcome) for outcome in decision.outcomes] == [model.decide(request) for request in batch]
        after = accounts_after(accounts, decision)
        assert {id_: account.balance.amount for id_, account in after.items()} == model.balance
        assert {id_: account.version for id_, account in after.items()} == model.version

    @given(ledgers(), batches())
    def test_decision_conserves_the_total_of_each_currency(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        decision = decide(accounts, {}, batch, START)
        assert totals(accounts_after(accounts, decision)) == totals(accounts)

    @given(ledgers(), batches())
    def test_decision_keeps_balances_above_their_minimum(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        decision = decide(accounts, {}, batch, START)
        for account in decision.accounts:
            assert account.min_balance is None or account.balance.amount >= account.min_balance

    @given(ledgers(), batches())
    def test_versions_have_no_gaps_and_times_do_not_decrease(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        decision = decide(accounts, {}, batch, START)
        last = {id_: (account.version, account.updated_at) for id_, account in accounts.items()}
        for completed in decision.transfers:
            at = completed.created_at
            assert at >= START
            for side in _sides(completed):
                version, time = last[side.account_id]
                assert side.version == version + 1
                assert at >= time
                last[side.account_id] = (side.version, at)
        for account in decision.accounts:
            assert (account.version, account.updated_at) == last[account.id]

    @given(ledgers(), batches())
    def test_postings_have_the_balance_after_each_transfer(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        held = {id_: account.balance for id_, account in accounts.items()}
        for completed in decide(accounts, {}, batch, START).transfers:
            held[completed.sender.account_id] -= completed.amount
            held[completed.recipient.account_id] += completed.amount
            for side in _sides(completed):
                assert side.balance_after == held[side.account_id]

    @given(ledgers(), batches())
    def test_batch_decides_the_same_as_single_commands(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        batch_decision = decide(accounts, {}, batch, START)
        now, records, outcomes = accounts, dict[IdempotencyKey, IdempotencyRecord](), list[Outcome]()
        for request in batch:
            single = decide(now, records, [request], START)
            now = accounts_after(now, single)
            records |= single.new_records
            outcomes.extend(single.outcomes)
        assert outcomes == batch_decision.outcomes
        assert now == accounts_after(accounts, batch_decision)
        assert records == batch_decision.new_records

    @given(ledgers(), batches())
    def test_replayed_batch_returns_the_same_outcomes_and_changes_nothing(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        first = decide(accounts, {}, batch, START)
        later = START + timedelta(days=1)
        again = decide(accounts_after(accounts, first), first.new_records, batch, later)
        assert again.outcomes == first.outcomes
        assert (again.transfers, again.accounts, again.new_records) == ([], [], {})

    @given(ledgers(), batches())
    def test_decision_has_the_transfers_records_and_accounts_of_its_outcomes(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        before = dict(accounts)
        decision = decide(accounts, {}, batch, START)
        assert len(decision.outcomes) == len(batch)
        assert accounts == before
        assert {completed.id for completed in decision.transfers} == {
            outcome.id for outcome in decision.outcomes if isinstance(outcome, Transfer)
        }
        assert decision.new_records.keys() == {request.key for request in batch}
        touched = {side.account_id for completed in decision.transfers for side in _sides(completed)}
        assert {account.id for account in decision.accounts} == touched


def account(id_: UUID, balance: str = "10.00", **changed: Any) -> Account:
    opened = Account(id_, "alice", AccountStatus.OPEN, Money.parse(balance), Decimal(0), 0, START, START)
    return replace(opened, **changed)


def transfer(sender: UUID, recipient: UUID, amount: str, key: str = "k", **changed: Any) -> Command:
    scope = IdempotencyKey("users|alice", "transfer", key)
    request = Command(uuid4(), TransferKind.TRANSFER, sender, recipient, Money.parse(amount), scope, "alice", {})
    return replace(request, **changed)


A, B, C = IDS[:3]


class TestDecide:
    def test_command_sees_balances_after_earlier_commands(self) -> None:
        accounts = {A: account(A), B: account(B, "0"), C: account(C, "0")}
        batch = [transfer(A, B, "10", "1"), transfer(B, C, "10", "2"), transfer(A, C, "0.01", "3")]
        first, second, third = decide(accounts, {}, batch, START).outcomes
        assert isinstance(first, Transfer)
        assert isinstance(second, Transfer)
        assert third == InsufficientFunds(str(A), needed="0.01", available="0.00", currency="RUB")

    def test_transfer_of_the_full_balance_succeeds_and_of_more_is_refused(self) -> None:
        accounts = {A: account(A), B: account(B)}
        assert isinstance(decide(accounts, {}, [transfer(A, B, "10.00")], START).outcomes[0], Transfer)
        refused = decide(accounts, {}, [transfer(A, B, "10.01")], START).outcomes[0]
        assert refused == InsufficientFunds(str(A), needed="10.01", available="10.00", currency="RUB")

    def test_available_amount_includes_the_overdraft(self) -> None:
        accounts = {A: account(A, min_balance=Decimal("-5.0000")), B: account(B)}
        refused = decide(accounts, {}, [transfer(A, B, "15.01")], START).outcomes[0]
        assert refused == InsufficientFunds(str(A), needed="15.01", available="15.00", currency="RUB")

    def test_replayed_refusal_is_returned_after_money_arrived(self) -> None:
        accounts = {A: account(A, "0"), B: account(B)}
        poor = transfer(A, B, "1", "poor")
        batch = [poor, transfer(B, A, "5", "rich"), replace(poor, transfer_id=uuid4())]
        first, _, again = decide(accounts, {}, batch, START).outcomes
        assert isinstance(first, InsufficientFunds)
        assert again == first

    def test_duplicate_in_one_batch_returns_the_same_transfer(self) -> None:
        accounts = {A: account(A), B: account(B)}
        request = transfer(A, B, "1")
        decision = decide(accounts, {}, [request, replace(request, transfer_id=uuid4())], START)
        assert len(decision.transfers) == 1
        assert decision.outcomes[0] is decision.outcomes[1]

    def test_conflict_does_not_replace_the_first_outcome(self) -> None:
        accounts = {A: account(A), B: account(B)}
        request = transfer(A, B, "1")
        batch = [request, transfer(A, B, "2"), replace(request, transfer_id=uuid4())]
        first, conflict, again = decide(accounts, {}, batch, START).outcomes
        assert conflict == IdempotencyConflict("k")
        assert again is first

    def test_account_of_another_owner_is_not_found(self) -> None:
        accounts = {A: account(A, owner_id="bob"), B: account(B)}
        refused: WalletError | Transfer = decide(accounts, {}, [transfer(A, B, "1")], START).outcomes[0]
        assert refused == decide({B: account(B)}, {}, [transfer(A, B, "1")], START).outcomes[0]
        assert refused == AccountNotFound(str(A))

    def test_account_without_owner_is_not_found_for_a_customer(self) -> None:
        accounts = {A: account(A, owner_id=None), B: account(B)}
        assert decide(accounts, {}, [transfer(A, B, "1")], START).outcomes[0] == AccountNotFound(str(A))
        assert isinstance(decide(accounts, {}, [transfer(A, B, "1", owner_id=None)], START).outcomes[0], Transfer)

    def test_transfer_from_a_clearing_account_is_refused(self) -> None:
        accounts = {A: account(A, owner_id=None, purpose=Purpose.CLEARING), B: account(B)}
        assert decide(accounts, {}, [transfer(A, B, "1", owner_id=None)], START).outcomes[0] == AccountNotFound(str(A))

    def test_transfer_to_a_clearing_account_is_refused(self) -> None:
        accounts = {A: account(A), B: account(B, purpose=Purpose.CLEARING)}
        assert decide(accounts, {}, [transfer(A, B, "1")], START).outcomes[0] == AccountNotFound(str(B))

    def test_account_without_a_floor_is_no_clearing_account(self) -> None:
        accounts = {A: account(A, min_balance=None), B: account(B, min_balance=None)}
        assert isinstance(decide(accounts, {}, [transfer(A, B, "1000000")], START).outcomes[0], Transfer)

    def test_empty_batch_has_an_empty_decision(self) -> None:
        assert decide({}, {}, [], START) == Decision([], [], [], {})

    def test_transfer_is_not_dated_before_an_earlier_one(self) -> None:
        ahead = START + timedelta(hours=1)
        accounts = {A: account(A), B: account(B, updated_at=ahead)}
        (completed,) = decide(accounts, {}, [transfer(A, B, "1")], START).transfers
        assert completed.created_at == ahead


class TestClearingAccount:
    def test_clearing_account_ids_are_fixed_and_differ_by_currency(self) -> None:
        assert clearing_account_id("RUB") != clearing_account_id("USD")
        assert clearing_account_id("RUB") == UUID("7cd3d790-d947-5b6c-942a-89999b119ad2")


class TestReplays:
    @pytest.mark.parametrize("replayed", [True, False])
    def test_stored_outcome_is_replayed_or_conflicts(self, *, replayed: bool) -> None:
        request = transfer(A, B, "1")
        record = IdempotencyRecord(request.fingerprint if replayed else b"", AccountClosed(str(A)), uuid4())
        decision = decide({}, {request.key: record}, [request], START)
        assert decision.outcomes == [AccountClosed(str(A)) if replayed else IdempotencyConflict("k")]
        assert [is_replay(request, outcome) for outcome in decision.outcomes] == [replayed]
        assert not decision.new_records

    @given(ledgers(), batches())
    def test_every_outcome_of_a_key_after_the_first_is_a_replay(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        outcomes = decide(accounts, {}, batch, START).outcomes
        decided = [
            (request, outcome)
            for request, outcome in zip(batch, outcomes, strict=True)
            if not isinstance(outcome, IdempotencyConflict)
        ]
        used = set()
        for request, outcome in decided:
            assert is_replay(request, outcome) == (request.key in used)
            used.add(request.key)

    @given(ledgers(), batches())
    def test_batch_that_is_decided_again_after_its_commit_has_the_same_replay_marks(
        self, accounts: dict[UUID, Account], batch: list[Command]
    ) -> None:
        first = decide(accounts, {}, batch, START)
        again = decide(accounts_after(accounts, first), first.new_records, batch, START)
        assert again == Decision(first.outcomes, [], [], {})
        marks = [[is_replay(*each) for each in zip(batch, made.outcomes, strict=True)] for made in (first, again)]
        assert marks[0] == marks[1]

    def test_refusal_of_an_earlier_release_is_a_replay(self) -> None:
        request = transfer(A, B, "1")
        record = IdempotencyRecord(request.fingerprint, AccountClosed(str(A)), None)
        (outcome,) = decide({}, {request.key: record}, [request], START).outcomes
        assert is_replay(request, outcome)


class TestQuotedKeys:
    def test_record_of_the_raw_form_is_replayed(self) -> None:
        request = quoted(transfer(A, B, "1"))
        assert request.raw_key is not None
        record = IdempotencyRecord(request.fingerprint, AccountClosed(str(A)), uuid4())
        decision = decide({A: account(A), B: account(B)}, {request.raw_key: record}, [request], START)
        assert decision == Decision([AccountClosed(str(A))], [], [], {})

    def test_record_of_the_raw_form_is_preferred_to_that_of_the_key(self) -> None:
        request = quoted(transfer(A, B, "1"))
        assert request.raw_key is not None
        records = {
            request.raw_key: IdempotencyRecord(request.fingerprint, AccountClosed(str(A)), uuid4()),
            request.key: IdempotencyRecord(request.fingerprint, AccountNotFound(str(B)), uuid4()),
        }
        bare = replace(request, raw_key=None)
        assert decide({}, records, [request, bare], START).outcomes == [
            AccountClosed(str(A)),
            AccountNotFound(str(B)),
        ]

    def test_quoted_and_bare_key_in_one_batch_move_money_once(self) -> None:
        bare = transfer(A, B, "1")
        batch = [quoted(bare), bare, quoted(replace(bare, transfer_id=uuid4()))]
        decision = decide({A: account(A), B: account(B)}, {}, batch, START)
        assert len(decision.transfers) == 1
        assert decision.outcomes == list(decision.transfers) * 3
        assert decision.new_records.keys() == {bare.key}

    def test_text_of_one_key_and_equal_raw_form_of_another_move_money_twice(self) -> None:
        request = quoted(transfer(A, B, "1"))
        assert request.raw_key is not None
        literal = quoted(replace(request, key=request.raw_key, transfer_id=uuid4()))
        decision = decide({A: account(A), B: account(B)}, {}, [literal, request], START)
        assert decision.outcomes == list(decision.transfers)
        assert decision.new_records.keys() == {literal.stored_keys[0], request.key}
        again = [replace(each, transfer_id=uuid4()) for each in (request, literal, replace(literal, raw_key=None))]
        assert decide({}, decision.new_records, again, START).outcomes == [decision.outcomes[i] for i in (1, 0, 0)]


def is_replay(request: Command, outcome: Outcome) -> bool:
    return request.is_replay(outcome) if isinstance(outcome, Transfer) else outcome.is_replay


def quoted(request: Command) -> Command:
    """Return the request as if its key was sent in quotation marks."""
    return replace(request, raw_key=replace(request.key, key=f'"{request.key.key}"'))
