from typing import Any

import pytest

from wallet import cursor, paging
from wallet.errors import InvalidInput
from wallet.paging import PageRequest

HERE = cursor.encode_version(7)


def relay(**given: Any) -> PageRequest[int]:
    return paging.parse_relay_arguments(
        cursor.decode_version, **{"first": None, "after": None, "last": None, "before": None} | given
    )


class TestRelay:
    @pytest.mark.parametrize(
        ("given", "asked"),
        [
            ({}, PageRequest(50, None, None)),
            ({"first": 2}, PageRequest(2, None, None)),
            ({"first": 1_000, "after": HERE}, PageRequest(1_000, 7, None)),
            ({"after": HERE}, PageRequest(50, 7, None)),
            ({"last": 1, "before": HERE}, PageRequest(1, None, 7)),
            ({"before": HERE}, PageRequest(50, None, 7)),
        ],
    )
    def test_goes_towards_older_or_towards_newer_items(self, given: dict[str, Any], asked: PageRequest[int]) -> None:
        assert relay(**given) == asked

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"first": 1, "last": 1}, "last"),
            ({"after": HERE, "before": HERE}, "last"),
            ({"first": 0}, "first"),
            ({"first": 1_001}, "first"),
            ({"last": 0, "before": HERE}, "last"),
            ({"after": "x"}, "after"),
            ({"before": "x"}, "before"),
        ],
    )
    def test_names_what_is_wrong(self, given: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            relay(**given)
        assert [each.field for each in refused.value.violations] == [field]
