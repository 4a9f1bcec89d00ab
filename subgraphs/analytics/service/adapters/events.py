"""The topic's bytes as events."""

from collections.abc import Iterable
from datetime import UTC
from typing import Final

from pydantic import ValidationError

from asyncapi.models.topup_event import Posting as TopUpPosting
from asyncapi.models.topup_event import TopUpEvent
from asyncapi.models.transfer_event import Posting as TransferPosting
from asyncapi.models.transfer_event import TransferEvent
from asyncapi.topics import TOP_UP_COMPLETED, TRANSFER_COMPLETED
from subgraphs.analytics.service.domain.model import MAX_VERSION, Event, OperationType, Posting
from wallet.money import Money, MoneyError

_CONTRACTS: Final[dict[bytes, tuple[OperationType, type[TransferEvent | TopUpEvent]]]] = {
    TRANSFER_COMPLETED.encode(): (OperationType.TRANSFER, TransferEvent),
    TOP_UP_COMPLETED.encode(): (OperationType.TOP_UP, TopUpEvent),
}
_YEARS: Final = range(1970, 2200)
"""What the store can hold with room to spare. A ledger has no business outside of it."""


class Unreadable(Exception):
    """A message that breaks the event contract; it will not get better by being read again. The reason is for people,
    and holds nothing of the message's values.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Event:
    """The event in a message of CloudEvents' binary mode. Fields that the contract does not know are left alone.

    Raises:
        Unreadable: it breaks the contract.
    """
    ce_type = dict(headers).get("ce_type")
    if ce_type is None:
        raise Unreadable("the header ce_type is missing")
    if ce_type not in _CONTRACTS:
        raise Unreadable("the header ce_type names no event of the contract")
    kind, model = _CONTRACTS[ce_type]
    try:
        # Strict: lax parsing would read a number as a time and a text as a version.
        message = model.model_validate_json(value or b"", strict=True)
        return _event(kind, message)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise Unreadable("; ".join(_problem(each["loc"], each["msg"]) for each in problems)) from None
    except MoneyError as error:
        raise Unreadable(f"money: {error}") from None


def _event(kind: OperationType, message: TransferEvent | TopUpEvent) -> Event:
    amount = Money.parse(message.amount, message.currency)
    if not amount.is_positive:
        raise Unreadable("amount: must be positive")
    if message.sender.account_id == message.recipient.account_id:
        raise Unreadable("recipient: is the sender")
    occurred_at = message.occurred_at.astimezone(UTC)
    if occurred_at.year not in _YEARS:
        raise Unreadable("occurredAt: is out of range")
    sender, recipient = (_posting(each, message.currency) for each in (message.sender, message.recipient))
    return Event(message.transfer_id, kind, amount, sender, recipient, occurred_at)


def _posting(message: TransferPosting | TopUpPosting, currency: str) -> Posting:
    if message.version > MAX_VERSION:
        raise Unreadable("version: is out of range")
    return Posting(message.account_id, message.version, Money.parse(message.balance_after, currency))


def _problem(where: tuple[int | str, ...], what: str) -> str:
    return f"{'.'.join(map(str, where)) or 'body'}: {what}"
