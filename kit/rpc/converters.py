"""Conversion between Python values and google.type and google.protobuf messages, for servicers and clients."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage

from wallet.money import EXPONENTS, Money, MoneyError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_LAST_SECOND: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_NANOS: Final = 1_000_000_000
_MINOR_UNITS: Final = {code: (10**exponent, 10 ** (9 - exponent)) for code, exponent in EXPONENTS.items()}
"""Minor units in a unit, and nanos in a minor unit, by currency code."""
_DECIMALS: Final = {
    code: (10 ** (9 - exponent), f"%d.%0{exponent}d") for code, exponent in EXPONENTS.items() if exponent
}
"""Nanos in a minor unit, and the template of an amount, by the code of a currency with decimals."""


def money_from_proto(message: MoneyMessage) -> Money:
    """Convert an amount without rounding.

    Raises:
        MoneyError: units and nanos differ in sign, nanos are out of range, or the value is no valid `Money`.
    """
    units, nanos, currency = message.units, message.nanos, message.currency_code
    if nanos and (abs(nanos) >= _NANOS or units * nanos < 0):
        raise MoneyError("units and nanos are not a google.type.Money")
    minor_units_per_unit, nanos_per_minor_unit = _MINOR_UNITS.get(currency, (1, 1))
    if nanos % nanos_per_minor_unit:
        return Money(units + Decimal(nanos) / _NANOS, currency)  # raises an error: the amount has too many decimals
    return Money.from_minor_units(units * minor_units_per_unit + nanos // nanos_per_minor_unit, currency)


def money_text(message: MoneyMessage) -> str:
    """Return the amount as `str(money_from_proto(message))`, without the objects in between if it is not negative.

    Raises:
        MoneyError: as `money_from_proto`.
    """
    units, nanos = message.units, message.nanos
    decimals = _DECIMALS.get(message.currency_code)
    if decimals is not None and units >= 0 and 0 <= nanos < _NANOS:
        nanos_per_minor_unit, template = decimals
        minor_units, rest = divmod(nanos, nanos_per_minor_unit)
        if not rest:
            return template % (units, minor_units)
    return str(money_from_proto(message))


def money_to_proto(money: Money) -> MoneyMessage:
    """Convert an amount without rounding: no currency has more than nine decimals."""
    units = int(money.amount)
    nanos = int((money.amount - units) * _NANOS)
    return MoneyMessage(currency_code=money.currency, units=units, nanos=nanos)


def time_from_proto(message: Timestamp) -> datetime:
    """Convert a time to an aware datetime in UTC; nanoseconds are cut to microseconds.

    Raises:
        ValueError: the message is not valid, or the year is not 1 to 9999.
    """
    seconds, nanos = message.seconds, message.nanos
    if not 0 <= nanos < _NANOS or not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ValueError("seconds and nanos are not a google.protobuf.Timestamp")
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1_000)


def time_text(message: Timestamp) -> str:
    """Return the time as `time_from_proto(message).isoformat()`. Times of the same minute share a part of the text.

    Raises:
        ValueError: as `time_from_proto`.
    """
    minutes, seconds = divmod(message.seconds, 60)
    nanos = message.nanos
    if not 0 <= nanos < _NANOS:
        return time_from_proto(message).isoformat()  # raises an error
    fraction = f".{nanos // 1_000:06}" if nanos >= 1_000 else ""  # noqa: PLR2004  nanoseconds in a microsecond
    return f"{_minute_text(minutes)}:{seconds:02}{fraction}+00:00"


@lru_cache(maxsize=4_096)
def _minute_text(minutes: int) -> str:
    """Return the start of the text of a time: its date, hour and minute."""
    minute = time_from_proto(Timestamp(seconds=60 * minutes))
    return minute.replace(tzinfo=None).isoformat(timespec="minutes")


def time_to_proto(time: datetime) -> Timestamp:
    """Convert an aware datetime."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)
