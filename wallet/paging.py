"""Pages by place: what a Relay connection's arguments ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from wallet import inputs
from wallet.errors import InvalidInput

Position = TypeVar("Position")

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class PageRequest(Generic[Position]):
    """So many items: older than one place, or the oldest of those newer than one, or else the newest."""

    limit: int
    older_than: Position | None
    newer_than: Position | None


def parse_relay_arguments(
    decode: Callable[[str], Position],
    *,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> PageRequest[Position]:
    """Reads a connection's arguments, newest first: `first` and `after` go towards older items, `last` and `before`
    towards newer ones.

    Args:
        decode: a cursor to its place; raises ValueError for what is none.
        first: how many, 50 unless told.
        after: the cursor that the page follows.
        last: as `first`, the other way.
        before: as `after`, the other way.

    Raises:
        InvalidInput: both ways at once, a page of no size or of too great a one, or no cursor of ours.
    """
    forward, backward = (first, after) != (None, None), (last, before) != (None, None)
    if forward and backward:
        raise InvalidInput.for_field("last", "goes with before, and first with after: give one pair only")
    with inputs.FieldParser() as fields:
        older_than = None if after is None else fields.parse("after", decode, after)
        newer_than = None if before is None else fields.parse("before", decode, before)
    size, field = (last, "last") if backward else (first, "first")
    if size is None:
        size = DEFAULT_PAGE
    if not 1 <= size <= MAX_PAGE:
        raise InvalidInput.for_field(field, f"must be 1 to {MAX_PAGE}")
    return PageRequest(size, older_than, newer_than)
