"""Columns of the table `operations`, and conversion of its rows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from subgraphs.analytics.service.domain.model import (
    AMOUNT_DECIMALS,
    AMOUNT_DIGITS,
    NO_WORDS,
    Direction,
    OperationType,
    Row,
    Words,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

DECIMAL: Final = f"Decimal({AMOUNT_DIGITS + AMOUNT_DECIMALS}, {AMOUNT_DECIMALS})"
COLUMNS: Final = {
    "account_id": "UUID",
    "account_version": "Int64",
    "operation_id": "UUID",
    "type": "Enum8('TRANSFER' = 1, 'TOP_UP' = 2)",
    "direction": "Enum8('IN' = 1, 'OUT' = 2)",
    "amount": DECIMAL,
    "currency": "LowCardinality(String)",
    "balance_after": DECIMAL,
    "counterparty_id": "UUID",
    "occurred_at": "DateTime64(6, 'UTC')",
    "description": "String",
    "reference": "String",
    "metadata": "Map(String, String)",
    "created_by": "String",
}
"""Type of each column. The migrations create the same columns in the same order, as a test verifies."""

NAMES: Final = ", ".join(COLUMNS)


def columns_from_rows(rows: Sequence[Row]) -> list[list[Any]]:
    """Return the values of each column, in the table's order, for an insert."""
    return [
        [row.account_id for row in rows],
        [row.account_version for row in rows],
        [row.operation_id for row in rows],
        [row.type.value for row in rows],
        [row.direction.value for row in rows],
        [row.amount for row in rows],
        [row.currency for row in rows],
        [row.balance_after for row in rows],
        [row.counterparty_id for row in rows],
        [to_microseconds(row.occurred_at) for row in rows],
        [row.words.description for row in rows],
        [row.words.reference for row in rows],
        [dict(sorted(row.words.metadata.items())) for row in rows],
        [row.words.created_by for row in rows],
    ]


def row_from_values(values: Sequence[Any]) -> Row:
    """Convert a row of a query that selects `NAMES`."""
    account_id, version, operation_id, kind, direction, *rest = values
    amount, currency, balance_after, counterparty_id, occurred_at, description, reference, metadata, created_by = rest
    return Row(
        account_id,
        version,
        operation_id,
        OperationType(kind),
        Direction(direction),
        amount,
        currency,
        balance_after,
        counterparty_id,
        occurred_at,
        Words(description, reference, metadata, created_by) if description or created_by else NO_WORDS,
    )


def to_microseconds(time: datetime) -> int:
    """Return the microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)
