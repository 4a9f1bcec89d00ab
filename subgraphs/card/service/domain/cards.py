"""Cards as they are typed in: is this one possible? Pure; what is wrong is said without saying what was given."""

from dataclasses import dataclass, field
from datetime import date
from typing import Final

from subgraphs.card.service.domain.top_up import Brand
from wallet.errors import FieldViolation

_LENGTHS: Final = range(12, 20)
_MONTHS: Final = range(1, 13)
_LONGEST_YEARS: Final = 20
"""No issuer makes a card for longer; a year beyond is a slip."""

_PREFIXES: Final = (
    (2, range(34, 35), Brand.AMEX),
    (2, range(37, 38), Brand.AMEX),
    (4, range(2200, 2205), Brand.MIR),
    (4, range(2221, 2721), Brand.MASTERCARD),
    (2, range(51, 56), Brand.MASTERCARD),
    (2, range(62, 63), Brand.UNIONPAY),
    (2, range(81, 82), Brand.UNIONPAY),
    (1, range(4, 5), Brand.VISA),
)
"""Issuer identification numbers by how many of the first digits say it (ISO/IEC 7812; the networks' own ranges)."""


@dataclass(frozen=True, slots=True)
class CardDetails:
    """A card's data on its only way from the caller to the acquirer. Its `repr` shows neither number nor code."""

    number: str = field(repr=False)
    expiry_month: int
    expiry_year: int
    cvv: str = field(repr=False)


def brand(number: str) -> Brand:
    """The network of a card by the first digits of its number."""
    for digits, prefixes, network in _PREFIXES:
        if int(number[:digits]) in prefixes:
            return network
    return Brand.OTHER


def passes_luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004  the sum of its two digits
    return total % 10 == 0


def check(card: CardDetails, today: date) -> list[FieldViolation]:
    """What is wrong with a card, field by field. It never says what was given."""
    violations = []
    is_number = card.number.isascii() and card.number.isdigit()
    if not (is_number and len(card.number) in _LENGTHS):
        violations.append(FieldViolation("card.number", f"must be {_LENGTHS[0]} to {_LENGTHS[-1]} digits"))
    elif not passes_luhn(card.number):
        violations.append(FieldViolation("card.number", "is no card number: its check digit is wrong"))
    years = range(today.year, today.year + _LONGEST_YEARS + 1)
    if card.expiry_month not in _MONTHS:
        violations.append(FieldViolation("card.expiryMonth", "must be 1 to 12"))
    if card.expiry_year not in years:
        is_past = 0 < card.expiry_year < today.year
        violations.append(
            FieldViolation("card.expiryYear", "is past" if is_past else "must be a year of four digits, not far ahead")
        )
    elif card.expiry_year == today.year and card.expiry_month in range(1, today.month):
        violations.append(FieldViolation("card.expiryMonth", "is past"))
    digits = 4 if is_number and card.number and brand(card.number) is Brand.AMEX else 3
    if not (card.cvv.isascii() and card.cvv.isdigit() and len(card.cvv) == digits):
        violations.append(FieldViolation("card.cvv", f"must be {digits} digits"))
    return violations
