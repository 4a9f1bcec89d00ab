"""Conversion of money and times."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage
from hypothesis import given
from hypothesis import strategies as st

from kit.rpc import converters
from wallet.money import EXPONENTS, MAX_AMOUNT, Money, MoneyError


@st.composite
def moneys(draw: st.DrawFn) -> Money:
    """Generate amounts of either sign whose `units` fit into 64 bits."""
    currency = draw(st.sampled_from(sorted(EXPONENTS)))
    exponent = EXPONENTS[currency]
    minor_units = draw(st.integers(-(2**63 - 1) * 10**exponent, (2**63 - 1) * 10**exponent))
    return Money(Decimal(minor_units).scaleb(-exponent), currency)


class TestMoney:
    @given(moneys())
    def test_money_survives_a_round_trip(self, money: Money) -> None:
        message = MoneyMessage.FromString(converters.money_to_proto(money).SerializeToString())
        assert converters.money_from_proto(message) == money

    @given(moneys())
    def test_text_is_that_of_the_money(self, money: Money) -> None:
        assert converters.money_text(converters.money_to_proto(money)) == str(money)

    @given(moneys())
    def test_units_and_nanos_have_the_same_sign(self, money: Money) -> None:
        message = converters.money_to_proto(money)
        assert message.units * message.nanos >= 0
        assert abs(message.nanos) < 10**9
        assert message.units + Decimal(message.nanos) / 10**9 == money.amount

    @pytest.mark.parametrize(
        ("text", "units", "nanos"),
        [("-0.01", 0, -10_000_000), ("-1.75", -1, -750_000_000), ("0.00", 0, 0), ("1.05", 1, 50_000_000)],
    )
    def test_money_message_is_as_google_documents_it(self, text: str, units: int, nanos: int) -> None:
        assert converters.money_to_proto(Money.parse(text)) == MoneyMessage(
            currency_code="RUB", units=units, nanos=nanos
        )

    @pytest.mark.parametrize(
        ("units", "nanos"), [(1, -1), (-1, 1), (0, 10**9), (0, -(10**9)), (1, 2**31 - 1), (-1, -(2**31))]
    )
    def test_invalid_money_message_is_refused(self, units: int, nanos: int) -> None:
        with pytest.raises(MoneyError, match=r"not a google\.type\.Money"):
            converters.money_from_proto(MoneyMessage(currency_code="RUB", units=units, nanos=nanos))

    @pytest.mark.parametrize(
        ("currency", "nanos"), [("RUB", 1), ("RUB", 1_000_000), ("JPY", 10_000_000), ("XXX", 0), ("", 0)]
    )
    def test_too_precise_money_or_unknown_currency_is_refused(self, currency: str, nanos: int) -> None:
        with pytest.raises(MoneyError):
            converters.money_from_proto(MoneyMessage(currency_code=currency, units=0, nanos=nanos))

    @given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), st.sampled_from(["RUB", "JPY", "?", ""]))
    def test_any_money_message_is_converted_exactly_or_refused(self, units: int, nanos: int, currency: str) -> None:
        message = MoneyMessage(currency_code=currency, units=units, nanos=nanos)
        try:
            money = converters.money_from_proto(message)
        except MoneyError:
            with pytest.raises(MoneyError):
                converters.money_text(message)
            return
        assert converters.money_text(message) == str(money)
        assert money == Money(units + Decimal(nanos) / 10**9, currency)
        assert converters.money_to_proto(money) == message

    def test_largest_amount_fits_a_money_message(self) -> None:
        largest = Money(MAX_AMOUNT * 10**6, "RUB")
        assert converters.money_from_proto(converters.money_to_proto(largest)) == largest


class TestTime:
    @given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001  Hypothesis adds the zone
    def test_time_survives_a_round_trip_to_the_microsecond(self, time: datetime) -> None:
        assert converters.time_from_proto(converters.time_to_proto(time)) == time

    @pytest.mark.parametrize(
        ("seconds", "nanos"), [(0, -1), (0, 10**9), (-62_135_596_801, 0), (253_402_300_800, 0), (2**62, 0)]
    )
    def test_invalid_time_message_is_refused(self, seconds: int, nanos: int) -> None:
        with pytest.raises(ValueError, match=r"not a google\.protobuf\.Timestamp"):
            converters.time_from_proto(Timestamp(seconds=seconds, nanos=nanos))
        with pytest.raises(ValueError, match=r"not a google\.protobuf\.Timestamp"):
            converters.time_text(Timestamp(seconds=seconds, nanos=nanos))

    @given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 10**9 - 1) | st.integers(0, 2_000))
    def test_time_is_that_of_the_library(self, seconds: int, nanos: int) -> None:
        message = Timestamp(seconds=seconds, nanos=nanos)
        assert converters.time_from_proto(message) == message.ToDatetime(tzinfo=UTC)
        assert converters.time_text(message) == message.ToDatetime(tzinfo=UTC).isoformat()

    def test_time_of_any_zone_becomes_utc(self) -> None:
        noon_in_moscow = datetime(2025, 1, 1, 12, tzinfo=timezone(timedelta(hours=3)))
        arrived = converters.time_from_proto(converters.time_to_proto(noon_in_moscow))
        assert arrived == noon_in_moscow
        assert arrived.tzinfo is UTC
