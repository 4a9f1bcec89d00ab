"""Decodes messages of the operations topic."""

from collections.abc import Iterable
from datetime import UTC
from typing import Final

from pydantic import ValidationError

from asyncapi.models.topup_event import Posting as TopUpPosting
from asyncapi.models.topup_event import TopUpEvent
from asyncapi.models.transfer_event import Posting as TransferPosting
from asyncapi.models.transfer_event import TransferEvent
from asyncapi.topics import TOP_UP_COMPLETED, TRANSFER_COMPLETED
from subgraphs.analytics.service.domain.model import MAX_VERSION, NO_WORDS, Event, OperationType, Posting, Words
from wallet.money import Money, MoneyError

_EVENT_TYPES: Final[dict[bytes, tuple[OperationType, type[TransferEvent | TopUpEvent]]]] = {
    TRANSFER_COMPLETED.encode(): (OperationType.TRANSFER, TransferEvent),
    TOP_UP_COMPLETED.encode(): (OperationType.TOP_UP, TopUpEvent),
}
_YEARS: Final = range(1970, 2200)
"""Years that ClickHouse's `DateTime64(6)` stores safely. A ledger has no operations outside of these years."""


class InvalidEvent(Exception):
    """A message that breaks the event contract, so a retry does not help.

    Attributes:
        reason: text for the dead letter and the log, without values of the message.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_event(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Event:
    """Return the event of a message in the binary mode of CloudEvents. Unknown fields are ignored.

    Raises:
        InvalidEvent: the message breaks the contract.
    """
    by_name = dict(headers)
    ce_type = by_name.get("ce_type")
    if ce_type is None:
        raise InvalidEvent("the header ce_type is missing")
    if ce_type not in _EVENT_TYPES:
        raise InvalidEvent("the header ce_type names no event of the contract")
    kind, model = _EVENT_TYPES[ce_type]
    try:
        # Strict, because lax parsing reads a number as a time and a text as a version.
        message = model.model_validate_json(value or b"", strict=True)
        return _event_from_message(kind, message, by_name.get("ce_ledgerepoch", b"").decode("ascii", "replace"))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidEvent("; ".join(_describe(each["loc"], each["msg"]) for each in problems)) from None
    except MoneyError as error:
        raise InvalidEvent(f"money: {error}") from None


def _event_from_message(kind: OperationType, message: TransferEvent | TopUpEvent, epoch: str) -> Event:
    amount = Money.parse(message.amount, message.currency)
    if not amount.is_positive:
        raise InvalidEvent("amount: must be positive")
    if message.sender.account_id == message.recipient.account_id:
        raise InvalidEvent("recipient: is the sender")
    occurred_at = message.occurred_at.astimezone(UTC)
    if occurred_at.year not in _YEARS:
        raise InvalidEvent("occurredAt: is out of range")
    sender, recipient = (_posting_from_message(each, message.currency) for each in (message.sender, message.recipient))
    words = NO_WORDS
    if isinstance(message, TransferEvent) and (message.created_by or message.description):
        words = Words(
            message.description or "", message.reference or "", message.metadata or {}, message.created_by or ""
        )
    return Event(message.transfer_id, kind, amount, sender, recipient, occurred_at, epoch, words)


def _posting_from_message(message: TransferPosting | TopUpPosting, currency: str) -> Posting:
    if message.version > MAX_VERSION:
        raise InvalidEvent("version: is out of range")
    return Posting(message.account_id, message.version, Money.parse(message.balance_after, currency))


def _describe(location: tuple[int | str, ...], problem: str) -> str:
    return f"{'.'.join(map(str, location)) or 'body'}: {problem}"
