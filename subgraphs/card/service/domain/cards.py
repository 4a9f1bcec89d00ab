"""Cards: brand, token and validation of card details. Pure functions; violations never contain the card's data."""

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from wallet.errors import FieldViolation
from wallet.luhn import has_valid_check_digit

_LENGTHS: Final = range(12, 20)
_MONTHS: Final = range(1, 13)
_MAX_YEARS_AHEAD: Final = 20
"""No issuer makes cards with a longer validity, so a later year is a typing error."""


class Brand(StrEnum):
    """Card network."""

    VISA = "VISA"
    MASTERCARD = "MASTERCARD"
    MIR = "MIR"
    AMEX = "AMEX"
    UNIONPAY = "UNIONPAY"
    OTHER = "OTHER"


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
"""Issuer identification numbers (ISO/IEC 7812). Each entry has a number of leading digits, the range of their values,
and the brand of card numbers that begin with a value in this range."""


@dataclass(frozen=True, slots=True)
class CardDetails:
    """Card data on the way from the caller to the acquirer. Its `repr` shows neither number nor security code."""

    number: str = field(repr=False)
    expiry_month: int
    expiry_year: int
    cvv: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardToken:
    """Acquirer's token of a card, with the data that may be shown. Equal numbers and expiry dates give equal tokens."""

    token: str
    brand: Brand
    last_four: str


def card_brand(number: str) -> Brand:
    """Return the brand of a card by the first digits of its number."""
    for digits, prefixes, brand in _PREFIXES:
        if int(number[:digits]) in prefixes:
            return brand
    return Brand.OTHER


def check_card(card: CardDetails, today: date) -> list[FieldViolation]:
    """Return the violations of the card's fields."""
    violations = []
    is_number = card.number.isascii() and card.number.isdigit()
    if not (is_number and len(card.number) in _LENGTHS):
        violations.append(FieldViolation("card.number", f"must be {_LENGTHS[0]} to {_LENGTHS[-1]} digits"))
    elif not has_valid_check_digit(card.number):
        violations.append(FieldViolation("card.number", "is not a card number: its check digit is wrong"))
    years = range(today.year, today.year + _MAX_YEARS_AHEAD + 1)
    if card.expiry_month not in _MONTHS:
        violations.append(FieldViolation("card.expiryMonth", "must be 1 to 12"))
    if card.expiry_year not in years:
        is_past = 0 < card.expiry_year < today.year
        message = "is past" if is_past else f"must be four digits, at most {_MAX_YEARS_AHEAD} years ahead"
        violations.append(FieldViolation("card.expiryYear", message))
    elif card.expiry_year == today.year and card.expiry_month in range(1, today.month):
        violations.append(FieldViolation("card.expiryMonth", "is past"))
    digits = 4 if is_number and card.number and card_brand(card.number) is Brand.AMEX else 3
    if not (card.cvv.isascii() and card.cvv.isdigit() and len(card.cvv) == digits):
        violations.append(FieldViolation("card.cvv", f"must be {digits} digits"))
    return violations
