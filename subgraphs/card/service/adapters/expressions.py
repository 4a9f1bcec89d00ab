"""SQL expressions that several repositories use."""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, func, or_, select, update

from subgraphs.card.service.adapters.tables import attempts, top_ups
from subgraphs.card.service.domain.declines import AttemptState
from subgraphs.card.service.domain.top_up import IdempotencyKey
from subgraphs.card.service.domain.transitions import MAX_DELAY_SECONDS


def with_key(key: IdempotencyKey) -> Select[Any]:
    """Select the top-ups of an idempotency key.

    The key is stored as `key.key`, or as `key.earlier` by earlier releases. Each of the two has at most one top-up.
    """
    forms = [key.key] if key.earlier is None else [key.key, key.earlier]
    return select(top_ups).where(top_ups.c.principal == key.principal, top_ups.c.idempotency_key.in_(forms))


def set_attempt_state(state: AttemptState) -> Update:
    """Return a statement that changes the state of attempts; the caller adds the condition."""
    return update(attempts).values(state=state, since=func.clock_timestamp())


def from_now(seconds: float) -> ColumnElement[Any]:
    """Return the database's current time plus a number of seconds."""
    return func.clock_timestamp() + timedelta(seconds=seconds)


def is_due() -> ColumnElement[bool]:
    """Return the SQL condition for top-ups whose lease has ended or whose retry delay is over.

    The condition also holds for a time that a wrong clock has stored (`is_too_far_ahead`).
    """
    return or_(top_ups.c.next_attempt_at <= func.now(), is_too_far_ahead())


def is_too_far_ahead() -> ColumnElement[bool]:
    """Return the SQL condition for top-ups whose next attempt is further ahead than any lease or retry delay."""
    return top_ups.c.next_attempt_at > func.now() + timedelta(seconds=MAX_DELAY_SECONDS)
