"""Security headers that every response gets unless it sets them itself."""

from typing import Final

Header = tuple[bytes, bytes]

_DEFAULTS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Defaults for responses that are private to one caller and are not pages.

Browsers must not guess their content type.
"""


def with_security_headers(headers: list[Header]) -> list[Header]:
    """Return the headers with the missing defaults appended."""
    names = dict(headers)  # faster than a set comprehension
    return headers + [each for each in _DEFAULTS if each[0] not in names]
