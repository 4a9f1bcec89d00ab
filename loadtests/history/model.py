"""Independent model of the accounts: replays the ledger's transfers, one after the other.

The version of an account is the number of its transfers. The model shares no code with the bank: a defect in shared
code would be in the bank and in the model, and the history checker would not detect it.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from loadtests.history.calls import BalanceSnapshot, FloorChange, RecordedCall
from loadtests.history.rows import Account, Entry, IdempotencyRow, LedgerRows, Transfer
from loadtests.history.storage import SubscriptionRecord


class Invariant(StrEnum):
    """Statements that are true of every correct ledger and of the calls to it."""

    ORDER = "one order of all transfers agrees with the versions of every account"
    RULES = "a transfer is between two accounts of its currency, and no balance falls below its minimum"
    ENTRIES = "the entries match the transfers, with the versions and balances that result from them"
    ACCOUNTS = "an account's row is the result of its transfers"
    TIME = "creation times do not decrease as versions increase"
    REFERENCE = "no earlier transfer from an account has the reference of a transfer that asked for a unique one"
    FROZEN = "no transfer is made while its account is frozen"
    FLOOR = "no transfer leaves a balance below the floor that its account has at that time"
    FUTURE = "no transfer is dated after the rows were read"
    ONE_KEY = "each transfer has one idempotency key, and each key has at most one transfer"
    REQUESTED = "every row in the ledger was requested, with the same arguments"
    ACKNOWLEDGED = "every acknowledged transfer is in the ledger"
    RECEIPT = "a receipt matches the ledger"
    REFUSED = "a refused request has no transfer, and the row of its key has the reason of the refusal"
    JUSTIFIED = "the reason of a refusal was true at a time between the first call with its key and the first response"
    SAME = "all responses to one request with one key have the same outcome"
    REPLAY = "a response is marked as a replay if, and only if, an earlier call with its key and request was decided"
    CONFLICT = "of several different requests with one key, only the first is executed, and the others get a conflict"
    NO_EFFECT = "a call whose response reports no effect left no row in the ledger"
    KNOWN = "after enough retries, every outcome is known"
    DEFECT = "no response reports an internal error of the bank"
    REAL_TIME = "a call that ended before another one began has the lower version on each account of both calls"
    SNAPSHOT = "at every moment the sum of all balances is the same"
    OPERATIONS = "the owner of an account reads each entry of the account exactly once"
    SUBSCRIPTION = "a subscriber receives each version of the account once, in order, and no other version"


Row = Account | Transfer | Entry | IdempotencyRow


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant, with the rows and calls that show it."""

    invariant: Invariant
    rows: Sequence[Row] = ()
    calls: Sequence[RecordedCall | BalanceSnapshot | SubscriptionRecord] = ()

    def __str__(self) -> str:
        return "\n    ".join((f"broken: {self.invariant}", *map(str, self.rows), *map(str, self.calls)))


@dataclass(slots=True)
class AccountHistory:
    """Balances of an account by version, from 0 on, and the transfer that led to each version, from 1 on.

    `lowest_floor` is the lowest limit that the balance ever had; None for no limit.
    """

    account: Account
    balances: list[Decimal]
    lowest_floor: Decimal | None
    transfers: list[Transfer] = field(default_factory=list)

    @property
    def version(self) -> int:
        """Return the version after the last posted transfer."""
        return len(self.transfers)

    def post(self, transfer: Transfer, amount: Decimal) -> None:
        """Append a transfer with its signed amount."""
        self.balances.append(self.balances[-1] + amount)
        self.transfers.append(transfer)

    @property
    def is_overdrawn(self) -> bool:
        """Return whether the balance is below all limits that it ever had."""
        return self.lowest_floor is not None and self.balances[-1] < self.lowest_floor


def _lowest_floor(account: Account, floors: Sequence[FloorChange]) -> Decimal | None:
    own = [each.floor for each in floors if each.account_id == account.id] or [account.min_balance]
    finite = [floor for floor in own if floor is not None]
    return min(finite) if len(finite) == len(own) else None


def replay(
    ledger: LedgerRows, floors: Sequence[FloorChange] = ()
) -> tuple[dict[UUID, AccountHistory], list[Violation]]:
    """Post every transfer, in an order that agrees with the versions of all accounts.

    Args:
        ledger: rows of the ledger.
        floors: all floors of the accounts whose floor changed.

    Returns:
        The account histories, and a violation for each row that contradicts them.
    """
    histories = {
        account.id: AccountHistory(account, [account.opening_balance], _lowest_floor(account, floors))
        for account in ledger.accounts
    }
    entries = {(entry.account_id, entry.version): entry for entry in ledger.entries}
    ordered, unordered = _sort_by_versions(ledger)
    violations = [Violation(Invariant.ORDER, [transfer]) for transfer in unordered]
    violations += (Violation(Invariant.FUTURE, [each]) for each in ledger.transfers if each.created_at > ledger.read_at)
    for transfer in ordered:
        violations += _post(histories, entries, transfer, ledger.untracked)
    violations += (Violation(Invariant.ENTRIES, [entry]) for entry in entries.values())
    for history in histories.values():
        violations += _check_account(history)
        violations += _check_references(history)
    return histories, violations


def _sort_by_versions(ledger: LedgerRows) -> tuple[list[Transfer], list[Transfer]]:
    """Sort the transfers so that each follows the transfers with lower versions on both of its accounts.

    Returns:
        The sorted transfers, and the transfers that fit into no such order.
    """
    queues: dict[UUID, deque[Transfer]] = defaultdict(deque)
    sides = ((id_, version, transfer) for transfer in ledger.transfers for id_, version, _ in transfer.sides)
    tracked = (side for side in sides if side[0] not in ledger.untracked)
    for id_, _, transfer in sorted(tracked, key=lambda side: side[1]):
        queues[id_].append(transfer)
    ordered: list[Transfer] = []
    pending = deque(queues)
    while pending:
        queue = queues[pending.popleft()]
        if not queue:
            continue
        ids = {queue[0].sender_id, queue[0].recipient_id} - ledger.untracked
        if all(queues[id_][0] is queue[0] for id_ in ids):
            ordered.append(queue[0])
            for id_ in ids:
                queues[id_].popleft()
            pending.extend(ids)
    return ordered, list({transfer.id: transfer for queue in queues.values() for transfer in queue}.values())


def _post(
    histories: dict[UUID, AccountHistory],
    entries: dict[tuple[UUID, int], Entry],
    transfer: Transfer,
    untracked: frozenset[UUID],
) -> Iterator[Violation]:
    """Post a transfer to both accounts, and remove its two entries from `entries`."""
    sides = [side for side in transfer.sides if side[0] not in untracked]
    both = [histories[id_] for id_, _, _ in sides if id_ in histories]
    sender = histories.get(transfer.sender_id)
    for id_, version, amount in sides:
        if id_ not in histories:
            continue
        history = histories[id_]
        last = history.transfers[-1] if history.transfers else transfer
        history.post(transfer, amount)
        if version != history.version:
            yield Violation(Invariant.ORDER, [transfer, history.account])
        if transfer.created_at < last.created_at:
            yield Violation(Invariant.TIME, [last, transfer])
        entry = entries.pop((id_, version), None)
        if entry != Entry(id_, history.version, transfer.id, amount, history.balances[-1]):
            yield Violation(Invariant.ENTRIES, [transfer] if entry is None else [transfer, entry])
    if (
        len({history.account.id for history in both}) != len(sides)
        or transfer.amount <= 0
        or any(history.account.currency != transfer.currency for history in both)
        or (sender is not None and sender.is_overdrawn)
        or (transfer.kind == "DEPOSIT") != (sender is None or sender.account.is_clearing)
    ):
        yield Violation(Invariant.RULES, [transfer, *(history.account for history in both)])


def _check_account(history: AccountHistory) -> Iterator[Violation]:
    """Compare the account's row with its history. A closed account must be empty."""
    account, balance = history.account, history.balances[-1]
    if (account.balance, account.version) != (balance, history.version) or (account.status != "OPEN" and balance):
        yield Violation(Invariant.ACCOUNTS, [account, *history.transfers[-1:]])


def _check_references(history: AccountHistory) -> Iterator[Violation]:
    """Compare the references of the transfers from an account, in the order of its versions."""
    used: dict[str, Transfer] = {}
    for transfer in history.transfers:
        if transfer.reference and transfer.sender_id == history.account.id:
            if transfer.is_reference_unique and transfer.reference in used:
                yield Violation(Invariant.REFERENCE, [used[transfer.reference], transfer])
            used.setdefault(transfer.reference, transfer)
