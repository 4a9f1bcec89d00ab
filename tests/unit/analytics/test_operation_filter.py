"""The filter of operations in the graph."""

import pytest
import strawberry

from subgraphs.analytics import client
from subgraphs.analytics.graph.types import OperationFilter
from wallet.errors import InvalidInput


def test_filter_without_conditions_matches_all() -> None:
    assert OperationFilter().to_client() == client.OperationFilter()


def test_empty_texts_are_refused_and_named() -> None:
    condition = OperationFilter(counterparty_id=strawberry.ID(""), min_amount="", max_amount="")
    with pytest.raises(InvalidInput) as caught:
        condition.to_client()
    assert [each.field for each in caught.value.violations] == ["counterpartyId", "minAmount", "maxAmount"]
