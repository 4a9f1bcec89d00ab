"""Operation names in metrics."""

import pytest

from gateway.graphql.execution.metrics import OperationNames


class TestOperationNames:
    def test_first_hundred_names_have_labels(self) -> None:
        names = OperationNames(None)
        operations = [f"Operation{chr(ord('a') + each // 10)}{each % 10}" for each in range(150)]
        labels = [names.label(name, is_valid=True) for name in operations]
        assert labels == operations[:100] + ["other"] * 50
        assert names.label(operations[0], is_valid=False) == operations[0]

    def test_only_listed_names_have_labels(self) -> None:
        names = OperationNames(["Balance"])
        assert [names.label(name, is_valid=True) for name in ("Balance", "Other", None)] == [
            "Balance",
            "other",
            "anonymous",
        ]

    def test_name_of_an_invalid_operation_is_not_recorded(self) -> None:
        names = OperationNames(None)
        labels = [names.label("Valid", is_valid=is_valid) for is_valid in (False, True, False)]
        assert labels == ["other", "Valid", "Valid"]

    @pytest.mark.parametrize("name", ["Pay4242424242424242", "N" * 65, "Pay_123_"])
    def test_name_that_may_contain_a_card_number_is_not_recorded(self, name: str) -> None:
        assert OperationNames(None).label(name, is_valid=True) == "other"
