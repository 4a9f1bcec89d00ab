"""Cursor pagination: parsing of a Relay connection's arguments."""

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
    """A page of a list that is sorted newest first.

    Attributes:
        limit: maximum number of items.
        older_than: the page has the newest items that are older than this position.
        newer_than: the page has the oldest items that are newer than this position. If both positions are None, the
            page has the newest items.
    """

    limit: int
    older_than: Position | None
    newer_than: Position | None


def parse_relay_arguments(
    decode: Callable[[str], Position],
    *,
    start: Position,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> PageRequest[Position]:
    """Parse the arguments of a connection that is sorted newest first.

    `first` and `after` page towards older items, `last` and `before` towards newer ones. As in the Relay specification,
    `last` without `before` is the end of the list: the oldest items.

    Args:
        decode: parses a cursor; raises ValueError for an invalid one.
        start: position that is older than all items.
        first: size of a page of older items, 1 to 1,000; 50 by default.
        after: the page has the items directly after this cursor.
        last: size of a page of newer items, 1 to 1,000; 50 by default.
        before: the page has the items directly before this cursor.

    Raises:
        InvalidInput: both directions are given, the size is out of range, or a cursor is invalid.
    """
    forward, backward = (first, after) != (None, None), (last, before) != (None, None)
    if forward and backward:
        given = {"first": first, "after": after, "last": last, "before": before}
        names = [name for name, value in given.items() if value is not None]
        backward_name = next(name for name in names if name in {"last", "before"})
        others = " or ".join(name for name in names if name in {"first", "after"})
        raise InvalidInput.for_field(backward_name, f"must not be combined with {others}")
    with inputs.FieldParser() as fields:
        older_than = None if after is None else fields.parse("after", decode, after)
        newer_than = None if before is None else fields.parse("before", decode, before)
    if last is not None and before is None:
        newer_than = start
    size, field = (last, "last") if backward else (first, "first")
    if size is None:
        size = DEFAULT_PAGE
    if not 1 <= size <= MAX_PAGE:
        raise InvalidInput.for_field(field, f"must be 1 to {MAX_PAGE}")
    return PageRequest(size, older_than, newer_than)
