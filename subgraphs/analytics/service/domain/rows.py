"""Conversion of events to rows of the history."""

from subgraphs.analytics.service.domain.model import NO_WORDS, Direction, Event, Posting, Row, Words


def rows_from_event(event: Event) -> tuple[Row, Row]:
    """Return the row of the sender and the row of the recipient."""
    return (
        _row(event, event.sender, Direction.OUT, event.recipient),
        _row(event, event.recipient, Direction.IN, event.sender),
    )


def _row(event: Event, posting: Posting, direction: Direction, counterparty: Posting) -> Row:
    return Row(
        account_id=posting.account_id,
        account_version=posting.version,
        operation_id=event.id,
        type=event.type,
        direction=direction,
        amount=event.amount.amount,
        currency=event.amount.currency,
        balance_after=posting.balance_after.amount,
        counterparty_id=counterparty.account_id,
        occurred_at=event.occurred_at,
        words=event.words if direction is Direction.OUT else _words_of_recipient(event.words),
    )


def _words_of_recipient(words: Words) -> Words:
    return Words(words.description) if words.description else NO_WORDS
