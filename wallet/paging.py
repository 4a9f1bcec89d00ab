"""Cursor pagination: parsing of a Relay connection's arguments."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from wallet import inputs
from wallet.errors import InvalidInput

Position = TypeVar("Position")
Request = TypeVar("Request")

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 1_000

MAX_BATCH_PAGES: Final = 100
"""Maximum number of pages that one call of a service returns."""

MAX_BATCH_ITEMS: Final = 5_000
"""Maximum sum of the page sizes in one call of a service. It bounds the size of the response, about 1.5 MB, and the
memory and the time that the service needs for it.
"""


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
        after: the page has the items directly after this cursor; an empty text is no cursor.
        last: size of a page of newer items, 1 to 1,000; 50 by default.
        before: the page has the items directly before this cursor; an empty text is no cursor.

    Raises:
        InvalidInput: both directions are given, the size is out of range, or a cursor is invalid.
    """
    after, before = after or None, before or None  # some clients, such as genqlient, send "" for an absent cursor
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


def page_size(limit: int) -> int:
    """Return the maximum number of items of a page that a service is asked for; a limit of 0 means the default."""
    return limit or DEFAULT_PAGE


def check_batch(limits: Sequence[int]) -> None:
    """Check the size of a batch of pages.

    Args:
        limits: limit of each page. Invalid ones are allowed here: they are errors of their pages.

    Raises:
        InvalidInput: there are too many pages, or their sizes are too large together.
    """
    if len(limits) > MAX_BATCH_PAGES:
        raise InvalidInput.for_field("requests", f"must have at most {MAX_BATCH_PAGES} entries")
    if sum(page_size(limit) for limit in limits if 0 <= limit <= MAX_PAGE) > MAX_BATCH_ITEMS:
        raise InvalidInput.for_field("requests", f"must have page sizes of at most {MAX_BATCH_ITEMS} in total")


def split_batch(requests: Iterable[Request], limit: Callable[[Request], int]) -> Iterator[Sequence[Request]]:
    """Split requests of pages into batches that `check_batch` accepts, in order. Equal requests are kept once.

    Args:
        requests: requests of pages.
        limit: returns the limit of a request.
    """
    batch: list[Request] = []
    items = 0
    for request in dict.fromkeys(requests):
        size = page_size(limit(request))
        if batch and (len(batch) == MAX_BATCH_PAGES or items + size > MAX_BATCH_ITEMS):
            yield batch
            batch, items = [], 0
        batch.append(request)
        items += size
    if batch:
        yield batch
