from typing import Any

import pytest

from wallet import cursor, paging
from wallet.errors import InvalidInput
from wallet.paging import PageRequest

CURSOR = cursor.encode_version(7)


def parse(**arguments: Any) -> PageRequest[int]:
    defaults: dict[str, Any] = {"first": None, "after": None, "last": None, "before": None}
    return paging.parse_relay_arguments(cursor.decode_version, **(defaults | arguments))


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
        ],
    )
    def test_valid_arguments_are_parsed(self, arguments: dict[str, Any], expected: PageRequest[int]) -> None:
        assert parse(**arguments) == expected

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"first": 1, "last": 1}, "last"),
            ({"after": CURSOR, "before": CURSOR}, "last"),
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
