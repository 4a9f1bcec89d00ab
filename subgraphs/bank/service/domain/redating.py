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
    """Date of a transfer, and its place in the versions of both accounts."""

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

    The new date is the time in the transfer's id, which a replica creates on the arrival of the request. If that is in
    the future too, or earlier than a previous operation of either account, the date of that operation is used.

    Args:
        transfers: all operations of their accounts that are dated in the future: the last versions of each account.
        last_dates: for each of their accounts the date of the operation before these, or of its opening.
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
        raise ValueError("an account has a transfer in the future, but was not changed in the future")
    dates: dict[UUID, datetime] = {}
    last = dict(last_dates)
    pending = deque(queues)
    while pending:
        queue = queues[pending.popleft()]
        if not queue:
            continue
        transfer = queue[0]
        if queues[transfer.sender_id][0] is not transfer or queues[transfer.recipient_id][0] is not transfer:
            continue  # the other account's previous operation comes first; it appends both accounts again
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
    """Return the time in a UUIDv7; None if there is none, or if it is in the future."""
    if transfer_id.version != _UUID7:
        return None
    seconds = (transfer_id.int >> 80) / 1_000
    return datetime.fromtimestamp(seconds, UTC) if seconds <= now.timestamp() else None
