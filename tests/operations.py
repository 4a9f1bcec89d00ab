"""Operations of the analytics client, as they arrive in messages."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from kit.rpc.converters import money_to_proto, time_to_proto
from protos.wallet.analytics.v1 import analytics_pb2
from subgraphs.analytics.client import Operation
from wallet.money import Money

TIME: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_ID: Final = str(UUID("123e4567-e89b-12d3-a456-426614174000"))


def new_operation(version: int, **fields: Any) -> Operation:
    """Return an incoming transfer of 10.00 RUB that gave its account this version.

    Args:
        version: version of the account.
        fields: other fields of the message.
    """
    money = money_to_proto(Money.parse("10.00"))
    defaults: dict[str, Any] = {
        "id": _ID,
        "account_id": _ID,
        "type": analytics_pb2.OPERATION_TYPE_TRANSFER,
        "direction": analytics_pb2.DIRECTION_IN,
        "amount": money,
        "balance_after": money,
        "counterparty_id": _ID,
        "occurred_at": time_to_proto(TIME),
    }
    return Operation(analytics_pb2.Operation(**defaults | fields, account_version=version))
