"""Reference ledger in memory. It executes calls one by one; its history is correct until a test falsifies it."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypedDict, Unpack
from uuid import UUID

from loadtests.history.calls import (
    Answer,
    BalanceSnapshot,
    FloorChange,
    FrozenPeriod,
    IdempotencyKey,
    LedgerRequest,
    Operation,
    Receipt,
    RecordedCall,
    Refusal,
    RequestBody,
    UnknownOutcome,
    unresolved_requests,
)
from loadtests.history.checker import check_history
from loadtests.history.model import Invariant
from loadtests.history.rows import Account, Entry, IdempotencyRow, LedgerRows, Transfer

CLEARING, ALICE, BOB, CAROL, CLOSED, MISSING = (UUID(int=n) for n in range(6))
START = datetime(2025, 1, 1, tzinfo=UTC)
OPENING = Decimal(100)


class CallOptions(TypedDict, total=False):
    """Options of `ReferenceLedger.call`."""

    before: float
    after: float
    is_executed: bool
    is_answered: bool
    reference: str
    is_reference_unique: bool


def account(id_: UUID, owner: str | None, balance: Decimal, min_balance: Decimal | None = Decimal()) -> Account:
    status = "CLOSED" if id_ == CLOSED else "OPEN"
    return Account(id_, owner, "RUB", status, balance, balance, min_balance, 0)


def _accounts() -> dict[UUID, Account]:
    return {
        CLEARING: replace(account(CLEARING, None, Decimal(), min_balance=None), purpose="CLEARING"),
        ALICE: account(ALICE, "alice", OPENING),
        BOB: account(BOB, "bob", OPENING),
        CAROL: account(CAROL, "carol", Decimal()),
        CLOSED: account(CLOSED, "alice", Decimal()),
    }


@dataclass
class ReferenceLedger:
    """Ledger in memory. Its clock advances by one second per call, and the ledger decides the call at that time.

    The call starts `before` seconds earlier and ends `after` seconds later.
    """

    accounts: dict[UUID, Account] = field(default_factory=_accounts)
    transfers: list[Transfer] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    keys: list[IdempotencyRow] = field(default_factory=list)
    calls: list[RecordedCall] = field(default_factory=list)
    snapshots: list[BalanceSnapshot] = field(default_factory=list)
    frozen: list[FrozenPeriod] = field(default_factory=list)
    floors: list[FloorChange] = field(default_factory=list)
    bodies: dict[IdempotencyKey, RequestBody] = field(default_factory=dict)
    now: int = 0

    def transfer(
        self,
        key: str = "k",
        sender: UUID = ALICE,
        recipient: UUID = BOB,
        amount: int = 10,
        **options: Unpack[CallOptions],
    ) -> Answer:
        return self.call("transfer", key, sender, recipient, amount, **options)

    def deposit(
        self, key: str = "k", recipient: UUID = BOB, amount: int = 10, **options: Unpack[CallOptions]
    ) -> Answer:
        return self.call("deposit", key, CLEARING, recipient, amount, **options)

    def call(
        self,
        operation: Operation,
        key: str,
        sender: UUID,
        recipient: UUID,
        amount: int,
        *,
        before: float = 0.1,
        after: float = 0.1,
        is_executed: bool = True,
        is_answered: bool = True,
        reference: str = "",
        is_reference_unique: bool = False,
    ) -> Answer:
        """Make one call. The request is lost unless `is_executed`; its response is lost unless `is_answered`."""
        owner = None if operation == "deposit" else "alice"
        words = {"reference": reference, "is_reference_unique": is_reference_unique}
        body = RequestBody(sender, recipient, Decimal(amount), **words)  # type: ignore[arg-type]
        request = LedgerRequest(IdempotencyKey(owner or "card", operation, key), body, owner)
        return self.send(request, before=before, after=after, is_executed=is_executed, is_answered=is_answered)

    def send(
        self,
        request: LedgerRequest,
        *,
        before: float = 0.1,
        after: float = 0.1,
        is_executed: bool = True,
        is_answered: bool = True,
    ) -> Answer:
        self.now += 1
        answer: Answer = self._execute(request) if is_executed else UnknownOutcome("UNAVAILABLE")
        if not is_answered:
            answer = UnknownOutcome("DEADLINE_EXCEEDED")
        began, ended = self.now - before, self.now + after
        self.calls.append(RecordedCall(len(self.calls) + 1, request, began, ended, answer))
        return answer

    def take_snapshot(self) -> None:
        """Record the sum of all balances minus the sum of all opening balances."""
        change = sum((account.balance - account.opening_balance for account in self.accounts.values()), Decimal())
        self.snapshots.append(BalanceSnapshot(len(self.snapshots) + 1, change))

    def resolve(self) -> None:
        """Retry all unknown outcomes."""
        for request in unresolved_requests(self.calls):
            self.send(request)

    @property
    def rows(self) -> LedgerRows:
        read_at = START + timedelta(seconds=self.now + 1)
        return LedgerRows(list(self.accounts.values()), self.transfers, self.entries, self.keys, read_at)

    def violated_invariants(self) -> set[Invariant]:
        """Return the invariants that the history checker reports as violated."""
        found = check_history(self.rows, self.calls, self.snapshots, self.frozen, self.floors)
        return {violation.invariant for violation in found}

    def falsify_call(self, place: int = -1, **values: object) -> None:
        """Change fields of a recorded call."""
        self.calls[place] = replace(self.calls[place], **values)  # type: ignore[arg-type]

    def falsify_receipt(self, place: int = -1, **values: object) -> None:
        """Change fields of the receipt of a recorded call."""
        receipt = self.calls[place].answer
        assert isinstance(receipt, Receipt)
        self.falsify_call(place, answer=replace(receipt, **values))  # type: ignore[arg-type]

    def falsify_mark(self, place: int, *, is_replay: bool | None) -> None:
        """Change whether the response of a recorded call is marked as a replay."""
        answer = self.calls[place].answer
        assert isinstance(answer, Receipt | Refusal)
        self.falsify_call(place, answer=replace(answer, is_replay=is_replay))

    def falsify_account(self, id_: UUID, **values: object) -> None:
        """Change fields of an account's row."""
        self.accounts[id_] = replace(self.accounts[id_], **values)  # type: ignore[arg-type]

    def _execute(self, request: LedgerRequest) -> Answer:
        row = next((row for row in self.keys if row.key == request.key), None)
        is_replay = row is not None
        if row is None:
            self.bodies[request.key] = request.body
            refusal = self._refusal_for(request)
            row = IdempotencyRow(request.key, None if refusal else self._post(request), refusal)
            self.keys.append(row)
        if request.body != self.bodies[request.key]:
            return Refusal("IDEMPOTENCY_CONFLICT", {"idempotency_key": request.key.key}, is_replay=False)
        return replace(row.refusal or self._receipt(row.transfer_id, request.key.operation), is_replay=is_replay)

    def _refusal_for(self, request: LedgerRequest) -> Refusal | None:
        body, sender = request.body, self.accounts.get(request.body.sender_id)
        if sender is None or request.owner_id not in {None, sender.owner_id}:
            return Refusal("ACCOUNT_NOT_FOUND", {"account_id": str(body.sender_id)})
        if body.recipient_id not in self.accounts or body.recipient_id == CLEARING:
            return Refusal("ACCOUNT_NOT_FOUND", {"account_id": str(body.recipient_id)})
        if CLOSED in {body.sender_id, body.recipient_id}:
            return Refusal("ACCOUNT_CLOSED", {"account_id": str(CLOSED)})
        if body.is_reference_unique and any(
            (each.sender_id, each.reference) == (sender.id, body.reference) for each in self.transfers
        ):
            return Refusal("REFERENCE_USED", {"account_id": str(sender.id), "reference": body.reference})
        if sender.id != CLEARING and sender.balance < body.amount:
            data = {"account_id": sender.id, "needed": body.amount, "available": sender.balance, "currency": "RUB"}
            return Refusal("INSUFFICIENT_FUNDS", {name: str(value) for name, value in data.items()})
        return None

    def _post(self, request: LedgerRequest) -> UUID:
        body, id_ = request.body, UUID(int=1000 + self.now)
        sides = ((body.sender_id, -body.amount), (body.recipient_id, body.amount))
        for side, amount in sides:
            old = self.accounts[side]
            self.accounts[side] = replace(old, balance=old.balance + amount, version=old.version + 1)
            self.entries.append(Entry(side, old.version + 1, id_, amount, old.balance + amount))
        versions = [self.accounts[side].version for side, _ in sides]
        kind, at = request.key.operation.upper(), START + timedelta(seconds=self.now)
        accounts = body.sender_id, body.recipient_id
        sender_version, recipient_version = versions
        self.transfers.append(
            Transfer(
                id_,
                kind,
                *accounts,
                body.amount,
                "RUB",
                at,
                request.key.key,
                sender_version,
                recipient_version,
                body.description,
                body.reference,
                body.is_reference_unique,
            )
        )
        return id_

    def _receipt(self, transfer_id: UUID | None, operation: Operation) -> Receipt:
        transfer = next(each for each in self.transfers if each.id == transfer_id)
        own = transfer.sender_id if operation == "transfer" else transfer.recipient_id
        entry = next(each for each in self.entries if (each.transfer_id, each.account_id) == (transfer.id, own))
        return Receipt(transfer.id, own, entry.version, entry.balance_after, transfer.amount)
