"""Money: a decimal amount of one ISO 4217 currency. Never a float."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Self

DEFAULT_CURRENCY: Final = "RUB"

# ISO 4217 (list one, active codes of national currencies) by the number of decimals of the minor unit.
_CODES_BY_EXPONENT: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP
        CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS
        INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN
        MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE
        SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR
        ZMW ZWG
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

EXPONENTS: Final[dict[str, int]] = {
    code: exponent for exponent, codes in _CODES_BY_EXPONENT.items() for code in codes.split()
}
"""Decimals of the minor unit by currency code: `EXPONENTS["RUB"] == 2`."""

_MINOR_UNITS: Final = {code: Decimal(1).scaleb(-exponent) for code, exponent in EXPONENTS.items()}

MAX_AMOUNT: Final = Decimal(10) ** 12
"""The largest amount of one operation, in units of its currency. A balance may hold a million of these."""


class MoneyError(ValueError):
    """An amount or a currency that is not money; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount of one currency, with exactly the decimals that the currency has.

    May be negative: a posting or the balance of a clearing account is money too. Arithmetic and order hold between
    equal currencies only and raise MoneyError otherwise.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        minor_unit = _MINOR_UNITS.get(self.currency)
        if minor_unit is None:
            raise MoneyError(f"{self.currency[:8]!r} is not an ISO 4217 currency")  # it may be of any length
        if not isinstance(self.amount, Decimal):
            raise TypeError(f"an amount is a Decimal, not {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise MoneyError("must be a finite number")
        try:
            scaled = self.amount.quantize(minor_unit)
        except InvalidOperation:
            raise MoneyError("has too many digits") from None
        if scaled != self.amount:
            raise MoneyError(f"{self.currency} has {EXPONENTS[self.currency]} decimals")
        object.__setattr__(self, "amount", scaled + 0)  # zero has no sign

    @classmethod
    def parse(cls, text: str, currency: str = DEFAULT_CURRENCY) -> Self:
        """Money from plain decimal notation (`"10.00"`): no exponent, no sign but a minus, no spaces.

        Raises:
            MoneyError: the text is not such a number, is too precise for the currency, or the currency is unknown.
        """
        digits = text.removeprefix("-")
        if len(text) > 40 or not digits.isascii() or not digits.replace(".", "", 1).isdigit():  # noqa: PLR2004  longer than any balance
            raise MoneyError("must be a decimal number such as 10.00")
        return cls(Decimal(text), currency)

    @property
    def is_positive(self) -> bool:
        """Above zero."""
        return self.amount > 0

    def __str__(self) -> str:
        return f"{self.amount:f}"

    def __add__(self, other: Self) -> Self:
        return type(self)(self.amount + self._like(other), self.currency)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.amount - self._like(other), self.currency)

    def __neg__(self) -> Self:
        return type(self)(-self.amount, self.currency)

    def __lt__(self, other: Self) -> bool:
        return self.amount < self._like(other)

    def __le__(self, other: Self) -> bool:
        return self.amount <= self._like(other)

    def _like(self, other: Self) -> Decimal:
        if other.currency != self.currency:
            raise MoneyError(f"{self.currency} and {other.currency} do not mix")
        return other.amount
