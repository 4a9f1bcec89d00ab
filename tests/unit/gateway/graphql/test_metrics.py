"""What operations are told apart by, however many names there are."""

import pytest

from gateway.graphql.execution.metrics import Names


class TestNames:
    def test_tells_the_first_hundred_apart(self) -> None:
        names = Names(None)
        given = [f"Operation{chr(ord('a') + each // 10)}{each % 10}" for each in range(150)]
        told = [names.label(name, is_valid=True) for name in given]
        assert told == given[:100] + ["other"] * 50
        assert names.label(given[0], is_valid=False) == given[0]

    def test_tells_none_but_the_known_apart(self) -> None:
        names = Names(["Balance"])
        assert [names.label(name, is_valid=True) for name in ("Balance", "Other", None)] == [
            "Balance",
            "other",
            "anonymous",
        ]

    def test_does_not_remember_what_is_not_valid(self) -> None:
        names = Names(None)
        assert [names.label("Made", is_valid=valid) for valid in (False, True, False)] == ["other", "Made", "Made"]

    @pytest.mark.parametrize("name", ["Pay4242424242424242", "N" * 65, "Pay_123_"])
    def test_remembers_no_name_that_may_hold_a_cards_number(self, name: str) -> None:
        assert Names(None).label(name, is_valid=True) == "other"
