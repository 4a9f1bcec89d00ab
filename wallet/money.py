"""Money as a decimal amount in an ISO 4217 currency, never a float."""

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

_MINOR_UNITS_LIMIT: Final = 10**28
"""Minor units that have more digits than Python's decimal context keeps."""

MAX_AMOUNT: Final = Decimal(10) ** 12
"""Largest amount of one operation, in units of its currency. A balance may be a million times larger."""


class MoneyError(ValueError):
    """Invalid amount or currency. Callers see the message."""


@dataclass(frozen=True, slots=True)
class Money:
    """Exact amount in one currency, with the number of decimals of that currency.

    It may be negative, as in postings and in the balance of a clearing account. Arithmetic and comparison of different
    currencies raise MoneyError.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        minor_unit = _MINOR_UNITS.get(self.currency)
        if minor_unit is None:
            raise MoneyError("must be in an ISO 4217 currency")
        if not isinstance(self.amount, Decimal):
            raise TypeError(f"an amount must be a Decimal, not {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise MoneyError("must be a finite number")
        try:
            scaled = self.amount.quantize(minor_unit)
        except InvalidOperation:
            raise MoneyError("has too many digits") from None
        if scaled != self.amount:
            raise MoneyError(f"must have at most {EXPONENTS[self.currency]} decimals in {self.currency}")
        object.__setattr__(self, "amount", scaled + 0)  # zero has no sign

    @classmethod
    def parse(cls, text: str, currency: str = DEFAULT_CURRENCY) -> Self:
        """Parse plain decimal notation such as `"10.00"`: an optional minus, no exponent, no spaces.

        Raises:
            MoneyError: the text has another form or too many decimals, or the currency is unknown.
        """
        digits = text.removeprefix("-")
        if len(text) > 40 or not digits.isascii() or not digits.replace(".", "", 1).isdigit():  # noqa: PLR2004  longer than any balance
            raise MoneyError("must be a decimal number such as 10.00")
        return cls(Decimal(text), currency)

    @classmethod
    def from_minor_units(cls, number: int, currency: str) -> Self:
        """Return an amount that is a whole number of minor units, such as cents.

        It takes half of the time of the constructor, which also checks the decimals.

        Raises:
            MoneyError: the currency is unknown, or the number has too many digits.
        """
        exponent = EXPONENTS.get(currency)
        if exponent is None:
            raise MoneyError("must be in an ISO 4217 currency")
        if abs(number) >= _MINOR_UNITS_LIMIT:
            raise MoneyError("has too many digits")
        money = object.__new__(cls)
        object.__setattr__(money, "amount", Decimal(number).scaleb(-exponent))
        object.__setattr__(money, "currency", currency)
        return money

    @property
    def is_positive(self) -> bool:
        """Whether the amount is above zero."""
        return self.amount > 0

    def __str__(self) -> str:
        return f"{self.amount:f}"

    def __add__(self, other: Self) -> Self:
        return type(self)(self.amount + self._amount_in_same_currency(other), self.currency)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.amount - self._amount_in_same_currency(other), self.currency)

    def __neg__(self) -> Self:
        return type(self)(-self.amount, self.currency)

    def __lt__(self, other: Self) -> bool:
        return self.amount < self._amount_in_same_currency(other)

    def __le__(self, other: Self) -> bool:
        return self.amount <= self._amount_in_same_currency(other)

    def _amount_in_same_currency(self, other: Self) -> Decimal:
        if other.currency != self.currency:
            raise MoneyError(f"amounts in {self.currency} and {other.currency} cannot be combined")
        return other.amount
