from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet import cursor, paging
from wallet.errors import InvalidInput
from wallet.paging import PageRequest

CURSOR = cursor.encode_version(7)


def parse(**arguments: Any) -> PageRequest[int]:
    defaults: dict[str, Any] = {"first": None, "after": None, "last": None, "before": None}
    return paging.parse_relay_arguments(cursor.decode_version, start=0, **(defaults | arguments))


def test_empty_cursor_is_no_cursor() -> None:
    assert parse(first=3, after="", before="") == parse(first=3)
    assert parse(last=3, after="", before="") == parse(last=3)


@dataclass(frozen=True)
class RelayPage:
    """Edges of a page and its page info, as the Relay specification defines them."""

    edges: Sequence[int]
    has_next_page: bool
    has_previous_page: bool


def relay_page(
    newest_first: Sequence[int], *, first: int | None, after: int | None, last: int | None, before: int | None
) -> RelayPage:
    """Return the page of a list by the algorithm of the Relay specification.

    The specification does not define the number of edges without `first` and `last`. Here a page then has the 50 edges
    next to the cursor.
    """
    if first is None and last is None:
        first, last = (50, None) if before is None else (None, 50)
    edges = list(newest_first)
    beyond_after = beyond_before = False
    if after is not None:
        beyond_after = after in edges
        edges = edges[edges.index(after) + 1 :]
    if before is not None:
        beyond_before = before in edges
        edges = edges[: edges.index(before)]
    has_next, has_previous = beyond_before, beyond_after
    if first is not None:
        has_next, edges = len(edges) > first, edges[:first]
    if last is not None:
        has_previous, edges = len(edges) > last, edges[-last:]
    return RelayPage(edges, has_next, has_previous)


def stored_page(newest_first: Sequence[int], request: PageRequest[int]) -> RelayPage:
    """Return the page that a service returns for the request: see `GetOperations` and `ListTopUps`."""
    older_than, newer_than = request.older_than, request.newer_than
    if newer_than is not None:
        newer = [each for each in newest_first if each > newer_than]
        has_older = any(each <= newer_than for each in newest_first)
        return RelayPage(newer[-request.limit :], has_older, len(newer) > request.limit)
    older = [each for each in newest_first if older_than is None or each < older_than]
    has_newer = older_than is not None and any(each >= older_than for each in newest_first)
    return RelayPage(older[: request.limit], len(older) > request.limit, has_newer)


@st.composite
def connections(draw: st.DrawFn) -> tuple[list[int], dict[str, int | None]]:
    """Draw a list, and paging arguments in one direction with an item of the list as the cursor."""
    items = sorted(draw(st.sets(st.integers(1, 200), max_size=70)), reverse=True)
    size = draw(st.none() | st.integers(1, 80))
    cursor_ = draw(st.none() | st.sampled_from(items)) if items else None
    arguments: dict[str, int | None] = {"first": None, "after": None, "last": None, "before": None}
    names = draw(st.sampled_from([("first", "after"), ("last", "before")]))
    return items, arguments | dict(zip(names, (size, cursor_), strict=True))


class TestParseRelayArguments:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({}, PageRequest(50, None, None)),
            ({"first": 2}, PageRequest(2, None, None)),
            ({"first": 1_000, "after": CURSOR}, PageRequest(1_000, 7, None)),
            ({"after": CURSOR}, PageRequest(50, 7, None)),
            ({"last": 1, "before": CURSOR}, PageRequest(1, None, 7)),
            ({"before": CURSOR}, PageRequest(50, None, 7)),
            ({"last": 2}, PageRequest(2, None, 0)),
        ],
    )
    def test_valid_arguments_are_parsed(self, arguments: dict[str, Any], expected: PageRequest[int]) -> None:
        assert parse(**arguments) == expected

    @given(connections())
    def test_pages_are_those_of_the_relay_specification(self, case: tuple[list[int], dict[str, int | None]]) -> None:
        items, arguments = case
        cursors = {
            name: cursor.encode_version(value) if name in {"after", "before"} and value is not None else value
            for name, value in arguments.items()
        }
        assert stored_page(items, parse(**cursors)) == relay_page(items, **arguments)

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"first": 1, "last": 1}, "last"),
            ({"after": CURSOR, "before": CURSOR}, "before"),
            ({"first": 0}, "first"),
            ({"first": 1_001}, "first"),
            ({"last": 0, "before": CURSOR}, "last"),
            ({"after": "x"}, "after"),
            ({"before": "x"}, "before"),
        ],
    )
    def test_error_names_the_invalid_argument(self, arguments: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse(**arguments)
        assert [each.field for each in refused.value.violations] == [field]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"first": 2, "before": CURSOR}, "before: must not be combined with first"),
            ({"after": CURSOR, "before": CURSOR}, "before: must not be combined with after"),
            ({"after": CURSOR, "last": 1}, "last: must not be combined with after"),
            (
                {"first": 1, "after": CURSOR, "last": 1, "before": CURSOR},
                "last: must not be combined with first or after",
            ),
        ],
    )
    def test_error_about_two_directions_names_only_given_arguments(
        self, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse(**arguments)
        assert refused.value.message == message


class TestBatch:
    def test_batches_are_within_the_limits(self) -> None:
        requests = [(number, limit) for number, limit in enumerate([1_000] * 6 + [0] * 150 + [1] * 250)]
        batches = list(paging.split_batch(requests, lambda request: request[1]))
        assert [request for batch in batches for request in batch] == requests
        for batch in batches:
            paging.check_batch([limit for _, limit in batch])
        assert [len(batch) for batch in batches] == [5, 81, 100, 100, 100, 20]

    def test_equal_requests_are_kept_once(self) -> None:
        assert list(paging.split_batch([1, 2, 1], lambda _: 1)) == [[1, 2]]

    @pytest.mark.parametrize("limits", [[1] * 101, [1_000] * 5 + [1], [0] * 100 + [1]])
    def test_too_large_batch_is_refused(self, limits: Sequence[int]) -> None:
        with pytest.raises(InvalidInput) as caught:
            paging.check_batch(limits)
        assert [each.field for each in caught.value.violations] == ["requests"]

    def test_invalid_limit_is_the_error_of_its_page_only(self) -> None:
        paging.check_batch([-1, 1_001, 2**31 - 1])
