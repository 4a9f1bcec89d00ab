"""The one table, and its rows as values."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from subgraphs.analytics.service.domain.model import AMOUNT_DECIMALS, AMOUNT_DIGITS, Direction, OperationType, Row

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
}
NAMES: Final = ", ".join(COLUMNS)


def columns_of(rows: Sequence[Row]) -> list[list[Any]]:
    """The rows by column, in the table's order, as they are inserted."""
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
        [micros(row.occurred_at) for row in rows],
    ]


def row_of(values: Sequence[Any]) -> Row:
    """A row as it is read, in the table's order."""
    account_id, version, operation_id, kind, direction, *rest = values
    return Row(account_id, version, operation_id, OperationType(kind), Direction(direction), *rest)


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)
