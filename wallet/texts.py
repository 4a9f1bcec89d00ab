"""Rules of texts that callers write for later readers: descriptions, references, labels."""

import unicodedata
from collections.abc import Iterator
from typing import Final

from wallet.luhn import has_valid_check_digit

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, lone surrogates, and separators of lines and paragraphs."""
_REORDERING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the order in which the text around them is shown. Right-to-left marks are not among them."""
_SEPARATOR_CATEGORIES: Final = frozenset({"Cf", "Pd", "Zs"})
"""Invisible characters, hyphens and spaces."""
_MINUS: Final = "\u2212"
_MIN_CARD_DIGITS: Final = 13
_MAX_CARD_DIGITS: Final = 19


def text_problem(text: str, max_length: int) -> str | None:
    """Return the rule that a text breaks, in a form that follows the field's name; None if the text is valid.

    Args:
        text: the text. Its characters are counted as code points.
        max_length: maximum number of characters.
    """
    if len(text) > max_length:
        return f"must have at most {max_length} characters"
    if text.isascii() and text.isprintable():
        return _card_problem(text)
    if any(unicodedata.category(each) in _REFUSED_CATEGORIES or each in _REORDERING for each in text):
        return "must not contain control characters, line breaks or characters that change the direction of the text"
    return _card_problem(text)


def has_card_number(text: str) -> bool:
    """Return whether the text has a run of 13 to 19 digits with a valid check digit.

    A run is one or more neighbouring groups of digits. Spaces, hyphens and invisible characters between the groups are
    ignored. The digits of all scripts count.
    """
    return any(
        _MIN_CARD_DIGITS <= len(digits) <= _MAX_CARD_DIGITS and has_valid_check_digit(digits)
        for groups in _digit_groups(text)
        for digits in _neighbours(groups)
    )


def _card_problem(text: str) -> str | None:
    return "must not contain a card number" if has_card_number(text) else None


def _neighbours(groups: list[str]) -> Iterator[str]:
    """Yield the digits of each sequence of neighbouring groups, as long as it can be a card number."""
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) > _MAX_CARD_DIGITS:
                break
            yield digits


def _digit_groups(text: str) -> Iterator[list[str]]:
    """Yield the groups of digits of each part of the text that has only digits and separators."""
    groups: list[str] = []
    in_group = False
    for character in text:
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            if in_group:
                groups[-1] += str(digit)
            else:
                groups.append(str(digit))
            in_group = True
        elif unicodedata.category(character) in _SEPARATOR_CATEGORIES or character == _MINUS:
            in_group = False
        elif groups:
            yield groups
            groups, in_group = [], False
    if groups:
        yield groups
