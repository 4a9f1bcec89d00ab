"""A ledger kept by hand, one call after the other, and what its callers were told: a true history to lie about."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from loadtests.history.calls import (
    Answer,
    Body,
    Call,
    Key,
    Operation,
    Receipt,
    Refusal,
    Snapshot,
    Unknown,
    Wish,
    unknown,
)
from loadtests.history.judge import judge
from loadtests.history.model import Law
from loadtests.history.rows import Account, Entry, Ledger, Pinned, Transfer

CLEARING, ALICE, BOB, CAROL, CLOSED, NOBODY = (UUID(int=n) for n in range(6))
START = datetime(2025, 1, 1, tzinfo=UTC)
OPENING = Decimal(100)


def account(id_: UUID, owner: str | None, balance: Decimal, floor: Decimal | None = Decimal()) -> Account:
    status = "CLOSED" if id_ == CLOSED else "OPEN"
    return Account(id_, owner, "RUB", status, balance, balance, floor, 0)


def _accounts() -> dict[UUID, Account]:
    return {
        CLEARING: account(CLEARING, None, Decimal(), floor=None),
        ALICE: account(ALICE, "alice", OPENING),
        BOB: account(BOB, "bob", OPENING),
        CAROL: account(CAROL, "carol", Decimal()),
        CLOSED: account(CLOSED, "alice", Decimal()),
    }


@dataclass
class Teller:
    """Its clock strikes once a call; that is when the call is decided, some time after it began and before it ended."""

    accounts: dict[UUID, Account] = field(default_factory=_accounts)
    transfers: list[Transfer] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    keys: list[Pinned] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    bodies: dict[Key, Body] = field(default_factory=dict)
    now: int = 0

    def transfer(
        self, key: str = "k", sender: UUID = ALICE, recipient: UUID = BOB, amount: int = 10, **fate: float
    ) -> Answer:
        return self.ask("transfer", key, sender, recipient, amount, **fate)

    def deposit(self, key: str = "k", recipient: UUID = BOB, amount: int = 10, **fate: float) -> Answer:
        return self.ask("deposit", key, CLEARING, recipient, amount, **fate)

    def ask(
        self,
        operation: Operation,
        key: str,
        sender: UUID,
        recipient: UUID,
        amount: int,
        *,
        before: float = 0.1,
        after: float = 0.1,
        arrives: float = True,
        is_told: float = True,
    ) -> Answer:
        """One call; it may never arrive, and its answer may be lost."""
        owner = None if operation == "deposit" else "alice"
        wish = Wish(Key(owner or "card", operation, key), Body(sender, recipient, Decimal(amount)), owner)
        return self.ask_for(wish, before=before, after=after, arrives=arrives, is_told=is_told)

    def ask_for(
        self, wish: Wish, *, before: float = 0.1, after: float = 0.1, arrives: float = True, is_told: float = True
    ) -> Answer:
        self.now += 1
        answer: Answer = self._decide(wish) if arrives else Unknown("UNAVAILABLE")
        if not is_told:
            answer = Unknown("DEADLINE_EXCEEDED")
        self.calls.append(Call(len(self.calls) + 1, wish, self.now - before, self.now + after, answer))
        return answer

    def look(self) -> None:
        """A watcher adds all balances up."""
        gained = sum((account.balance - account.opening_balance for account in self.accounts.values()), Decimal())
        self.snapshots.append(Snapshot(len(self.snapshots) + 1, gained))

    def resolve(self) -> None:
        """Asks again until everything is known."""
        for wish in unknown(self.calls):
            self.ask_for(wish)

    @property
    def ledger(self) -> Ledger:
        return Ledger(list(self.accounts.values()), self.transfers, self.entries, self.keys)

    def broken(self) -> set[Law]:
        """What the judge says of it all."""
        return {violation.law for violation in judge(self.ledger, self.calls, self.snapshots)}

    def lie_of_call(self, place: int = -1, **told: object) -> None:
        """Of one call something else is told."""
        self.calls[place] = replace(self.calls[place], **told)  # type: ignore[arg-type]

    def lie_of_receipt(self, place: int = -1, **told: object) -> None:
        """One receipt says something else."""
        receipt = self.calls[place].answer
        assert isinstance(receipt, Receipt)
        self.lie_of_call(place, answer=replace(receipt, **told))  # type: ignore[arg-type]

    def lie_of_account(self, id_: UUID, **told: object) -> None:
        """One account's row says something else."""
        self.accounts[id_] = replace(self.accounts[id_], **told)  # type: ignore[arg-type]

    def _decide(self, wish: Wish) -> Answer:
        row = next((row for row in self.keys if row.key == wish.key), None)
        if row is None:
            self.bodies[wish.key] = wish.body
            refusal = self._refusal(wish)
            row = Pinned(wish.key, None if refusal else self._make(wish), refusal)
            self.keys.append(row)
        if wish.body != self.bodies[wish.key]:
            return Refusal("IDEMPOTENCY_CONFLICT", {"idempotency_key": wish.key.key})
        return row.refusal or self._receipt(row.transfer_id, wish.key.operation)

    def _refusal(self, wish: Wish) -> Refusal | None:
        body, sender = wish.body, self.accounts.get(wish.body.sender_id)
        if sender is None or wish.owner_id not in {None, sender.owner_id}:
            return Refusal("ACCOUNT_NOT_FOUND", {"account_id": str(body.sender_id)})
        if body.recipient_id not in self.accounts or body.recipient_id == CLEARING:
            return Refusal("ACCOUNT_NOT_FOUND", {"account_id": str(body.recipient_id)})
        if CLOSED in {body.sender_id, body.recipient_id}:
            return Refusal("ACCOUNT_CLOSED", {"account_id": str(CLOSED)})
        if sender.id != CLEARING and sender.balance < body.amount:
            data = {"account_id": sender.id, "needed": body.amount, "available": sender.balance, "currency": "RUB"}
            return Refusal("INSUFFICIENT_FUNDS", {name: str(value) for name, value in data.items()})
        return None

    def _make(self, wish: Wish) -> UUID:
        body, id_ = wish.body, UUID(int=1000 + self.now)
        sides = ((body.sender_id, -body.amount), (body.recipient_id, body.amount))
        for side, amount in sides:
            old = self.accounts[side]
            self.accounts[side] = replace(old, balance=old.balance + amount, version=old.version + 1)
            self.entries.append(Entry(side, old.version + 1, id_, amount, old.balance + amount))
        versions = [self.accounts[side].version for side, _ in sides]
        kind, at = wish.key.operation.upper(), START + timedelta(seconds=self.now)
        made = Transfer(id_, kind, body.sender_id, body.recipient_id, body.amount, "RUB", at, wish.key.key, *versions)
        self.transfers.append(made)
        return id_

    def _receipt(self, transfer_id: UUID | None, operation: Operation) -> Receipt:
        made = next(transfer for transfer in self.transfers if transfer.id == transfer_id)
        own = made.sender_id if operation == "transfer" else made.recipient_id
        entry = next(entry for entry in self.entries if (entry.transfer_id, entry.account_id) == (made.id, own))
        return Receipt(made.id, own, entry.version, entry.balance_after, made.amount)
