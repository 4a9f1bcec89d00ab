"""New dates of operations that are dated in the future: pure functions on immutable values."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

_UUID7: Final = 7


@dataclass(frozen=True, slots=True)
class DatedTransfer:
    """Transfer with its date, and with its version on each of the two accounts."""

    id: UUID
    created_at: datetime
    sender_id: UUID
    sender_version: int
    recipient_id: UUID
    recipient_version: int


def redate(
    transfers: Iterable[DatedTransfer], last_dates: Mapping[UUID, datetime], now: datetime
) -> tuple[dict[UUID, datetime], dict[UUID, datetime]]:
    """Date transfers in the order of their accounts' versions, not later than now.

    The new date is the time in the transfer's id, because the bank creates the id when the request arrives. The new
    date is never earlier than the previous operation of either account. If the id has no time, or a time in the future,
    the new date is the date of the later one of these two operations.

    Args:
        transfers: all transfers that are dated in the future. In each account, they have the highest versions.
        last_dates: for each account of these transfers, the date of the last operation that is not in the future. If
            there is none, the date of the account's opening.
        now: time of the database's clock, not earlier than any of `last_dates`.

    Returns:
        The new date of each transfer, and the date of the last operation of each account.

    Raises:
        ValueError: the rows contradict each other; the message says how.
    """
    queues: dict[UUID, deque[DatedTransfer]] = defaultdict(deque)
    sides = [(each.sender_id, each.sender_version, each) for each in transfers]
    sides += [(each.recipient_id, each.recipient_version, each) for each in transfers]
    for account_id, _, transfer in sorted(sides, key=lambda side: side[1]):
        queues[account_id].append(transfer)
    if queues.keys() - last_dates.keys():
        raise ValueError(
            "an account has a transfer that is dated in the future, but the account was last changed in the past"
        )
    dates: dict[UUID, datetime] = {}
    last = dict(last_dates)
    pending = deque(queues)
    while pending:
        queue = queues[pending.popleft()]
        if not queue:
            continue
        transfer = queue[0]
        if queues[transfer.sender_id][0] is not transfer or queues[transfer.recipient_id][0] is not transfer:
            continue  # the other account has an earlier one; when it is dated below, the account is pending again
        earliest = max(last[transfer.sender_id], last[transfer.recipient_id])
        dates[transfer.id] = max(earliest, _requested_at(transfer.id, now) or earliest)
        for account_id in (transfer.sender_id, transfer.recipient_id):
            last[account_id] = dates[transfer.id]
            queues[account_id].popleft()
            pending.append(account_id)
    if any(queues.values()):
        raise ValueError("no order of the transfers agrees with the versions of all accounts")
    return dates, last


def _requested_at(transfer_id: UUID, now: datetime) -> datetime | None:
    """Return the time in the id; None if the id is not a UUIDv7, or if its time is in the future."""
    if transfer_id.version != _UUID7:
        return None
    seconds = (transfer_id.int >> 80) / 1_000
    return datetime.fromtimestamp(seconds, UTC) if seconds <= now.timestamp() else None
