"""The GraphQL input `OperationFilter`, the filter of account operations."""

import pytest
import strawberry

from subgraphs.analytics import client
from subgraphs.analytics.graph.types import OperationFilter
from wallet.errors import InvalidInput


def test_filter_without_conditions_matches_all() -> None:
    assert OperationFilter().to_client() == client.OperationFilter()


def test_error_names_the_fields_with_empty_texts() -> None:
    condition = OperationFilter(counterparty_id=strawberry.ID(""), min_amount="", max_amount="")
    with pytest.raises(InvalidInput) as caught:
        condition.to_client()
    assert [each.field for each in caught.value.violations] == ["counterpartyId", "minAmount", "maxAmount"]
