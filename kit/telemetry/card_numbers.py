"""Card numbers in text: they are masked in logs, and refused in ids that a client chooses."""

import re
from collections.abc import Iterator
from typing import Final

from wallet.luhn import has_valid_check_digit

_MIN_DIGITS: Final = 13
_MAX_DIGITS: Final = 19
_MIN_GROUP: Final = 4
"""Minimum digits of a group of a card number, except the last group."""
_MAX_GROUP: Final = 8
_MAX_GROUPS: Final = -(-_MAX_DIGITS // _MIN_GROUP)

_ASCII_SEPARATORS: Final = b" \t-._:/+"
_UNICODE_SEPARATORS: Final = "|".join(
    "\u00a0\u00ad\u00b7\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d"
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2022\u202f\u2043\u205f\u2060\u2212\u3000\ufe58\ufe63\ufeff\uff0d"
).encode()
_ESCAPED_SEPARATORS: Final = (
    rb"%(?:20|09|2[BbDdEeFf]|3[Aa]|5[Ff]|[Cc]2%(?:[Aa][0Dd]|[Bb]7)|[Ee]2%8[0-8]%[0-9A-Fa-f]{2}|[Ee]3%80%80)"
    rb"|\\{1,4}+(?:[nrt]|x(?:85|a0|ad)|u00(?:09|85|a0|ad)|u2[02][0-9a-f]{2}|u3000|ufeff)"
)
_SEPARATORS: Final = (
    rb"(?:[" + re.escape(_ASCII_SEPARATORS) + rb"]|" + _UNICODE_SEPARATORS + rb"|" + _ESCAPED_SEPARATORS + rb"){1,3}+"
)
_GROUP: Final = re.compile(rb"(\d++)(?:" + _SEPARATORS + rb")?+")
_GROUPS: Final = re.compile(rb"\d{4,}+(?:" + _SEPARATORS + rb"\d++)*+")

_ID: Final = re.compile(
    rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![0-9A-Fa-f])"
    rb"|(?<![0-9a-f])(?=\d{0,63}[a-f])(?:[0-9a-f]{64}|[0-9a-f]{32})(?![0-9a-f])"
)
"""UUIDs, and trace ids and hashes with at least one letter. They may have many digits in a row."""

_ESCAPE_DIGITS: Final = re.compile(rb"(?<=%)\d{2}|(?<=\\x)\d{2}|(?<=\\u)\d{4}")
_ZEROED: Final = bytes.maketrans(b"123456789", b"000000000")
_NINES: Final = bytes.maketrans(b"012345678", b"999999999")
_DIGITS: Final = b"0" * _MIN_DIGITS
_SKIPPED: Final = _ASCII_SEPARATORS + bytes(range(0x80, 0x100))


def mask_card_numbers(text: bytes) -> bytes:
    """Replace the digits of card numbers by nines, which are valid JSON in any place.

    A card number has 13 to 19 digits with a valid check digit. Any characters may stand before and after it. The digits
    are in a row, in two groups of 8, or in three or more groups of 4 to 8 digits; the last group may be shorter.
    Between two groups are one to three separators: spaces, hyphens (also those of Unicode, or escaped) and the
    characters `._:/+`. Longer sequences of digits are masked too.

    UUIDs, and hexadecimal ids of 32 or 64 digits with a letter, are not masked. Few other values match: timestamps,
    addresses and amounts have other groups, and only one in ten numbers has a valid check digit.
    """
    if b"%" not in text and b"\\" not in text and _DIGITS not in text.translate(_ZEROED, _SKIPPED):
        return text  # the most frequent case
    if not any(_find_cards(text)):
        return text
    masked = bytearray(text)
    for start, end in _find_cards(_ID.sub(lambda found: b"x" * len(found[0]), text)):
        masked[start:end] = text[start:end].translate(_NINES)
    return bytes(masked)


def has_card_number(text: str) -> bool:
    """Return whether the text contains a card number that `mask_card_numbers` would mask."""
    encoded = text.encode()
    return mask_card_numbers(encoded) != encoded


def _find_cards(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield the positions of the groups of card numbers. Card numbers may overlap."""
    for found in _GROUPS.finditer(text):
        if len(found[0]) < _MIN_DIGITS:
            continue
        groups = [group.span(1) for group in _GROUP.finditer(text, *found.span())]
        for first in range(len(groups)):
            yield from _find_first_card(text, groups[first : first + _MAX_GROUPS])
        escape = _ESCAPE_DIGITS.match(text, found.start())
        if escape is not None:  # the first digits may be those of `%22` and not of the number
            yield from _find_first_card(text, [(escape.end(), groups[0][1]), *groups[1:_MAX_GROUPS]])


def _find_first_card(text: bytes, groups: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the groups of the longest card number that begins with the first group; empty without such a number."""
    digits = b""
    longest = 0
    for count, (start, end) in enumerate(groups, 1):
        length = end - start
        digits += text[start:end]
        if len(digits) > _MAX_DIGITS:
            return groups[: max(longest, count == 1)]
        if count > 1 and length > _MAX_GROUP:
            break
        is_pair = count == 2  # noqa: PLR2004  only 8-8: other pairs are amounts and timestamps
        if len(digits) >= (2 * _MAX_GROUP if is_pair else _MIN_DIGITS) and has_valid_check_digit(digits.decode()):
            longest = count
        if not _MIN_GROUP <= length <= _MAX_GROUP:
            break
    return groups[:longest]
