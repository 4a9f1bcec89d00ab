"""Conversion between Python values and google.type and google.protobuf messages, for servicers and clients."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage

from wallet.money import Money, MoneyError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS: Final = Decimal(1_000_000_000)


def money_from_proto(message: MoneyMessage) -> Money:
    """Convert an amount without rounding.

    Raises:
        MoneyError: units and nanos differ in sign, nanos are out of range, or the value is no valid `Money`.
    """
    if abs(message.nanos) >= _NANOS or message.units * message.nanos < 0:
        raise MoneyError("units and nanos are not a google.type.Money")
    return Money(message.units + message.nanos / _NANOS, message.currency_code)


def money_to_proto(money: Money) -> MoneyMessage:
    """Convert an amount without rounding: no currency has more than nine decimals."""
    units = int(money.amount)
    nanos = int((money.amount - units) * _NANOS)
    return MoneyMessage(currency_code=money.currency, units=units, nanos=nanos)


def time_from_proto(message: Timestamp) -> datetime:
    """Convert a time to an aware datetime in UTC; nanoseconds are cut to microseconds."""
    return message.ToDatetime(tzinfo=UTC)


def time_to_proto(time: datetime) -> Timestamp:
    """Convert an aware datetime."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)
